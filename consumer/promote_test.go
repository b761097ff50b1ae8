package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/consumer/internal/promote"
	schema "sluice/schemas/clickhouse"
	"sluice/schemas/event"
)

func pageView(n int, payload string) *kgo.Record {
	e := event.Event{
		Source: "web", EventType: "page_view", ActorID: fmt.Sprint("actor-", n%7),
		OccurredAt: time.Date(2025, time.Month(1+n%4), 2, 3, 4, 5, n*1000, time.UTC), Payload: []byte(payload),
	}
	return &kgo.Record{Key: e.AppendKey(nil), Value: e.AppendJSON(nil)}
}

// A column is promoted while events come in, is interrupted, goes on, and is run a
// second time: nothing that exactness stands on is touched, and every row has it.
func TestPromoteUnderLiveEvents(t *testing.T) {
	s := newStack(t)
	stop := s.consuming()
	const before, during = 300, 300
	for i := range before {
		s.produce(pageView(i, fmt.Sprintf(`{"path":"/","duration_ms":%d}`, i)))
	}
	odd := []string{`{"path":"/","duration_ms":7.0}`, `{"path":"/","duration_ms":"7"}`, `{"path":"/","duration_ms":null}`, `{"path":"/"}`, `{"duration_ms":99999999999999999999}`, `{"duration_ms":{"a":1},"duration_ms.a":2}`, `{"duration_ms":[1]}`, `{"duration_ms":-1}`}
	for i, payload := range odd {
		s.produce(pageView(100_000+i, payload))
	}
	s.produce(record(1, `{"duration_ms":5}`)) // of another type
	require.Equal(t, report{OK: true, Records: before + len(odd) + 1, Rows: before + len(odd) + 1, RollupsEqual: true}, s.verified())
	// A block whose token must go on to be known while its part is rewritten.
	token := func() {
		s.exec("INSERT INTO event_log (event_id, source, event_type, actor_id, occurred_at, payload_text, payload_hash, topic_id, partition, offset) SETTINGS insert_deduplication_token = 'once' " +
			"SELECT generateUUIDv4(), 'token', 'page_view', 'a', '2025-03-01 00:00:00', '{\"duration_ms\":3}', unhex(repeat('00', 16)), toUUID('00000000-0000-0000-0000-00000000000a'), 0, 0")
	}
	token()

	live, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := range during {
			if i == during/2 {
				close(live)
			}
			// a third are repeats
			r := pageView(before+i-i%3, fmt.Sprintf(`{"path":"/","duration_ms":%d}`, before+i-i%3))
			r.Topic = s.cfg.Kafka.Topic
			if err := s.producer.ProduceSync(context.WithoutCancel(s.t.Context()), r).FirstErr(); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	folder := filepath.Join("..", "schemas", "jsonschema")
	args := []string{"schema", "promote", "page_view.duration_ms", "--schemas", folder}
	apply := append(args[:len(args):len(args)], "--apply", "--yes", "--json")

	// Refusals change nothing.
	for status, refused := range map[string][]string{
		"1 say --yes":                append(args[:len(args):len(args)], "--apply"),
		"2 no registered schema":     {"schema", "promote", "page_view.duration", "--schemas", folder},
		"2 no one type":              {"schema", "promote", "order.total", "--schemas", folder},
		"2 the name is taken":        append(args[:len(args):len(args)], "--column", "payload"),
		"2 want letters":             append(args[:len(args):len(args)], "--column", "x; DROP TABLE event_log"),
		"2 say where the registered": {"schema", "promote", "page_view.duration_ms"},
		"2 the schemas in":           {"schema", "list", "--schemas", t.TempDir()},
	} {
		want, text, _ := strings.Cut(status, " ")
		_, said, got := s.says(refused...)
		require.Equal(t, want, fmt.Sprint(got), "%v: %s", refused, said)
		require.Contains(t, said, text)
	}
	out, _, status := s.says(append(args[:len(args):len(args)], "--apply", "--dry-run")...)
	require.Zero(t, status)
	require.Contains(t, out, "ADD COLUMN IF NOT EXISTS page_view_duration_ms Nullable(Int64)")
	require.Contains(t, out, "202503")
	require.Zero(t, s.scalar("SELECT count() FROM system.columns WHERE table = 'event_log' AND name = 'page_view_duration_ms'"))

	<-live
	// Cut short once the column stands and one month is begun: rows are right already.
	r, err := promote.Open(os.DirFS(folder))
	require.NoError(t, err)
	p, err := r.Find("page_view.duration_ms")
	require.NoError(t, err)
	c, err := promote.NewColumn(p, "")
	require.NoError(t, err)
	table := promote.Table{Conn: s.store.Conn()}
	require.NoError(t, table.Add(t.Context(), c))
	cut, cancel := context.WithCancel(t.Context())
	require.ErrorIs(t, table.Fill(cut, c, time.Hour, func(uint64) { time.AfterFunc(50*time.Millisecond, cancel) }), context.Canceled)
	const wrong = "SELECT count() FROM events WHERE event_type = 'page_view' AND match(payload_text, '\"duration_ms\":[0-9]+}$') AND ifNull(page_view_duration_ms, -1) != JSONExtractInt(payload_text, 'duration_ms') AND NOT match(payload_text, '[0-9]{20}')"
	require.Zero(t, s.scalar(wrong))

	out, said, status := s.says(apply...)
	require.Zero(t, status, said)
	<-done
	got := lines[promoted](t, out)[0]
	require.True(t, got.Applied)
	out, said, status = s.says(apply...) // twice is once
	require.Zero(t, status, said)
	require.Zero(t, lines[promoted](t, out)[0].Left)
	token()
	require.EqualValues(t, 1, s.scalar("SELECT count() FROM event_log WHERE source = 'token'"), "the token is known still")
	s.exec("ALTER TABLE event_log DELETE WHERE source = 'token' SETTINGS mutations_sync = 2")

	rows := before + during/3 + len(odd) + 1
	want := report{OK: true, Records: before + during + len(odd) + 1, Rows: rows, Duplicates: during - during/3, RollupsEqual: true}
	s.settles(want)
	s.balanced(want)
	require.Zero(t, s.scalar(wrong))
	require.EqualValues(t, before+during/3+2, s.scalar("SELECT count() FROM events_physical WHERE page_view_duration_ms IS NOT NULL"), "7.0 and -1 are integers, the other odd ones are not")
	require.Zero(t, s.scalar("SELECT toUInt64(sum(repeats)) FROM events_guard"))
	require.EqualValues(t, rows, s.scalar("SELECT sum(events) FROM events_per_hour SETTINGS force_optimize_projection = 1"))
	require.EqualValues(t, 1, s.scalar("SELECT count() FROM operations FINAL WHERE kind = 'schema promote' AND state = 'done' AND outcome = 'nothing was left to do'"))
	everyKindIsRead(s)
	stop()

	// What stands on the table takes the column for ours, and a start too.
	out, said, status = s.says("doctor", "--json")
	require.NotContains(t, out+said, "page_view_duration_ms")
	require.NotEqual(t, 2, status, said)
	stop = s.consuming()
	s.produce(pageView(200_000, `{"duration_ms":11}`))
	want.Records, want.Rows = want.Records+1, want.Rows+1
	s.settles(want)
	stop()
	out, _, status = s.says("schema", "list", "--schemas", folder, "--json")
	require.Zero(t, status)
	require.Contains(t, out, `"column":"page_view_duration_ms"`)
	_, said, status = s.says("replay", "--into", "rebuilt", "--from", "earliest", "--yes")
	require.Zero(t, status, said)
	require.EqualValues(t, s.scalar("SELECT sum(page_view_duration_ms)::UInt64 FROM event_log"), s.scalar("SELECT sum(page_view_duration_ms)::UInt64 FROM rebuilt"))

	// The migration is written once, and changes nothing where it was applied.
	dir := t.TempDir()
	for range 2 {
		out, said, status = s.says(append(args[:len(args):len(args)], "--dir", dir, "--json")...)
		require.Zero(t, status, said)
	}
	var file struct{ File string }
	require.NoError(t, json.Unmarshal([]byte(out), &file))
	migrations, err := schema.Migrations()
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("%04d_promote_page_view_duration_ms.sql", len(migrations)+1), filepath.Base(file.File))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	builtIn(s, file.File)
	require.True(t, s.verified().OK)
}

// builtIn: a program that was built with the migration takes it for one more, where its
// column is there already: applied once, and nothing is wrong then.
func builtIn(s *stack, file string) {
	s.t.Helper()
	migrations, err := filepath.Abs("../schemas/clickhouse/migrations")
	require.NoError(s.t, err)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(migrations, filepath.Base(file)): file}})
	require.NoError(s.t, err)
	dir := s.t.TempDir()
	require.NoError(s.t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644))
	program := filepath.Join(dir, "consumer")
	out, err := exec.CommandContext(s.t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, ".").CombinedOutput()
	require.NoError(s.t, err, "%s", out)
	run := func(args ...string) (string, int) {
		cmd := exec.CommandContext(s.t.Context(), program, append(args, "--kafka.brokers", strings.Join(s.cfg.Kafka.Brokers, ","), "--clickhouse.dsn", s.cfg.ClickHouse.DSN)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		require.True(s.t, err == nil || errors.As(err, &exit), "%v", err)
		return string(out), cmd.ProcessState.ExitCode()
	}
	name := strings.Replace(strings.TrimSuffix(filepath.Base(file), ".sql"), "_", " ", 1)
	const values = "SELECT sum(page_view_duration_ms)::UInt64 FROM event_log"
	before := s.scalar(values)
	said, status := run("doctor")
	require.NotZero(s.t, status, "the doctor sees what is not applied: %s", said)
	said, status = run("migrate")
	require.Zero(s.t, status, said)
	require.Contains(s.t, said, name+": applied")
	said, status = run("migrate")
	require.Zero(s.t, status, said)
	require.Contains(s.t, said, "nothing to do")
	said, status = run("doctor", "--json")
	require.NotEqual(s.t, 2, status, said)
	require.NotContains(s.t, said, "page_view_duration_ms")
	require.NotContains(s.t, said, "consumer migrate")
	require.Equal(s.t, before, s.scalar(values))
	_, said, status = s.says("migrate")
	require.NotZero(s.t, status, "a program without it does not touch a newer schema")
	require.Contains(s.t, said, "newer than this program")
}

// everyKindIsRead: each kind's expression takes what fits, gives NULL for the rest,
// and never fails.
func everyKindIsRead(s *stack) {
	s.t.Helper()
	values := map[string][]string{ // by promote's kinds: integer, number, boolean, string, date-time
		`5`: {"5", "5", "-", "-", "-"}, `5.0`: {"5", "5", "-", "-", "-"}, `5.5`: {"-", "5.5", "-", "-", "-"}, `true`: {"-", "-", "true", "-", "-"},
		`18446744073709551615`: {"-", "18446744073709552000", "-", "-", "-"}, `1e999`: {"-", "-", "-", "-", "-"}, `[1]`: {"-", "-", "-", "-", "-"}, `null`: {"-", "-", "-", "-", "-"},
		`"12"`: {"-", "-", "-", "12", "-"}, `"9999-12-31T23:59:59Z"`: {"-", "-", "-", "9999-12-31T23:59:59Z", "-"},
		`"2026-01-02t03:04:05.123456789+02:00"`: {"-", "-", "-", "2026-01-02t03:04:05.123456789+02:00", "2026-01-02 01:04:05.123456789"},
	}
	payload := "SELECT concat('{\"value\":', arrayElement(['"
	var texts []string
	for v := range values {
		texts = append(texts, v)
	}
	payload += strings.Join(texts, "','") + "'], toUInt64(number + 1)), '}') AS payload_text, "
	columns := ""
	for _, kind := range []promote.Kind{promote.Integer, promote.Number, promote.Boolean, promote.String, promote.Time} {
		c, err := promote.NewColumn(promote.Property{EventType: "page_view", Path: []string{"value"}, Kind: kind}, "")
		require.NoError(s.t, err)
		columns += ", ifNull(toString(" + c.Expression() + "), '-')"
	}
	rows, err := s.store.Conn().Query(clickhouse.Context(s.t.Context(), clickhouse.WithSettings(schema.InsertSettings())),
		"SELECT payload_text"+columns+" FROM ("+payload+"'page_view' AS event_type, if(isValidJSON(payload_text), payload_text, '{}')::JSON(max_dynamic_paths = 32, max_dynamic_types = 0) AS payload FROM numbers("+fmt.Sprint(len(texts))+"))")
	require.NoError(s.t, err)
	defer rows.Close() //nolint:errcheck // Err below tells
	n := 0
	for ; rows.Next(); n++ {
		var text string
		got := make([]string, 5)
		require.NoError(s.t, rows.Scan(&text, &got[0], &got[1], &got[2], &got[3], &got[4]))
		for k, want := range values[strings.TrimSuffix(strings.TrimPrefix(text, `{"value":`), "}")] {
			require.Equal(s.t, want, got[k], "%s as kind %d", text, k)
		}
	}
	require.NoError(s.t, rows.Err())
	require.Equal(s.t, len(values), n)
}
