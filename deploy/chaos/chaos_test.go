package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/deploy/chaos/internal/load"
	"sluice/deploy/chaos/internal/oracle"
	"sluice/deploy/chaos/internal/plan"
	"sluice/deploy/local/engine/install"
	"sluice/deploy/local/supervise"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const root = "../.."

// A harness that finds nothing proves nothing. A round in which one consumer is
// killed holds; then a row is stored a second time behind everybody's back, and
// a fate is forgotten, and it must say so, by key.
func TestFindsWhatIsWrong(t *testing.T) {
	library := install.Library(install.Dir(root))
	if _, err := os.Stat(library); err != nil {
		t.Fatalf("the ClickHouse engine is not installed: run \"make engine\" first (%v)", err)
	}
	library, err := filepath.Abs(library)
	require.NoError(t, err)
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	build := exec.Command("go", "build", "-o", bin+"/", "./ingest", "./consumer", "./deploy/local/broker", "./deploy/local/engine")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	cfg, err := parse([]string{"--rounds=1", "--seed=1", "--root=" + root})
	require.NoError(t, err)
	spawner := supervise.NewSpawner()
	defer spawner.Close()
	s, err := start(t.Context(), cfg, library, dir, spawner, func(name, how string) { t.Errorf("%s ended: %s", name, how) })
	defer s.stop()
	require.NoError(t, err)

	work := load.NewMaker(1, base(time.Now()), cfg.partitions).Round(1, time.Second)
	steps := []plan.Step{{At: 500 * time.Millisecond, Action: plan.Kill, Victim: plan.Consumer(2), For: 100 * time.Millisecond}}
	done := &promises{}
	o, err := s.round(t.Context(), steps, work, done)
	require.NoError(t, err)
	require.Empty(t, o.differences)
	require.GreaterOrEqual(t, o.records, work.Events)
	for _, fate := range []oracle.Fate{oracle.Row, oracle.Duplicate, oracle.Conflict, oracle.DeadLetter, oracle.Forwarded} {
		require.NotZero(t, o.counts[fate], fate)
	}

	for _, sql := range []string{
		`INSERT INTO sluice.event_log (event_id, client_event_id, source, event_type, actor_id, occurred_at, payload_text, payload_hash, received_at, topic_id, partition, offset, record_timestamp)
			SELECT event_id, client_event_id, source, event_type, actor_id, occurred_at, payload_text, payload_hash, received_at, topic_id, partition, offset, record_timestamp
			FROM sluice.event_log LIMIT 1`,
		`DELETE FROM sluice.journal WHERE fate = 'conflict' AND (partition, offset) IN (SELECT partition, offset FROM sluice.journal WHERE fate = 'conflict' ORDER BY partition, offset LIMIT 1)`,
	} {
		require.NoError(t, s.tables.Exec(t.Context(), sql))
	}
	o = outcome{}
	require.NoError(t, s.judge(t.Context(), &o, done))
	found := fmt.Sprint(o.differences)
	require.Contains(t, found, "a physical repeat")
	require.Contains(t, found, "should be conflict; the journal has no fate")
	require.Contains(t, found, "event_conflicts") // gone, or seen once too few where its key has several
	require.Contains(t, found, "events_per_minute")
	require.Contains(t, found, "the balance is")
	require.Contains(t, found, "consumer verify")
}

func TestParse(t *testing.T) {
	for _, name := range []string{"ROUNDS", "TIME", "SEED", "BROKER"} {
		t.Setenv(name, "")
	}
	c, err := parse(nil)
	require.NoError(t, err)
	require.Equal(t, 20, c.rounds)

	t.Setenv("TIME", "5m")
	t.Setenv("SEED", "7")
	c, err = parse(nil)
	require.NoError(t, err)
	require.Zero(t, c.rounds, "TIME alone bounds the run")
	require.Equal(t, 5*time.Minute, c.time)
	require.EqualValues(t, 7, c.seed)

	c, err = parse([]string{"--rounds", "3", "--seed", "8"})
	require.NoError(t, err)
	require.Equal(t, 3, c.rounds)
	require.EqualValues(t, 8, c.seed, "flags override the environment")

	for _, args := range [][]string{{"--rounds=-1"}, {"--broker=rabbit"}, {"--fresh=0"}, {"stray"}, {"--rounds=0", "--time=0s"}} {
		_, err := parse(args)
		require.Error(t, err, args)
	}
	t.Setenv("ROUNDS", "many")
	_, err = parse(nil)
	require.ErrorContains(t, err, "ROUNDS")
}

// The closing table says what happened to whom, in aligned columns.
func TestReport(t *testing.T) {
	r := newReport(config{seed: 5, broker: kfakeBroker})
	r.planned([]plan.Step{
		{Action: plan.Kill, Victim: plan.Consumer(1)}, {Action: plan.Freeze, Victim: plan.Broker, For: 3 * time.Second},
		{Action: plan.Freeze, Victim: plan.Broker, For: time.Second}, {Action: plan.Lose},
	}, 2*time.Second)
	r.came(outcome{recovery: 3 * time.Second, sent: load.Result{Sent: 12}}, 1)
	r.came(outcome{recovery: time.Second, sent: load.Result{Sent: 8}}, 2)
	r.closed(outcome{records: 21, counts: map[oracle.Fate]int{oracle.Row: 20, oracle.Conflict: 1}})
	r.Failed = 3
	r.finish(time.Now())
	var b bytes.Buffer
	r.table(&b)
	for _, want := range []string{
		"round 3 did NOT hold",
		"events sent                          20  ",
		"  conflicts                           1  ",
		"broker                                0           1             1\n",
		"consumer-1                            1           0             0\n",
		"links: lose                           1  ",
		"recovery, slowest                 3.0 s  in round 1",
	} {
		require.Contains(t, b.String(), want)
	}
	b.Reset()
	require.NoError(t, r.json(&b))
	require.Contains(t, b.String(), `"kills":{"consumer-1":1}`)
	require.Contains(t, b.String(), `"slowest_recovery_seconds":3`)
}

// Told to stop, a run ends at once and says that it could not tell.
func TestStopped(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errStopped)
	cfg, err := parse([]string{"--rounds=1", "--root=" + root, "--bin=" + t.TempDir(), "--dir=" + t.TempDir()})
	require.NoError(t, err)
	var b bytes.Buffer
	require.Equal(t, exitUnknown, run(ctx, cfg, &b, &b))
	require.Contains(t, b.String(), "NOT every round held")
}
