package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/consumer/internal/migrate"
	"sluice/consumer/internal/partition"
	"sluice/consumer/internal/store"
	"sluice/deploy/local/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newEngine is a migrated ClickHouse of the test's own that merges nothing, so
// that every row written twice is seen, and refuses what has [refusedWord].
func newEngine(t *testing.T) tables {
	t.Helper()
	dsn := enginetest.Start(t).URL + "/sluice"
	require.NoError(t, migrate.Up(t.Context(), dsn, func(string) {}))
	st, err := store.Open(dsn + "?max_threads=1") // the tables are tiny
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	for _, statement := range []string{
		"SYSTEM STOP MERGES event_log",
		"ALTER TABLE event_log ADD CONSTRAINT refusing CHECK position(payload_text, '" + refusedWord + "') = 0",
		// What the protocol does not rest on, and what costs most of an INSERT.
		"ALTER TABLE event_log DROP PROJECTION IF EXISTS by_minute, DROP PROJECTION IF EXISTS by_hour, DROP PROJECTION IF EXISTS by_origin, DROP PROJECTION IF EXISTS origins, DROP COLUMN payload",
	} {
		require.NoError(t, st.Conn().Exec(t.Context(), statement))
	}
	return engine{st}
}

// chunk is how many cases share the tables before they are compared and
// emptied: without merges every INSERT leaves parts behind.
const chunk = 48

// workers are how many cases run at a time: most of a case is waiting.
const workers = 4

// stale is an IntentFresh by which no intent is fresh when it is used.
const stale = time.Duration(-1)

// given is one case: which failures, one owner after the other.
type given struct {
	failures []fault
	fresh    time.Duration
	hidden   int64
}

func (g given) String() string {
	var parts []string
	for _, f := range g.failures {
		parts = append(parts, f.String())
	}
	if g.fresh == stale {
		parts = append(parts, "no intent is fresh")
	}
	if g.hidden >= 0 {
		parts = append(parts, fmt.Sprintf("the log ends at %d until then", g.hidden))
	}
	return strings.Join(parts, "; ")
}

// tryInMemory runs all cases on a model of ClickHouse, each in a time of its own
// in which no one waits.
func tryInMemory(t *testing.T, cases []given) (ran, unmet int) {
	t.Helper()
	cases = chosen(cases)
	var wrong, late atomic.Int64
	t.Run("in memory", func(t *testing.T) {
		for shard := range runtime.GOMAXPROCS(0) {
			t.Run(strconv.Itoa(shard), func(t *testing.T) {
				t.Parallel()
				for i := shard; i < len(cases) && wrong.Load() < 5; i += runtime.GOMAXPROCS(0) {
					synctest.Test(t, func(t *testing.T) {
						w := cases[i].world(newMemory())
						err := w.run(t.Context(), cases[i].failures...)
						late.Add(int64(w.unmet))
						if w.compared(t, err) {
							return
						}
						wrong.Add(1)
					})
				}
			})
		}
	})
	return len(cases), int(late.Load())
}

// compared fails the test if a world is not as its history demands.
func (w *world) compared(t *testing.T, err error) bool {
	t.Helper()
	all, readErr := w.store.read(t.Context())
	require.NoError(t, readErr)
	faults := w.faults(all[w.id])
	if err != nil {
		faults = append(faults, err.Error())
	}
	if len(faults) > 0 {
		t.Errorf("%s:\n\t%s\n%s", w.name, strings.Join(faults, "\n\t"), w.log.String())
	}
	return len(faults) == 0
}

func (g given) world(st tables) *world {
	w := newWorld(g.String(), st, script)
	w.fresh, w.hidden = g.fresh, g.hidden
	return w
}

// chosen are the cases that CRASH_CASE, a regular expression, names: all without.
func chosen(cases []given) []given {
	only := os.Getenv("CRASH_CASE")
	if only == "" {
		return cases
	}
	return slices.DeleteFunc(slices.Clone(cases), func(g given) bool { return !regexp.MustCompile(only).MatchString(g.String()) })
}

// try runs all cases on the engine and compares what each left.
func try(t *testing.T, st tables, cases []given) (ran, unmet int) {
	t.Helper()
	cases = chosen(cases)
	for from := 0; from < len(cases); from += chunk {
		part := cases[from:min(from+chunk, len(cases))]
		worlds, errs := make([]*world, len(part)), make([]error, len(part))
		next := make(chan int)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for i := range next {
					w := part[i].world(st)
					worlds[i], errs[i] = w, w.run(t.Context(), part[i].failures...)
				}
			})
		}
		for i := range part {
			next <- i
		}
		close(next)
		wg.Wait()
		compare(t, st, worlds, errs)
		t.Logf("%d of %d", from+len(part), len(cases))
		for _, w := range worlds {
			unmet += w.unmet
		}
	}
	return len(cases), unmet
}

// compare fails the test for every world that is not as its history demands,
// and empties the tables.
func compare(t *testing.T, st tables, worlds []*world, errs []error) {
	t.Helper()
	all, err := st.read(t.Context())
	require.NoError(t, err)
	wrong := 0
	for i, w := range worlds {
		faults := w.faults(all[w.id])
		if errs[i] != nil {
			faults = append(faults, errs[i].Error())
		}
		if len(faults) == 0 {
			continue
		}
		if wrong++; wrong > 3 {
			t.Errorf("%s: %s", w.name, strings.Join(faults, "; "))
			continue
		}
		t.Errorf("%s:\n\t%s\n%s", w.name, strings.Join(faults, "\n\t"), w.log.String())
	}
	if t.Failed() && os.Getenv("CRASH_GO_ON") == "" {
		t.FailNow()
	}
	require.NoError(t, st.empty(t.Context()))
}

// isEffect tells that an effect on the outside follows a point.
func isEffect(p partition.Point) bool { return strings.HasSuffix(string(p), "to send") }

// moments are those of the next owner at which a late effect is tried.
var moments = []string{begun, string(partition.PointRecovered), string(partition.PointInsert), string(partition.PointJournal), finished}

// singles are all failures of one owner at one point.
func singles(p partition.Point, nth int) []fault {
	var out []fault
	for _, k := range []kind{crashes, leaves, loses} {
		out = append(out, fault{p, nth, k, ""})
	}
	for _, when := range []string{string(partition.PointRecovered), finished} {
		out = append(out, fault{p, nth, freezes, when})
	}
	if !isEffect(p) {
		return out
	}
	out = append(out, fault{p, nth, unheard, ""}, fault{p, nth, inVain, ""})
	for _, when := range []string{string(partition.PointRecovered), string(partition.PointInsert), finished} {
		out = append(out, fault{p, nth, delayed, when})
	}
	for _, when := range moments {
		out = append(out, fault{p, nth, deadLate, when})
	}
	if inParts(p) {
		out = append(out, fault{p, nth, partly, ""}, fault{p, nth, halfway, ""})
	}
	return out
}

// inParts tells that the effect that follows p can be done in part.
func inParts(p partition.Point) bool {
	return p == partition.PointInsert || p == partition.PointLetters || p == partition.PointForward
}

// firsts and seconds are the failures of which pairs are made.
func firsts(p partition.Point, nth int) []fault {
	out := []fault{{p, nth, crashes, ""}}
	if isEffect(p) {
		// Before its own next commit: see protocol.md on what is assumed of Kafka.
		out = append(out, fault{p, nth, deadLate, finished}, fault{p, nth, delayed, string(partition.PointRecovered)}, fault{p, nth, freezes, finished})
	}
	if inParts(p) {
		out = append(out, fault{p, nth, partly, ""})
	}
	return out
}

func seconds(p partition.Point) []fault {
	out := []fault{{p, 1, crashes, ""}}
	if isEffect(p) {
		out = append(out, fault{p, 1, deadLate, finished})
	}
	if p == partition.PointInsert {
		out = append(out, fault{p, 1, partly, ""})
	}
	return out
}

// reach runs the history with no failure and tells how often each point comes:
// while intents stay fresh, and when none is fresh any more.
func reach(t *testing.T) (fresh, renewing map[partition.Point]int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f, s := given{fresh: time.Minute, hidden: -1}.world(newMemory()), given{fresh: stale, hidden: -1}.world(newMemory())
		require.True(t, f.compared(t, f.run(t.Context())))
		require.True(t, s.compared(t, s.run(t.Context())))
		fresh, renewing = f.reached, s.reached
	})
	return fresh, renewing
}

// The history comes to every point that there is.
func TestEveryPointIsReached(t *testing.T) {
	_, renewing := reach(t)
	for _, p := range partition.Points() {
		require.Positive(t, renewing[p], "the history never comes to %q", p)
	}
}

// everyFailure are all failures of one owner, at every point as often as it
// comes there.
func everyFailure(t *testing.T) []given {
	t.Helper()
	fresh, renewing := reach(t)
	var cases []given
	for _, p := range partition.Points() {
		for nth := 1; nth <= fresh[p]; nth++ {
			for _, f := range singles(p, nth) {
				cases = append(cases, given{[]fault{f}, time.Minute, -1})
			}
		}
		if fresh[p] > 0 {
			cases = append(cases, given{[]fault{{p, 1, freezes, finished}}, stale, -1})
			continue
		}
		for nth := 1; nth <= renewing[p]; nth++ {
			for _, f := range singles(p, nth) {
				cases = append(cases, given{[]fault{f}, stale, -1})
			}
		}
	}
	return cases
}

// anyFirst are all failures that may come first.
func anyFirst(p partition.Point, nth int) []fault {
	return slices.DeleteFunc(singles(p, nth), func(f fault) bool {
		// A commit that is carried out after a later one of the same member: see
		// protocol.md on what is assumed of Kafka.
		return f.kind == delayed && f.when != string(partition.PointRecovered) &&
			(p == partition.PointClaim || p == partition.PointRenew || p == partition.PointClose)
	})
}

// everyPair are pairs of failures: of two owners one after the other, or of one
// that lives through the first. Each point comes first and second.
func everyPair(t *testing.T, firsts func(p partition.Point, nth int) []fault) []given {
	t.Helper()
	_, renewing := reach(t)
	var cases []given
	for _, p := range partition.Points() {
		for nth := 1; nth <= renewing[p]; nth++ {
			for _, f := range firsts(p, nth) {
				for _, q := range partition.Points() {
					for _, second := range seconds(q) {
						within := time.Minute
						for _, r := range []partition.Point{p, q} {
							if r == partition.PointRenew || r == partition.PointRenewed {
								within = stale
							}
						}
						cases = append(cases, given{[]fault{f, second}, within, -1})
					}
				}
			}
		}
	}
	return cases
}

// An owner fails in every way at every point, and the next leaves what an owner
// leaves that never failed.
func TestEveryFailure(t *testing.T) {
	began := time.Now()
	ran, _ := tryInMemory(t, everyFailure(t))
	t.Logf("%d failures of one owner at %d points in %s", ran, len(partition.Points()), time.Since(began).Round(time.Second))
}

func TestEveryPairOfFailures(t *testing.T) {
	began := time.Now()
	first := firsts
	if os.Getenv("CRASH") == "all" {
		first = anyFirst
	} else {
		t.Log("of the first failures those that differ most: \"make crash\" tries all")
	}
	cases := everyPair(t, first)
	all := len(cases)
	if stride > 1 && os.Getenv("CRASH") != "all" {
		cases = sampled(t, cases, all/stride)
	}
	ran, unmet := tryInMemory(t, cases)
	t.Logf("%d of %d pairs of failures in %s; the second's point did not come any more in %d", ran, all, time.Since(began).Round(time.Second), unmet)
}

// sampled are n of the cases at random, by a seed that CRASH_SEED repeats.
func sampled(t *testing.T, cases []given, n int) []given {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CRASH_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("a sample of %d of %d cases: CRASH_SEED=%d repeats it, \"make crash\" tries all", n, len(cases), seed)
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(cases), func(i, j int) { cases[i], cases[j] = cases[j], cases[i] })
	return cases[:n]
}

// sample is how many cases are tried on the engine when not all are asked for.
const sample = 24

// The same on the engine. CRASH=all tries all (make crash); else a sample is
// tried.
func TestFailuresOnTheEngine(t *testing.T) {
	began := time.Now()
	cases := append(everyFailure(t), everyPair(t, firsts)...)
	all := len(cases)
	if os.Getenv("CRASH") != "all" {
		cases = sampled(t, cases, sample)
	}
	ran, _ := try(t, newEngine(t), cases)
	t.Logf("%d of %d cases on the engine in %s", ran, all, time.Since(began).Round(time.Second))
}
