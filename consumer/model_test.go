package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"sluice/consumer/internal/partition"
)

// TestModel takes the protocol through random histories: what producers send,
// what goes wrong at any point of an owner's steps, what operators and disasters
// do to the log, the group and the tables. After every step no event and no
// record may have two rows; whenever all is decided, ClickHouse must hold what
// the log says (check). The engine is real, the broker kfake, and the owners are
// partition.Owner; what is modelled is the group (one holder of a partition,
// whose commits alone are taken), processes, and time.
//
// Three checks of some 20 steps are made by default. SLUICE_MODEL_CHECKS and
// SLUICE_MODEL_STEPS ask for more, SLUICE_MODEL_SHRINK bounds the time that a
// failure is made shorter in, and SLUICE_MODEL_LOG=1 prints what the owners
// logged in it (=live: what happens, as it happens):
//
//	SLUICE_MODEL_CHECKS=200 SLUICE_MODEL_STEPS=60 go test -run TestModel -timeout 3h ./consumer
//
// A failure prints the shortest history found that ends in it, as actions;
// -rapid.failfile or -rapid.seed, which it names too, run it again. What it finds
// becomes a test in model_found_test.go.
func TestModel(t *testing.T) {
	t.Parallel()
	asked := func(name, flagName, usual string) {
		value := usual
		if v := os.Getenv(name); v != "" {
			value = v
		}
		old := flag.Lookup(flagName).Value.String()
		require.NoError(t, flag.Set(flagName, value), name)
		t.Cleanup(func() { require.NoError(t, flag.Set(flagName, old)) })
	}
	asked("SLUICE_MODEL_CHECKS", "rapid.checks", "3")
	asked("SLUICE_MODEL_STEPS", "rapid.steps", "20")
	asked("SLUICE_MODEL_SHRINK", "rapid.shrinktime", "30s")
	r := newRig(t)
	began := time.Now()
	rapid.Check(t, func(rt *rapid.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := newWorld(rt, ctx, r)
		defer w.close()
		defer w.tell()
		rt.Repeat(w.actions())
		w.settle()
		r.stats.count("checks")
	})
	t.Logf("in %s:\n%s", time.Since(began).Round(time.Second), r.stats)
}

func (s *stats) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := ""
	for _, k := range slices.Sorted(maps.Keys(s.counts)) {
		out += fmt.Sprintf("%7d %s\n", s.counts[k], k)
	}
	return out
}

// tell prints the history when it ends in a failure.
func (w *world) tell() {
	if !w.t.Failed() {
		return
	}
	w.t.Logf("the history:\n%s", numbered(w.trace))
	if os.Getenv("SLUICE_MODEL_LOG") != "" {
		w.t.Logf("what the owners logged:\n%s", w.said)
	}
}

func numbered(lines []string) string {
	out := ""
	for i, l := range lines {
		out += fmt.Sprintf("%3d. %s\n", i+1, l)
	}
	return out
}

// sends draws records of a small set of keys, so that repeats and conflicts are
// common.
var sends = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) sending {
	s := sending{key: rapid.IntRange(0, 17).Draw(t, "key"), payload: rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "payload")}
	switch rapid.IntRange(0, 11).Draw(t, "kind") {
	case 11:
		s.value = "garbage"
	case 10:
		s.value = "tombstone"
	case 9, 8:
		s.astray = 1
	}
	return s
}), 1, 9)

var settingsOf = rapid.Custom(func(t *rapid.T) settings {
	return settings{
		rows:       rapid.SampledFrom([]int{50, 1, 2, 4, 7}).Draw(t, "rows"),
		months:     rapid.SampledFrom([]int{60, 1, 2}).Draw(t, "months"),
		indexBytes: rapid.SampledFrom([]int64{8 << 20, 1, 1000}).Draw(t, "index bytes"),
		indexLive:  rapid.SampledFrom([]time.Duration{time.Hour, 100 * 365 * 24 * time.Hour}).Draw(t, "index live"),
		fresh:      freshness,
	}
})

var faults = rapid.Custom(func(t *rapid.T) *fault {
	f := &fault{skip: rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "skip")}
	switch rapid.IntRange(0, 5).Draw(t, "kind of fault") {
	case 0, 1: // late
		f.late = true
		f.point = rapid.SampledFrom([]partition.Point{
			partition.PointInsert, partition.PointInsert, partition.PointIntend, partition.PointNote, partition.PointClaim, partition.PointLetters, partition.PointForward, partition.PointJournal,
		}).Draw(t, "point")
		f.then = rapid.SampledFrom([]then{crashes, fails}).Draw(t, "then")
	case 2:
		f.part, f.point = true, partition.PointInsert
		f.then = rapid.SampledFrom([]then{crashes, fails}).Draw(t, "then")
	default:
		f.point = rapid.SampledFrom(partition.Points()).Draw(t, "point")
		f.then = rapid.SampledFrom([]then{crashes, fails, freezes, stalls, pauses}).Draw(t, "then")
	}
	return f
})

func (w *world) some(t *rapid.T) int32 {
	return int32(rapid.IntRange(0, int(w.count())-1).Draw(t, "partition"))
}

func (w *world) offset(t *rapid.T, p int32) int64 {
	return int64(rapid.IntRange(0, int(w.read()[p])).Draw(t, "offset"))
}

// actions are the steps of a history. Those under several names are taken more
// often.
func (w *world) actions() map[string]func(*rapid.T) {
	run := func(t *rapid.T) {
		w.staff(settingsOf.Draw(t, "settings"))
		if rapid.IntRange(0, 3).Draw(t, "produce") > 0 {
			w.produce(sends.Draw(t, "records")...)
		}
		plan := map[int32]*fault{}
		for range rapid.SampledFrom([]int{1, 0, 2, 2}).Draw(t, "faults") {
			plan[w.some(t)] = faults.Draw(t, "fault")
		}
		w.run(plan)
	}
	late := func(t *rapid.T) {
		if len(w.late) == 0 {
			t.Skip()
		}
		w.release(rapid.IntRange(0, len(w.late)-1).Draw(t, "which"))
	}
	thaw := func(t *rapid.T) {
		frozen := w.sleepers()
		if len(frozen) == 0 {
			t.Skip()
		}
		inc := frozen[rapid.IntRange(0, len(frozen)-1).Draw(t, "which")]
		w.note("%s of partition %d thaws", inc.name, inc.p)
		inc.thaw(false)
		w.run(nil)
	}
	owned := func(t *rapid.T) int32 {
		p := w.some(t)
		if w.owners[p] == nil {
			t.Skip()
		}
		return p
	}
	actions := map[string]func(*rapid.T){
		"run": run, "run 2": run, "run 3": run, "run 4": run, "run 5": run, "run 6": run, "run 7": run,
		"late arrives": late, "late arrives 2": late, "thaw": thaw, "thaw 2": thaw,
		"produce": func(t *rapid.T) { w.produce(sends.Draw(t, "records")...) },
		"transaction": func(t *rapid.T) {
			w.transact(rapid.Bool().Draw(t, "commit"), sends.Draw(t, "records")...)
		},
		"assign": func(t *rapid.T) {
			p, s := w.some(t), settingsOf.Draw(t, "settings")
			inc := w.assign(p, s)
			w.note("%s takes partition %d: %+v", inc.name, p, s)
			w.run(nil)
		},
		"revoke": func(t *rapid.T) { w.revoke(owned(t)) },
		"crash": func(t *rapid.T) {
			p := owned(t)
			w.note("the owner of partition %d crashes", p)
			w.crash(p)
		},
		"settle":   func(*rapid.T) { w.note("settle"); w.settle() },
		"operator": oneOf(w, w.operators()),
		"disaster": oneOf(w, w.disasters()),
	}
	for name, do := range actions {
		actions[name] = func(t *rapid.T) {
			do(t)
			w.rig.stats.count("action: " + strings.TrimRight(name, " 234567"))
			w.rig.stats.count("steps")
		}
	}
	actions[""] = func(*rapid.T) { w.glance() }
	return actions
}

func oneOf(w *world, of map[string]func(*rapid.T)) func(*rapid.T) {
	names := slices.Sorted(maps.Keys(of))
	return func(t *rapid.T) {
		name := rapid.SampledFrom(names).Draw(t, "what")
		of[name](t)
		w.rig.stats.count("action: of these " + name)
	}
}

// operators are what people do to the group and the log.
func (w *world) operators() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"set offsets": func(t *rapid.T) {
			at := int64(rapid.SampledFrom([]int{0, 3, 7, 1000}).Draw(t, "at"))
			w.setOffsets(at, rapid.SampledFrom([]string{"", "", "an operator's", `sluice/1 {"last":`}).Draw(t, "metadata"))
		},
		"delete group": func(t *rapid.T) {
			if w.owed {
				t.Skip() // it would be called off
			}
			w.deleteGroup()
		},
		"grow": func(t *rapid.T) {
			if w.count() > 3 {
				t.Skip()
			}
			w.grow(1, rapid.Bool().Draw(t, "deaf"))
		},
		"cut head": func(t *rapid.T) {
			p := w.some(t)
			at := w.offset(t, p)
			if at <= w.start[p] {
				t.Skip()
			}
			w.cutHead(p, at)
		},
	}
}

// disasters are what becomes of ClickHouse.
func (w *world) disasters() map[string]func(*rapid.T) {
	restore := func(t *rapid.T) {
		if !w.copied {
			t.Skip()
		}
		w.restore(rapid.Bool().Draw(t, "tokens stay"))
	}
	return map[string]func(*rapid.T){
		"snapshot": func(*rapid.T) { w.snapshot() }, "restore": restore, "restore 2": restore,
		"delete rows": func(t *rapid.T) { w.deleteRows(4, rapid.IntRange(0, 3).Draw(t, "rest")) },
		"drop month":  func(t *rapid.T) { w.dropMonth(rapid.SampledFrom(years).Draw(t, "year")) },
		"lose fates":  func(t *rapid.T) { a := w.offset(t, 0); w.loseFates(a, a+5) },
		"lose ranges": func(t *rapid.T) {
			p := w.some(t)
			a := w.offset(t, p)
			w.loseRanges(p, a, a+10)
		},
		"empty journal": func(t *rapid.T) {
			if slices.Max(w.start) > 0 {
				t.Skip() // rows of what retention took would be in no batch
			}
			w.emptyJournal()
		},
		"empty all": func(t *rapid.T) { w.emptyAll(rapid.Bool().Draw(t, "tokens stay")) },
	}
}
