package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/deploy/demo/sample"
	"sluice/schemas/event"
)

// demoEvents are the records that the edge makes of the demo's sample, each
// received a millisecond after the one before it.
func demoEvents(t testing.TB) []*kgo.Record {
	t.Helper()
	events, err := sample.Events("")
	require.NoError(t, err)
	received := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	var out []*kgo.Record
	for i, e := range events {
		out = append(out, &kgo.Record{Key: e.AppendKey(nil), Value: e.AppendJSON(nil), Timestamp: received.Add(time.Duration(i) * time.Millisecond)})
	}
	require.Len(t, out, 3000)
	return out
}

// asked is what an analyst's HTTP client gets: the text of the answer, or of the
// error.
func asked(ctx context.Context, base, query string, settings ...string) (string, error) {
	params := url.Values{"database": {"sluice"}, "default_format": {"PrettyCompactMonoBlock"}, "output_format_pretty_row_numbers": {"0"}, "output_format_pretty_color": {"0"}, "output_format_pretty_single_large_number_tip_threshold": {"0"}}
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		params.Set(name, value)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/?"+params.Encode(), strings.NewReader(query))
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, text)
	}
	return strings.TrimRight(string(text), "\n"), err
}

// Every query of the analysts' guide is asked, on the demo's data, and the answer
// printed there is the answer. UPDATE_GUIDE=1 prints anew what differs.
func TestTheAnalystsGuide(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	s := newStack(t)
	stop := s.consuming()
	s.produce(demoEvents(t)...)
	r := s.verified()
	require.Equal(t, report{OK: true, Records: 3000, Rows: 2889, Conflicts: 111, RollupsEqual: true}, r)
	stop()
	s.exec("INSERT INTO completeness (topic_id, complete_through, held_by, edges) SELECT any(topic_id), '2026-11-24 12:00:05', 'edge-1', 1 FROM event_log")

	guide := filepath.Join("..", "deploy", "docs", "analysts.md")
	kinds, texts := blocks(t, guide)
	raw, err := os.ReadFile(guide)
	require.NoError(t, err)
	queries := 0
	for i, kind := range kinds {
		switch kind {
		case "sql":
			queries++
			got, err := asked(t.Context(), s.engine.URL, texts[i])
			require.NoError(t, err, texts[i])
			require.Less(t, i+1, len(kinds), "an answer follows: %s", texts[i])
			require.Equal(t, "answer", kinds[i+1], "an answer follows: %s", texts[i])
			want := strings.TrimRight(texts[i+1], "\n")
			if os.Getenv("UPDATE_GUIDE") != "" {
				raw = bytes.Replace(raw, []byte(texts[i]+"\n```\n\n```answer\n"+texts[i+1]), []byte(texts[i]+"\n```\n\n```answer\n"+got), 1)
				continue
			}
			require.Equal(t, want, got, texts[i])
		case "answer":
			require.True(t, i > 0 && kinds[i-1] == "sql", "an answer without a question: %s", texts[i])
		default:
			t.Fatalf("a block of kind %q, which nothing runs", kind)
		}
	}
	require.GreaterOrEqual(t, queries, 10)
	if os.Getenv("UPDATE_GUIDE") != "" {
		require.NoError(t, os.WriteFile(guide, raw, 0o644))
		t.Fatal("the answers are printed anew: read them")
	}
	anyNameIsData(t, s)
}

// anyNameIsData: names with SQL's own characters and any script come back as they
// were sent, from every view that has them.
func anyNameIsData(t *testing.T, s *stack) {
	t.Helper()
	stop := s.consuming()
	defer stop()
	names := []string{
		`it's; DROP TABLE event_log -- "x" `, "back`tick \\ and \\' /* */ %d {p:String} ?", "数据 · événement · שלום · 🦊", "e\u0301\u202e\ufeffend", "a:b%3Ac",
	}
	at := time.Date(2026, 11, 1, 2, 3, 4, 5, time.UTC)
	for i, name := range names {
		e := event.Event{Source: name, EventType: name, ActorID: name, OccurredAt: at}
		for j, payload := range []string{`{"n":1}`, `{"n":2}`} {
			e.Payload = []byte(payload)
			s.produce(&kgo.Record{Key: e.AppendKey(nil), Value: e.AppendJSON(nil), Timestamp: at.Add(time.Duration(2*i+j) * time.Millisecond)})
		}
	}
	n := len(names)
	require.Equal(t, report{OK: true, Records: 3000 + 2*n, Rows: 2889 + n, Conflicts: 111 + n, RollupsEqual: true}, s.verified())
	for _, name := range names {
		for _, view := range []string{"events", "events_physical", "event_conflicts", "events_per_minute", "events_per_hour", "events_per_day"} {
			var lines uint64
			require.NoError(t, s.store.Conn().QueryRow(t.Context(), "SELECT count() FROM "+view+" WHERE source = ? AND event_type = ?", name, name).Scan(&lines))
			require.EqualValues(t, 1, lines, "%s: %q", view, name)
		}
		for _, view := range []string{"complete_through", "source_daily_actives", "late_events_per_day"} {
			got, err := asked(t.Context(), s.engine.URL, "SELECT count() FROM "+view+" WHERE source = {name:String} FORMAT TSV", "param_name="+strings.ReplaceAll(name, `\`, `\\`))
			require.NoError(t, err)
			require.Equal(t, "1", got, "%s: %q", view, name)
		}
	}
}
