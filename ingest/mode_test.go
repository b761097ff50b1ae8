package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/schemas/commit"
	"sluice/schemas/topic"
)

// consumes commits, as the consumer would, everything that is in the topic, every
// few milliseconds until the test ends.
func consumes(t *testing.T, brokers []string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	require.NoError(t, err)
	adm := kadm.NewClient(client)
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { stop(); wg.Wait(); client.Close() })
	topics, err := adm.ListTopics(ctx, topic.Events)
	require.NoError(t, err)
	text := fmt.Sprintf(`%s{"topic_id":%q,"partitions":%d}`, commit.Prefix, uuid.UUID(topics[topic.Events].ID), partitions)
	wg.Go(func() {
		for ctx.Err() == nil {
			ends, err := adm.ListEndOffsets(ctx, topic.Events)
			if err == nil {
				var offsets kadm.Offsets
				ends.Each(func(o kadm.ListedOffset) {
					offsets.Add(kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: o.Offset, LeaderEpoch: -1, Metadata: text})
				})
				_, err = adm.CommitOffsets(ctx, topic.Group, offsets)
			}
			if err != nil && ctx.Err() == nil {
				t.Errorf("committing: %v", err)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
}

func anEvent(actor string) []byte {
	return fmt.Appendf(nil, `{"source":"mode","event_type":"t","actor_id":%q,"occurred_at":"2026-01-02T03:04:05Z"}`, actor)
}

// TestModeSwitch switches a busy edge back and forth in each way there is. Every
// post is accepted, and every one that begins after the switch has taken effect
// is answered by the new mode. How long each took is in the test's log.
func TestModeSwitch(t *testing.T) {
	cluster := newCluster(t)
	consumes(t, cluster.ListenAddrs())
	file := filepath.Join(t.TempDir(), "edge.yaml")
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	write("ingest: {mode: async}")
	again := rereading{file: file, load: func() (config, error) {
		cmd := rootCommand(nil)
		require.NoError(t, cmd.ParseFlags([]string{"--config", file}))
		return load(cmd, nil)
	}}
	e := launchReloading(t, cluster.ListenAddrs(), nil, again)
	e.waitReady(t)

	var posted, stored atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for w := range 4 {
		load.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				a := e.post(t, "/api/events", anEvent(fmt.Sprintf("%d-%d", w, i)))
				posted.Add(1)
				switch {
				case a.status == 200 && strings.Contains(string(a.body), `"stored"`):
					stored.Add(1)
				case a.status == 202 && strings.Contains(string(a.body), `"queued"`):
				default:
					t.Errorf("%d %s", a.status, a.body)
				}
			}
		})
	}
	defer func() {
		stop()
		load.Wait()
		require.Positive(t, stored.Load())
		t.Logf("%d posts, %d of them stored, none failed", posted.Load(), stored.Load())
	}()
	signal := func(s syscall.Signal) func() {
		return func() { require.NoError(t, syscall.Kill(os.Getpid(), s)) }
	}
	shell := func(mode string) func() {
		return func() {
			var out, errs bytes.Buffer
			code := run(t.Context(), []string{"mode", mode, "--json", "--admin.address", strings.TrimPrefix(e.admin, "http://")}, nil, &out, &errs)
			require.Zero(t, code, errs.String())
			var state struct{ Mode, By string }
			require.NoError(t, json.Unmarshal(out.Bytes(), &state))
			require.Equal(t, mode, state.Mode)
			require.Equal(t, "admin", state.By)
		}
	}
	nothing := func() {}
	for i, way := range []struct {
		name          string
		before        func()
		sync, toAsync func()
	}{
		{"shell", nothing, shell("sync"), shell("async")},
		{"signal", nothing, signal(syscall.SIGUSR1), signal(syscall.SIGUSR2)},
		{"file", nothing, func() { write("ingest: {mode: sync}") }, func() { write("ingest: {mode: async}") }},
		{"file and SIGHUP", nothing, func() { write("ingest: {mode: sync}"); signal(syscall.SIGHUP)() }, func() { write("ingest: {mode: async}"); signal(syscall.SIGHUP)() }},
	} {
		for _, to := range []struct {
			mode   string
			status int
			act    func()
		}{{"sync", 200, way.sync}, {"async", 202, way.toAsync}} {
			began := time.Now()
			to.act()
			n := 0
			require.Eventually(t, func() bool {
				n++
				return e.post(t, "/api/events", anEvent(fmt.Sprintf("probe-%d-%s-%d", i, to.mode, n))).status == to.status
			}, 5*time.Second, time.Millisecond, "%s to %s", way.name, to.mode)
			t.Logf("%s to %s: in force after %v", way.name, to.mode, time.Since(began).Round(time.Millisecond))
			for range 20 {
				n++
				require.Equal(t, to.status, e.post(t, "/api/events", anEvent(fmt.Sprintf("after-%d-%s-%d", i, to.mode, n))).status, "and back again")
			}
		}
	}
	// A file that cannot be read, and one that says nothing new, change nothing.
	shell("sync")()
	for _, text := range []string{"ingest: {mode: both}", "ingest: {mode: async}\nnonsense: 1", "\x00", "ingest: {mode: async}"} {
		write(text)
		time.Sleep(300 * time.Millisecond)
		_, body := e.get(t, e.admin+"/mode")
		require.Contains(t, body, `"mode":"sync"`, text)
	}
}

// TestModeCommand: what it says when there is no edge, or no such mode.
func TestModeCommand(t *testing.T) {
	for _, row := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"mode", "both"}, 2, "want async or sync"},
		{[]string{"mode", "sync", "async"}, 2, "at most 1"},
		{[]string{"mode", "--admin.address", "127.0.0.1:1"}, 1, "is it running"},
		{[]string{"mode", "sync", "--admin.address", "nowhere"}, 1, "admin.address"},
		{[]string{"--ingest.mode", "both"}, 2, `ingest.mode "both": want async or sync`},
		{[]string{"--ingest.sync_wait", "1ms"}, 2, "sync_wait"},
		{[]string{"--ingest.group", ""}, 2, "ingest.group"},
		{[]string{"--known.bytes", "1"}, 2, "known"},
	} {
		var out, errs bytes.Buffer
		require.Equal(t, row.code, run(t.Context(), row.args, nil, &out, &errs), "%v: %s", row.args, errs.String())
		require.Contains(t, errs.String(), row.text)
		require.Empty(t, out.String())
	}
}
