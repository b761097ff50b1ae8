package service

import (
	"context"
	"hash/maphash"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// The bounds of [Repeats].
const (
	// repeatsWindow is how long lines are counted as repeats of each other.
	repeatsWindow = 10 * time.Second
	// repeatsShown is how many equal lines of one window are written.
	repeatsShown = 5
	// repeatsKinds bounds the kinds of lines that are counted at a time; further
	// ones are written uncounted.
	repeatsKinds = 1024
	// recentKinds is how many warnings and errors are kept for [Repeats.Recent].
	recentKinds = 20
)

// Repeats writes log lines on, but of equal ones (level, message and attributes)
// only the first five in ten seconds. How many more there were is told in one
// line, before the next line that comes when the ten seconds are over. It
// remembers the last warnings and errors. It is safe for concurrent use.
type Repeats struct {
	next   slog.Handler
	prefix string // the attributes and groups of With, as text
	shared *repeats
}

type repeats struct {
	seed maphash.Seed

	mu     sync.Mutex
	kinds  map[uint64]*kind
	recent []Logged // the latest last
	due    time.Time
}

type kind struct {
	began time.Time
	count int
	line  slog.Record
	next  slog.Handler
}

// Logged is a warning or an error that was logged, once or more.
type Logged struct {
	At      time.Time `json:"at"` // the last time
	Level   string    `json:"level"`
	Message string    `json:"message"`
	Detail  string    `json:"detail,omitempty"` // its attributes
	Count   int       `json:"count"`
}

// NewRepeats returns a handler in front of next.
func NewRepeats(next slog.Handler) *Repeats {
	return &Repeats{next: next, shared: &repeats{seed: maphash.MakeSeed(), kinds: map[uint64]*kind{}}}
}

// Enabled is next's.
func (r *Repeats) Enabled(ctx context.Context, level slog.Level) bool {
	return r.next.Enabled(ctx, level)
}

// WithAttrs returns a handler that adds attrs, and counts together with r.
func (r *Repeats) WithAttrs(attrs []slog.Attr) slog.Handler {
	prefix := r.prefix
	for _, a := range attrs {
		prefix += " " + a.String()
	}
	return &Repeats{next: r.next.WithAttrs(attrs), prefix: prefix, shared: r.shared}
}

// WithGroup returns a handler that opens a group, and counts together with r.
func (r *Repeats) WithGroup(name string) slog.Handler {
	return &Repeats{next: r.next.WithGroup(name), prefix: r.prefix + " " + name + ".", shared: r.shared}
}

// Handle writes line, or counts it.
func (r *Repeats) Handle(ctx context.Context, line slog.Record) error {
	detail := r.prefix
	line.Attrs(func(a slog.Attr) bool { detail += " " + a.String(); return true })
	detail = strings.TrimPrefix(detail, " ")
	summaries, show := r.shared.count(r.next, line, detail)
	for _, s := range summaries {
		if err := s.next.Handle(ctx, s.line); err != nil {
			return err
		}
	}
	if !show {
		return nil
	}
	return r.next.Handle(ctx, line)
}

// count counts line, and tells whether it is to be written, and what before it.
func (s *repeats) count(next slog.Handler, line slog.Record, detail string) (summaries []*kind, show bool) {
	id := maphash.String(s.seed, line.Level.String()+"\x00"+line.Message+"\x00"+detail)
	s.mu.Lock()
	defer s.mu.Unlock()
	if line.Level >= slog.LevelWarn {
		s.remember(line, detail)
	}
	if line.Time.After(s.due) { // else no window is over yet
		s.due = line.Time.Add(repeatsWindow)
		for id, k := range s.kinds {
			if left := k.began.Add(repeatsWindow); line.Time.Before(left) {
				if left.Before(s.due) {
					s.due = left
				}
				continue
			}
			delete(s.kinds, id)
			if more := k.count - repeatsShown; more > 0 {
				k.line = k.line.Clone()
				k.line.Time = line.Time
				k.line.AddAttrs(slog.Int("repeated", more))
				summaries = append(summaries, k)
			}
		}
		slices.SortFunc(summaries, func(a, b *kind) int { return a.began.Compare(b.began) })
	}
	k, ok := s.kinds[id]
	if !ok {
		if len(s.kinds) == repeatsKinds {
			return summaries, true
		}
		k = &kind{began: line.Time, line: line.Clone(), next: next}
		s.kinds[id] = k
		if left := k.began.Add(repeatsWindow); left.Before(s.due) {
			s.due = left
		}
	}
	k.count++
	return summaries, k.count <= repeatsShown
}

func (s *repeats) remember(line slog.Record, detail string) {
	at := slices.IndexFunc(s.recent, func(l Logged) bool {
		return l.Message == line.Message && l.Detail == detail && l.Level == line.Level.String()
	})
	l := Logged{Level: line.Level.String(), Message: line.Message, Detail: detail}
	if at >= 0 {
		l = s.recent[at]
		s.recent = slices.Delete(s.recent, at, at+1)
	} else if len(s.recent) == recentKinds {
		s.recent = slices.Delete(s.recent, 0, 1)
	}
	l.At = line.Time
	l.Count++
	s.recent = append(s.recent, l)
}

// Recent are the last warnings and errors, the latest first.
func (r *Repeats) Recent() []Logged {
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	out := slices.Clone(r.shared.recent)
	slices.Reverse(out)
	return out
}
