package verify

import (
	"bytes"
	"cmp"
	"context"
	"slices"
)

// judgeKeys judges every key of the partition, a split at a time.
func (c *comparison) judgeKeys(ctx context.Context) error {
	c.facts = nil // make room
	members := make([]member, 0, c.splits.largest())
	for i := range c.splits.files {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if members, err = c.splits.load(i, members[:0]); err != nil {
			return err
		}
		slices.SortFunc(members, func(a, b member) int {
			return cmp.Or(bytes.Compare(a.id[:], b.id[:]), cmp.Compare(a.offset, b.offset))
		})
		for rest := members; len(rest) > 0; {
			n := 1
			for n < len(rest) && rest[n].id == rest[0].id {
				n++
			}
			c.judge(group(rest[:n]))
			rest = rest[n:]
		}
		if err := c.endRun(); err != nil {
			return err
		}
	}
	return nil
}

// group is all records of one key, in offset order.
type group []member

// judge compares what became of a key's records with the rule: one is the row,
// each other a duplicate or a conflict. Which one is the row was decided once;
// without a row it should be the first that has no fate.
func (c *comparison) judge(g group) {
	stands := g.stands()
	for i := range g {
		m := &g[i]
		want, code := g.want(i, stands)
		switch {
		case code == fine:
			want = m.actual
		case code == isMissing:
			c.missing(m.offset, want)
		case !m.told:
			c.counts.Different++
			c.note(m.offset, code, want, m.actual)
		}
		c.count(want)
	}
}

// stands is the index of the record that is the key's row or, if none is, should
// have become it; -1 if none need be.
func (g group) stands() int {
	if i := slices.IndexFunc(g, func(m member) bool { return m.actual == row }); i >= 0 {
		return i
	}
	if slices.ContainsFunc(g, func(m member) bool { return m.sees == outside }) {
		return -1 // the row is not of this range
	}
	return slices.IndexFunc(g, func(m member) bool { return !m.decided() })
}

// decided tells whether m has a fate that the rule, or people, could have given
// it.
func (m *member) decided() bool {
	return m.actual == row || m.actual == duplicate || m.actual == conflict || m.actual == refused || m.actual.given()
}

// against is what a record is beside the row of another.
func (m *member) against(first *member) state {
	if m.hash == first.hash {
		return duplicate
	}
	return conflict
}

// want is what should have become of the record i, if it is not [fine] as it is.
func (g group) want(i, stands int) (state, code) {
	m := &g[i]
	rule := row
	switch {
	case stands >= 0 && stands != i:
		rule = m.against(&g[stands])
	case stands < 0:
		rule = g.beside(m)
	}
	switch {
	case m.actual == row && i == stands, m.actual == refused, m.actual.given():
		return m.actual, fine
	case m.actual == nothing:
		return rule, isMissing
	case m.actual != duplicate && m.actual != conflict:
		return rule, isOther
	case m.sees == outside:
		return m.actual, fine // compared with the row it names
	}
	first := stands
	if m.sees == inside {
		first = g.find(m.first)
		if first < 0 {
			return rule, firstOther
		}
		if !g.leads(first) {
			return row, firstGone
		}
	}
	if first < 0 || first == i {
		return row, firstGone
	}
	if m.sees == unnamed && g[first].actual == nothing && first > i {
		return row, isOther
	}
	if want := m.against(&g[first]); want != m.actual {
		return want, isOther
	}
	return m.actual, fine
}

// beside is what m should be when the key's row is not of this range: the
// payload of the row is known by its duplicates.
func (g group) beside(m *member) state {
	if slices.ContainsFunc(g, func(o member) bool { return o.sees == outside && o.actual == duplicate && o.hash == m.hash }) {
		return duplicate
	}
	return conflict
}

// find is the index of the record at an offset, -1 if it has another key.
func (g group) find(offset int64) int {
	i, ok := slices.BinarySearchFunc(g, offset, func(m member, o int64) int { return cmp.Compare(m.offset, o) })
	if !ok {
		return -1
	}
	return i
}

// leads tells whether what the record i and those after it name ends at one that
// is a row, or is told of by itself, and not in a circle. It is more than one
// step where a row was removed and another record of the key had become the row
// by the time it was decided anew.
func (g group) leads(i int) bool {
	for range g {
		m := &g[i]
		if m.actual != duplicate && m.actual != conflict || m.sees != inside {
			return true
		}
		next := g.find(m.first)
		if next < 0 {
			return true
		}
		i = next
	}
	return false
}
