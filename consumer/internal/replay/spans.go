package replay

// Span is a range of offsets: From inclusive, To exclusive.
type Span struct{ From, To int64 }

const (
	spanGap   = 5_000 // offsets that lie between two spans at least
	mostSpans = 64
)

// Spans covers offsets, which ascend, with few ranges: an owner is asked to read
// these again, and not what lies between. Its memory does not grow with their
// number. The zero value covers nothing.
type Spans struct {
	all []Span
	gap int64 // what lies closer together is one range
}

// Add takes the next offset.
func (s *Spans) Add(offset int64) { s.AddSpan(Span{offset, offset + 1}) }

// AddSpan takes the next offsets at once.
func (s *Spans) AddSpan(x Span) {
	s.gap = max(s.gap, spanGap)
	s.all = s.join(append(s.all, x), len(s.all))
	for len(s.all) > mostSpans {
		s.gap *= 2
		s.all = s.join(s.all, 1)
	}
}

// All are the ranges, in ascending order.
func (s *Spans) All() []Span { return s.all }

// Shift takes the first range away.
func (s *Spans) Shift() { s.all = s.all[1:] }

// join joins each span from all[from] on with the one before, if it is close.
func (s *Spans) join(all []Span, from int) []Span {
	out := all[:min(from, len(all))]
	for _, x := range all[len(out):] {
		if n := len(out); n > 0 && x.From-out[n-1].To < s.gap {
			out[n-1].To = x.To
			continue
		}
		out = append(out, x)
	}
	return out
}
