package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"sluice/deploy/chaos/internal/oracle"
	"sluice/deploy/chaos/internal/plan"
	"sluice/deploy/chaos/internal/proxy"
)

// report is the closing table. Its JSON names are for machines.
type report struct {
	OK     bool   `json:"ok"`
	Seed   uint64 `json:"seed"`
	Broker string `json:"broker"`
	Rounds int    `json:"rounds"` // that held
	Failed int    `json:"failed_round,omitempty"`
	Took   string `json:"took"`

	Events     int `json:"events"`
	Retries    int `json:"retries"`
	Promised   int `json:"promised"`
	Unanswered int `json:"unanswered"`

	Records      int `json:"records"`
	Rows         int `json:"rows"`
	Duplicates   int `json:"duplicates"`
	Conflicts    int `json:"conflicts"`
	DeadLettered int `json:"dead_lettered"`
	Forwarded    int `json:"forwarded"`

	Kills   map[string]int      `json:"kills"`
	Short   map[string]int      `json:"freezes_within_session"`
	Long    map[string]int      `json:"freezes_past_session"`
	Faults  map[plan.Action]int `json:"link_faults"`
	Links   proxy.Counts        `json:"connections"`
	Ended   []string            `json:"ended_by_themselves"`
	Slowest float64             `json:"slowest_recovery_seconds"`
	In      int                 `json:"slowest_recovery_round"`
	Median  float64             `json:"median_recovery_seconds"`

	recoveries []time.Duration
}

func newReport(cfg config) *report {
	return &report{
		Seed: cfg.seed, Broker: cfg.broker, Ended: []string{},
		Kills: map[string]int{}, Short: map[string]int{}, Long: map[string]int{}, Faults: map[plan.Action]int{},
	}
}

// planned counts what a round did.
func (r *report) planned(steps []plan.Step, session time.Duration) {
	for _, s := range steps {
		switch {
		case s.Action == plan.Kill:
			r.Kills[s.Victim]++
		case s.Action == plan.Freeze && s.For > session:
			r.Long[s.Victim]++
		case s.Action == plan.Freeze:
			r.Short[s.Victim]++
		default:
			r.Faults[s.Action]++
		}
	}
}

// came counts what came of a round.
func (r *report) came(o outcome, round int) {
	r.Events += o.sent.Sent
	r.Retries += o.sent.Retries
	r.Promised += len(o.sent.Promises) + len(o.sent.Written)
	r.Unanswered += o.sent.Unanswered
	if o.recovery > 0 {
		r.recoveries = append(r.recoveries, o.recovery)
		if s := o.recovery.Seconds(); s > r.Slowest {
			r.Slowest, r.In = s, round
		}
	}
}

// closed counts what a stack held at its end.
func (r *report) closed(o outcome) {
	r.Records += o.records
	r.Rows += o.counts[oracle.Row]
	r.Duplicates += o.counts[oracle.Duplicate]
	r.Conflicts += o.counts[oracle.Conflict]
	r.DeadLettered += o.counts[oracle.DeadLetter]
	r.Forwarded += o.counts[oracle.Forwarded]
}

func (r *report) finish(begun time.Time) {
	r.Took = time.Since(begun).Round(time.Second).String()
	if n := len(r.recoveries); n > 0 {
		slices.Sort(r.recoveries)
		r.Median = r.recoveries[n/2].Seconds()
	}
}

func (r *report) json(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// table prints the report for people.
func (r *report) table(w io.Writer) {
	verdict := "every round held: log = rows = view = rollups = conflicts = balance, by key"
	if !r.OK {
		verdict = "NOT every round held"
		if r.Failed > 0 {
			verdict = fmt.Sprintf("round %d did NOT hold", r.Failed)
		}
	}
	fmt.Fprintf(w, "\n%s\n\n", verdict)
	line := func(name string, value any, more string) {
		fmt.Fprintf(w, "%-28s %10v  %s\n", name, value, more)
	}
	line("seed", r.Seed, "broker "+r.Broker)
	line("rounds that held", r.Rounds, "in "+r.Took)
	fmt.Fprintln(w)
	line("events sent", r.Events, fmt.Sprintf("%d requests sent again", r.Retries))
	line("  acknowledged", r.Promised, "all of them in the log")
	line("  given up", r.Unanswered, "")
	line("records in the log", r.Records, "")
	line("  rows", r.Rows, "")
	line("  repeats", r.Duplicates, "")
	line("  conflicts", r.Conflicts, "")
	line("  dead letters", r.DeadLettered, "")
	line("  forwarded", r.Forwarded, "")
	fmt.Fprintln(w)
	fmt.Fprintf(w, "%-28s %10s  %10s  %12s\n", "", "kill -9", "frozen", "past session")
	victims := []string{plan.Edge, plan.Broker, plan.Engine}
	for name := range mergeKeys(r.Kills, r.Short, r.Long) {
		if !slices.Contains(victims, name) {
			victims = append(victims, name)
		}
	}
	slices.Sort(victims[3:])
	var kills, short, long int
	for _, v := range victims {
		fmt.Fprintf(w, "%-28s %10d  %10d  %12d\n", v, r.Kills[v], r.Short[v], r.Long[v])
		kills, short, long = kills+r.Kills[v], short+r.Short[v], long+r.Long[v]
	}
	fmt.Fprintf(w, "%-28s %10d  %10d  %12d\n\n", "all", kills, short, long)
	for _, a := range plan.Actions()[2:] {
		more := map[plan.Action]string{
			plan.Cut:  fmt.Sprintf("%d connections cut", r.Links.Cut),
			plan.Lose: fmt.Sprintf("%d answers lost after the work was done", r.Links.Lost),
			plan.Tear: fmt.Sprintf("%d requests torn", r.Links.Torn),
		}[a]
		line("links: "+string(a), r.Faults[a], more)
	}
	fmt.Fprintln(w)
	line("ended by themselves", len(r.Ended), strings.Join(slices.Compact(slices.Sorted(slices.Values(r.Ended))), "; "))
	line("recovery, median", fmt.Sprintf("%.1f s", r.Median), "from when nothing was wrong any more to all decided")
	line("recovery, slowest", fmt.Sprintf("%.1f s", r.Slowest), fmt.Sprintf("in round %d", r.In))
}

func mergeKeys(ms ...map[string]int) map[string]bool {
	out := map[string]bool{}
	for _, m := range ms {
		for k := range m {
			out[k] = true
		}
	}
	return out
}
