package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/intent"
)

// look is one status, by the tools of a command.
func (s *stack) look(members ...string) status {
	s.t.Helper()
	t, err := openTools(command(), s.cfg)
	require.NoError(s.t, err)
	defer t.close()
	return t.status(s.t.Context(), members)
}

// consumingWithStatus is a consumer whose admin port answers at address.
func (s *stack) consumingWithStatus() (address string, stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	mon := unregistered()
	done := make(chan error, 1)
	go func() { done <- consume(ctx, s.cfg, s.log, mon) }()
	mux := http.NewServeMux()
	mux.Handle("GET /status", mon.StatusHandler())
	server := httptest.NewServer(mux)
	require.Eventually(s.t, func() bool { return mon.Ready() == nil }, 30*time.Second, time.Millisecond)
	return strings.TrimPrefix(server.URL, "http://"), func() {
		cancel()
		require.NoError(s.t, <-done)
		server.Close()
	}
}

const nobody = "127.0.0.1:1"

func TestStatus(t *testing.T) {
	s := newStack(t)
	s.cfg.Batch.Rows = 10
	address, stop := s.consumingWithStatus()
	for i := range 90 {
		s.produce(record(i, `{}`))
	}
	s.verified()
	var got status
	closed := func() bool {
		got = s.look(address)
		for _, p := range got.Partitions {
			if p.Lag == nil || *p.Lag != 0 || p.CommitIs != "closed" {
				return false
			}
		}
		return true
	}
	require.Eventually(t, closed, 20*time.Second, 50*time.Millisecond)
	require.True(t, got.OK, "%+v", got)
	require.Len(t, got.Members, 1)
	require.Len(t, got.Partitions, 3)
	for _, p := range got.Partitions {
		require.Equal(t, "owning", p.State)
		require.NotEmpty(t, p.Member)
		require.Equal(t, *p.LogEnd, *p.JournalEnd)
		require.Zero(t, *p.Difference)
	}
	require.Contains(t, got.Doctor, "0 must be mended")

	// Its admin port does not answer, but the group knows of it.
	unheard := s.look(nobody)
	require.False(t, unheard.OK)
	require.Equal(t, "assigned", unheard.Partitions[0].State)
	require.Contains(t, unheard.Problems[0], "no admin port asked answers")
	stop()

	// Down, with an operator's commit, records waiting and a hole in the journal.
	s.produce(record(1000, `{}`), record(1001, `{}`), record(1002, `{}`))
	s.resetOffsets(5)
	end := *got.Partitions[0].JournalEnd
	require.Greater(t, end, int64(12), "too few records in the partition for a gap")
	s.exec("DELETE FROM journal WHERE partition = 0 AND entry = 'batch' AND offset > 0 AND last_offset < " + strconv.FormatInt(end-1, 10))
	down := s.look(nobody)
	require.Empty(t, down.Members)
	require.Equal(t, "unowned", down.Partitions[0].State)
	require.Equal(t, "foreign", down.Partitions[0].CommitIs)
	require.EqualValues(t, 5, *down.Partitions[0].Commit)
	require.Len(t, down.Partitions[0].Gaps, 1)
	var behind int64
	for _, p := range down.Partitions[1:] {
		behind += *p.Lag
	}
	problems := strings.Join(down.Problems, "\n")
	require.Contains(t, problems, "no consumer is running")
	require.Contains(t, problems, "the journal lacks offsets")
	require.Positive(t, *down.Partitions[0].Lag+behind)

	// What people see, and what machines do.
	var table, line bytes.Buffer
	require.NoError(t, down.write(&table, false))
	require.Contains(t, table.String(), "attention: no consumer is running")
	require.Regexp(t, `(?m)^PARTITION +LOG START +LOG END +JOURNAL END`, table.String())
	require.NoError(t, down.write(&line, true))
	var again status
	require.NoError(t, json.Unmarshal(line.Bytes(), &again))
	require.Equal(t, down, again)
	require.Equal(t, 1, bytes.Count(line.Bytes(), []byte("\n")))

	// Without ClickHouse what Kafka knows is shown, and the rest is not known.
	s.engine.Kill()
	blind := s.look(nobody)
	require.False(t, blind.OK)
	require.Len(t, blind.Errors, 1)
	require.Contains(t, blind.Errors[0], "ClickHouse")
	require.NotNil(t, blind.Partitions[0].LogEnd)
	require.Nil(t, blind.Partitions[0].JournalEnd)
	require.Contains(t, blind.Doctor, "ClickHouse could not be asked")
	s.engine.Restart()
}

// One screen shows the edges too, those that do not answer first of all.
func TestStatusOfEdges(t *testing.T) {
	answers := func(health, spool string) string {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, health) })
		if spool != "" {
			mux.HandleFunc("GET /spool", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, spool) })
		}
		server := httptest.NewServer(mux)
		t.Cleanup(server.Close)
		return strings.TrimPrefix(server.URL, "http://")
	}
	up := answers(`{"status":"up","ready":true,"checks":[{"name":"kafka","status":"up"}]}`, "")
	spools := answers(`{"status":"degraded","ready":true,"checks":[{"name":"kafka","status":"down","error":"gone"}]}`, `{"records":7,"bytes":900}`)
	full := answers(`{"status":"down","ready":false,"reason":"spool: full","checks":[]}`, `{"records":9}`)
	nonsense := answers(`<html>`, "")
	s := status{Edges: askEdges(t.Context(), []string{up, spools, full, nobody, nonsense, "no address"})}
	s.judgeEdges()
	problems, notes := strings.Join(s.Problems, "\n"), strings.Join(s.Notes, "\n")
	require.NotContains(t, problems+notes, up)
	require.Contains(t, problems, spools+" is degraded: kafka is down: gone")
	require.Contains(t, notes, spools+" has 7 records (900 bytes)")
	require.Contains(t, problems, full+" takes no events: spool: full")
	require.Contains(t, problems, nobody+" does not answer")
	require.Contains(t, problems, nonsense+" does not answer: what /health answers can't be read")
	require.Contains(t, problems, "no address does not answer")
	var out strings.Builder
	s.writeEdges(&out)
	require.Contains(t, out.String(), "edge "+up+": up, 0 records spooled\n")
	require.Contains(t, out.String(), "edge "+nobody+": ?,")
	require.Empty(t, askEdges(t.Context(), nil))
}

func TestCommitIs(t *testing.T) {
	id := uuid.New()
	open := intent.ClosedAt(7, id, 3)
	open.Closed, open.Last = false, 12
	reread := open
	reread.Reread = 20
	for metadata, want := range map[string]string{
		"":                                   "foreign",
		"a tool's":                           "foreign",
		"sluice/1 {":                         "unreadable",
		"sluice/99 {}":                       "unreadable", // of a newer version
		open.Metadata():                      "open to 12",
		reread.Metadata():                    "reread to 20",
		intent.ClosedAt(7, id, 3).Metadata(): "closed",
		intent.ClosedAt(7, uuid.New(), 3).Metadata(): "other topic",
	} {
		require.Equal(t, want, commitIs(metadata, id), metadata)
	}
}
