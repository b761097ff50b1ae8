package verify

import (
	"cmp"
	"context"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/google/uuid"

	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// comparison is one partition's.
type comparison struct {
	Verifier
	r        Range
	progress func(int64)
	counts   Counts
	splits   *splits // nil: only presence is compared
	runs     runs

	facts   []fact    // the chunk's, in offset order
	found   []note    // about the chunk
	ranges  []Fate    // fates of ranges that may reach into the next stretch
	reached uuid.UUID // the log id that ranges are of
	beyond  []named
	digest  xxhash.Digest
	key     []byte
}

// named is a fact whose fate names a record that this reading can't see.
type named struct {
	fact  int
	first topic.Origin
}

// compare compares the chunk, which reaches from first to last, and forgets it.
func (c *comparison) compare(ctx context.Context, first, last int64) error {
	c.counts.Records += len(c.facts)
	for _, s := range c.r.Stretches(first, last) {
		if err := c.rows(ctx, s); err != nil {
			return err
		}
		if err := c.fates(ctx, s); err != nil {
			return err
		}
	}
	if err := c.elsewhere(ctx); err != nil {
		return err
	}
	for i := range c.facts {
		if c.decided(&c.facts[i]) && c.splits != nil {
			if err := c.splits.add(&c.facts[i]); err != nil {
				return err
			}
		}
	}
	c.facts = c.facts[:0]
	return c.endRun()
}

// rows joins the stretch's rows to its records; both are in offset order.
func (c *comparison) rows(ctx context.Context, s Stretch) error {
	i, last := c.from(s.First), int64(-1)
	return c.Store.Rows(ctx, s.Self, s.First, s.Last, func(r Row) {
		if r.Offset == last {
			return // repeats are found by key, wherever they come from
		}
		last = r.Offset
		c.counts.Rows++
		for i < len(c.facts) && c.facts[i].offset < r.Offset {
			i++
		}
		if i == len(c.facts) || c.facts[i].offset != r.Offset {
			c.counts.Extra++
			c.note(r.Offset, extraRow, nothing, row)
			return
		}
		f := &c.facts[i]
		f.actual = row
		switch {
		case f.class == unreadable || f.class == away && !f.once:
		case r.ID != f.id:
			c.different(f, otherKey, row)
		case r.Hash != f.hash:
			c.different(f, otherPayload, row)
		case r.Content != f.content:
			c.different(f, otherColumns, row)
		}
	})
}

// from is the index of the first record at or after an offset.
func (c *comparison) from(offset int64) int {
	i, _ := slices.BinarySearchFunc(c.facts, offset, func(f fact, o int64) int { return cmp.Compare(f.offset, o) })
	return i
}

// fates joins the stretch's fates to its records.
func (c *comparison) fates(ctx context.Context, s Stretch) error {
	if c.reached != s.Self.TopicID { // a log id's ranges are asked for once, and carried on
		c.reached, c.ranges = s.Self.TopicID, c.ranges[:0]
		if err := c.Store.Reaching(ctx, s.Self, s.First, func(f Fate) { c.ranges = append(c.ranges, f) }); err != nil {
			return err
		}
	}
	i := c.from(s.First)
	err := c.Store.Fates(ctx, s.Self, s.First, s.Last, func(f Fate) {
		if f.Last > f.Offset {
			c.ranges = append(c.ranges, f)
			return
		}
		for i < len(c.facts) && c.facts[i].offset < f.Offset {
			i++
		}
		if i == len(c.facts) || c.facts[i].offset != f.Offset {
			c.counts.Different++
			c.note(f.Offset, strayFate, nothing, stateOf(f))
			return
		}
		c.fate(i, f)
	})
	if err != nil {
		return err
	}
	for _, f := range c.ranges {
		for i := c.from(max(f.Offset, s.First)); i < len(c.facts) && c.facts[i].offset <= min(f.Last, s.Last); i++ {
			if c.facts[i].actual == nothing {
				c.facts[i].actual = stateOf(f)
			}
		}
	}
	c.ranges = slices.DeleteFunc(c.ranges, func(f Fate) bool { return f.Last <= s.Last })
	return nil
}

// fate is one record's fate.
func (c *comparison) fate(i int, fate Fate) {
	f := &c.facts[i]
	if f.actual == row {
		c.different(f, both, stateOf(fate))
		return
	}
	f.actual = stateOf(fate)
	if f.class == unreadable || f.actual != duplicate && f.actual != conflict {
		return
	}
	switch {
	case fate.ID != uuid.Nil && fate.ID != f.id:
		c.different(f, journaledKey, f.actual)
	case fate.Hash != (event.Hash{}) && fate.Hash != f.hash, f.actual == conflict && fate.Text != f.text:
		c.different(f, journaledPayload, f.actual)
	}
	switch {
	case fate.First.TopicID == uuid.Nil, f.expired:
	case c.r.holds(fate.First):
		f.sees, f.first = inside, fate.First.Offset
	default:
		f.sees = outside
		c.beyond = append(c.beyond, named{i, fate.First})
	}
}

// namedAtOnce bounds one question for rows by their origins.
const namedAtOnce = 20_000

// elsewhere compares duplicates and conflicts with the rows they name that are
// not in this range: another topic's, another partition's from when the topic
// had fewer, or one before or after the range. Of those that the log could show
// the row must be there; of the rest it may have been removed since.
func (c *comparison) elsewhere(ctx context.Context) error {
	for chunk := range slices.Chunk(c.beyond, namedAtOnce) {
		origins := make([]topic.Origin, len(chunk))
		for i, n := range chunk {
			origins[i] = n.first
		}
		rows, err := c.Store.Named(ctx, origins)
		if err != nil {
			return err
		}
		for _, n := range chunk {
			f := &c.facts[n.fact]
			r, ok := rows[n.first]
			want := duplicate
			if r.Hash != f.hash {
				want = conflict
			}
			switch {
			case !ok && n.first.TopicID == c.r.Self.TopicID && (n.first.Partition != c.r.Self.Partition || n.first.Offset >= c.r.To):
				c.different(f, firstGone, f.actual)
			case !ok:
			case r.ID != f.id:
				c.different(f, firstOther, f.actual)
			case f.actual != want:
				c.differs(f, want)
			}
		}
	}
	c.beyond = c.beyond[:0]
	return nil
}

// decided settles what the log says of a record by itself; it returns whether
// there is more to say, which depends on the key's other records.
func (c *comparison) decided(f *fact) (more bool) {
	switch f.class {
	case unreadable:
		c.settle(f, deadLetter)
		return false
	case away:
		if f.once && (f.actual == row || f.actual == duplicate || f.actual == conflict) {
			return true
		}
		c.settle(f, forwarded)
		return false
	}
	if f.expired { // its row, and those of its key, may be gone with their fates' sense
		if f.actual == nothing {
			c.counts.Unverifiable++
		}
		c.count(f.actual)
		return false
	}
	if f.actual == forwarded && f.once {
		c.counts.Forwarded++
		return false
	}
	if c.splits == nil {
		if f.actual == nothing {
			c.missing(f.offset, row)
		}
		c.count(f.actual)
	}
	return true
}

// settle compares what became of a record with what the log alone wants.
func (c *comparison) settle(f *fact, want state) {
	switch {
	case f.actual.given(), f.actual == refused:
		c.count(f.actual)
		return
	case f.actual == nothing:
		c.missing(f.offset, want)
	case f.actual != want:
		c.differs(f, want)
	}
	c.count(want)
}

// count counts a record by what it is, or ought to be. Rows are counted where
// they are read.
func (c *comparison) count(s state) {
	switch s {
	case duplicate:
		c.counts.Duplicates++
	case conflict:
		c.counts.Conflicts++
	case deadLetter, refused:
		c.counts.DeadLettered++
	case forwarded:
		c.counts.Forwarded++
	}
}

func (c *comparison) missing(offset int64, want state) {
	c.counts.Missing++
	c.note(offset, isMissing, want, nothing)
}

// differs notes that f should be something else, once a record.
func (c *comparison) differs(f *fact, want state) {
	if !f.told {
		f.told = true
		c.counts.Different++
		c.note(f.offset, isOther, want, f.actual)
	}
}

func (c *comparison) different(f *fact, code code, actual state) {
	if !f.told {
		f.told = true
		c.counts.Different++
		c.note(f.offset, code, nothing, actual)
	}
}

func (c *comparison) note(offset int64, code code, want, actual state) {
	c.found = append(c.found, note{offset, code, want, actual})
}

// endRun puts aside what was found, by offset.
func (c *comparison) endRun() error {
	slices.SortFunc(c.found, func(a, b note) int { return cmp.Compare(a.offset, b.offset) })
	err := c.runs.add(c.found)
	c.found = c.found[:0]
	return err
}
