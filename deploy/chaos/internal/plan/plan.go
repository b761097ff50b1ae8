// Package plan makes the schedule of a round: who is befallen by what, when. It
// is a pure function of the seed and the round's number, so that a seed repeats
// a run as far as processes can be repeated.
package plan

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"sluice/deploy/chaos/internal/proxy"
)

// Action is what happens to a victim.
type Action string

// The actions. The first three befall processes, the others links.
const (
	Kill   Action = "kill"   // kill -9, started again after Step.For
	Freeze Action = "freeze" // SIGSTOP, SIGCONT after Step.For
	Cut    Action = "cut"    // every connection
	Stall  Action = "stall"  // nothing passes, for Step.For
	Delay  Action = "delay"  // every piece waits Step.Each, for Step.For
	Lose   Action = "lose"   // the server does what is asked, the answer is lost
	Tear   Action = "tear"   // a part of the request arrives
)

// Actions lists all of them.
func Actions() []Action { return []Action{Kill, Freeze, Cut, Stall, Delay, Lose, Tear} }

// The victims. Consumers are consumer-1 and so on.
const (
	Edge   = "edge"
	Broker = "broker"
	Engine = "engine"
)

// Consumer names the nth consumer, from 1.
func Consumer(n int) string { return fmt.Sprintf("consumer-%d", n) }

// Link is a way between two programs, named by who asks and who answers.
type Link struct{ Client, Server string }

// A7 is the sender of the events: chaos itself.
const A7 = "a7"

func (l Link) String() string { return l.Client + "→" + l.Server }

// Step is one thing that happens.
type Step struct {
	At     time.Duration // from the round's beginning
	Action Action
	Victim string // of Kill and Freeze
	Link   Link   // of the others

	For       time.Duration
	Each      time.Duration   // of Delay
	Direction proxy.Direction // of Stall and Delay
	Kind      string          // of Lose and Tear: which requests
	Times     int             // of Lose and Tear
	Bytes     int             // of Tear: how much still arrives
}

// End is when the step is over.
func (s Step) End() time.Duration { return s.At + s.For }

func (s Step) String() string {
	at := fmt.Sprintf("%4.1fs ", s.At.Seconds())
	length := func(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }
	kind := s.Kind
	if kind == proxy.Any {
		kind = "any"
	}
	switch s.Action {
	case Kill:
		return at + "kill -9 " + s.Victim + ", back after " + length(s.For)
	case Freeze:
		return at + "freeze " + s.Victim + " for " + length(s.For)
	case Cut:
		return at + "cut " + s.Link.String()
	case Stall:
		return at + "stall " + s.Link.String() + ", " + s.Direction.String() + ", for " + length(s.For)
	case Delay:
		return at + "delay " + s.Link.String() + ", " + s.Direction.String() + ", by " + s.Each.String() + " for " + length(s.For)
	case Lose:
		return at + fmt.Sprintf("lose %d answers (%s) %s", s.Times, kind, s.Link)
	case Tear:
		return at + fmt.Sprintf("tear %d requests (%s) after %d bytes %s", s.Times, kind, s.Bytes, s.Link)
	}
	return at + string(s.Action)
}

// Config bounds a round.
type Config struct {
	// Consumers is how many there are.
	Consumers int
	// Session is the group's session timeout: some freezes are shorter, some
	// longer.
	Session time.Duration
	// Window is how long things go on beginning.
	Window time.Duration
}

// Round is the schedule of one round, ordered by time. No two steps that befall
// one process, or one link, overlap.
func Round(cfg Config, seed uint64, number int) []Step {
	m := maker{Config: cfg, rand: Rand(seed, number, "plan"), busy: map[string]time.Duration{}}
	if m.rand.IntN(5) == 0 {
		m.zombie()
	}
	for range 2 + m.rand.IntN(5) {
		m.add()
	}
	slices.SortStableFunc(m.steps, func(a, b Step) int { return int(a.At - b.At) })
	return m.steps
}

// Rand is a round's source of randomness for one purpose.
func Rand(seed uint64, number int, purpose string) *rand.Rand {
	h := uint64(14695981039346656037) // FNV-1a
	for _, b := range []byte(purpose) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return rand.New(rand.NewPCG(seed, h^uint64(number)*0x9e3779b97f4a7c15))
}

type maker struct {
	Config
	rand  *rand.Rand
	busy  map[string]time.Duration // until when a process or link is taken
	long  bool                     // one long freeze a round is enough
	steps []Step
}

func (m *maker) add() {
	s := Step{At: m.between(0, m.Window)}
	var taken string
	if m.rand.IntN(100) < 55 {
		s.Victim = pick(m, weighted[string]{Edge, 2}, weighted[string]{Broker, 3}, weighted[string]{Engine, 4}, weighted[string]{m.consumer(), 8})
		taken = s.Victim
		m.process(&s)
	} else {
		c := m.consumer()
		s.Link = pick(m, weighted[Link]{Link{A7, Edge}, 2}, weighted[Link]{Link{Edge, Broker}, 3}, weighted[Link]{Link{c, Broker}, 5}, weighted[Link]{Link{c, Engine}, 6})
		taken = s.Link.String()
		m.link(&s)
	}
	// A victim that is befallen already gets this after that: several in a row.
	if until, ok := m.busy[taken]; ok && s.At < until {
		s.At = until + m.between(0, 300*time.Millisecond)
	}
	if s.At > m.Window {
		return
	}
	m.busy[taken] = s.End() + rest
	m.steps = append(m.steps, s)
}

// zombie has a consumer's requests to the engine held back on their way, and
// then freezes it for so long that another takes its partitions over. What it
// asked for arrives when nobody waits for it any more, and before it wakes.
func (m *maker) zombie() {
	m.long = true
	c, at := m.consumer(), m.between(0, m.Window*3/4)
	stall := Step{At: at, Action: Stall, Link: Link{c, Engine}, For: m.Session * 19 / 10, Direction: proxy.Up}
	freeze := Step{At: at + m.between(10*time.Millisecond, 150*time.Millisecond), Action: Freeze, Victim: c, For: m.Session * 22 / 10}
	m.steps = append(m.steps, stall, freeze)
	m.busy[stall.Link.String()], m.busy[c] = stall.End()+rest, freeze.End()+rest
}

// rest is the least time between two steps of one victim.
const rest = 50 * time.Millisecond

func (m *maker) process(s *Step) {
	if m.rand.IntN(100) < 60 {
		s.Action, s.For = Kill, m.between(0, 900*time.Millisecond)
		return
	}
	s.Action, s.For = Freeze, m.between(50*time.Millisecond, m.Session*6/10)
	if !m.long && m.rand.IntN(100) < 40 { // past the session
		m.long = true
		s.For = m.between(m.Session*11/10, m.Session*15/10)
	}
}

func (m *maker) link(s *Step) {
	s.Action = pick(m, weighted[Action]{Cut, 3}, weighted[Action]{Stall, 3}, weighted[Action]{Delay, 2}, weighted[Action]{Lose, 5}, weighted[Action]{Tear, 3})
	switch s.Action {
	case Stall:
		s.For, s.Direction = m.between(200*time.Millisecond, 2*time.Second), m.direction()
	case Delay:
		s.For, s.Direction = m.between(500*time.Millisecond, 2*time.Second), m.direction()
		s.Each = m.between(2*time.Millisecond, 80*time.Millisecond).Truncate(time.Millisecond)
	case Lose, Tear:
		s.Times = 1 + m.rand.IntN(3)
		s.Bytes = 1 + m.rand.IntN(2500)
		s.Kind = m.kind(s.Link)
	}
}

func (m *maker) kind(l Link) string {
	switch {
	case l.Server == Edge:
		return proxy.Post
	case l.Server == Engine:
		return pick(m, weighted[string]{proxy.Rows, 5}, weighted[string]{proxy.Journal, 4}, weighted[string]{proxy.Any, 1})
	case l.Client == Edge:
		return pick(m, weighted[string]{proxy.Produce, 5}, weighted[string]{proxy.Any, 1})
	}
	return pick(m, weighted[string]{proxy.Commit, 6}, weighted[string]{proxy.Produce, 2}, weighted[string]{proxy.Group, 2}, weighted[string]{proxy.Fetch, 1}, weighted[string]{proxy.Any, 1})
}

func (m *maker) consumer() string { return Consumer(1 + m.rand.IntN(m.Consumers)) }

func (m *maker) direction() proxy.Direction {
	return pick(m, weighted[proxy.Direction]{proxy.Up, 1}, weighted[proxy.Direction]{proxy.Down, 2}, weighted[proxy.Direction]{proxy.Both, 1})
}

func (m *maker) between(least, most time.Duration) time.Duration {
	return least + time.Duration(m.rand.Int64N(int64(most-least)+1))
}

type weighted[T any] struct {
	value  T
	weight int
}

func pick[T any](m *maker, from ...weighted[T]) T {
	total := 0
	for _, w := range from {
		total += w.weight
	}
	n := m.rand.IntN(total)
	for _, w := range from {
		if n -= w.weight; n < 0 {
			return w.value
		}
	}
	panic("unreachable: the weights add up to more than n")
}

// Text is a schedule for people, a step a line.
func Text(steps []Step) string {
	lines := make([]string, len(steps))
	for i, s := range steps {
		lines[i] = "  " + s.String()
	}
	return strings.Join(lines, "\n")
}
