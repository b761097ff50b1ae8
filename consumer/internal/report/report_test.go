package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"sluice/consumer/internal/migrate"
	"sluice/deploy/local/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var begin = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// hostile are names that an event may have.
var hostile = []string{
	`</script><script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `{{.Events}}`, `' OR 1=1 -- \`,
	"\u202Eevil\u202C", "مصدر عربي", "🧑‍🚀 emoji 🚀", strings.Repeat("ж", 256), " ", "tab\there\nand\rthere", "javascript:alert(1)",
}

func database(t *testing.T) driver.Conn {
	t.Helper()
	dsn := enginetest.Start(t).URL + "/sluice"
	require.NoError(t, migrate.Up(t.Context(), dsn, func(string) {}))
	opts, err := clickhouse.ParseDSN(dsn)
	require.NoError(t, err)
	conn, err := clickhouse.Open(opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// row is one stored event.
func row(t *testing.T, conn driver.Conn, offset int, source, kind, actor string, occurred time.Time, late, fresh time.Duration) {
	t.Helper()
	received := occurred.Add(late).Truncate(time.Millisecond)
	require.NoError(t, conn.Exec(t.Context(), `
		INSERT INTO event_log (event_id, source, event_type, actor_id, occurred_at, payload_text, received_at, inserted_at, topic_id, partition, offset, record_timestamp)
		SELECT generateUUIDv4(), ?, ?, ?, fromUnixTimestamp64Nano(?, 'UTC'), '{}', fromUnixTimestamp64Milli(?, 'UTC') AS at, fromUnixTimestamp64Milli(?, 'UTC'), toUUID('00000000-0000-0000-0000-000000000001'), 0, ?, at`,
		source, kind, actor, occurred.UnixNano(), received.UnixMilli(), received.Add(fresh).UnixMilli(), offset))
}

// fate is one journaled duplicate or conflict.
func fate(t *testing.T, conn driver.Conn, offset int, what, source string, occurred time.Time) {
	t.Helper()
	require.NoError(t, conn.Exec(t.Context(), `
		INSERT INTO journal (topic_id, topic, partition, entry, offset, last_offset, fate, records, source, event_type, actor_id, occurred_at)
		SELECT toUUID('00000000-0000-0000-0000-000000000001'), 'events', 0, 'fate', ?, ?, ?, 1, ?, 't', 'a', fromUnixTimestamp64Nano(?, 'UTC')`,
		offset, offset, what, source, occurred.UnixNano()))
}

func journaled(t *testing.T, conn driver.Conn, records int) {
	t.Helper()
	require.NoError(t, conn.Exec(t.Context(), `
		INSERT INTO journal (topic_id, topic, partition, entry, offset, last_offset, records)
		SELECT toUUID('00000000-0000-0000-0000-000000000001'), 'events', 0, 'batch', 0, ?, ?`, records-1, records))
}

func rendered(t *testing.T, r *Report) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, r.WriteHTML(&b))
	return b.String()
}

func TestOfAnEmptyDatabase(t *testing.T) {
	conn := database(t)
	r, err := Gather(t.Context(), conn, Range{})
	require.NoError(t, err)
	require.Zero(t, r.Events)
	require.Nil(t, r.Freshness)
	text := rendered(t, r)
	require.Contains(t, text, "No event occurred in this time.")
	require.Contains(t, text, "Nothing has been journaled yet.")

	// A page that is not a page of numbers is no answer either.
	_, err = Gather(t.Context(), conn, Range{From: begin, To: begin})
	require.ErrorContains(t, err, "the beginning must be before the end")
	_, err = Gather(t.Context(), conn, Range{From: time.Date(-200, 1, 1, 0, 0, 0, 0, time.UTC), To: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)})
	require.ErrorContains(t, err, "too long a time")
}

func TestFigures(t *testing.T) {
	conn := database(t)
	at := func(hours int) time.Time {
		return begin.Add(time.Duration(hours)*time.Hour + 7*time.Minute + 123456789)
	}
	row(t, conn, 0, "web", "view", "u1", at(0), 0, 80*time.Millisecond)
	row(t, conn, 1, "web", "view", "u2", at(0), 90*time.Second, 200*time.Millisecond)
	row(t, conn, 2, "web", "order", "u1", at(25), 2*time.Hour, 300*time.Millisecond)
	row(t, conn, 3, "app", "view", "u3", at(26), 40*24*time.Hour, time.Hour)
	row(t, conn, 4, "app", "view", "u3", at(-5000), 0, 0) // outside, and before the default's beginning
	fate(t, conn, 5, "duplicate", "web", at(0))
	fate(t, conn, 6, "duplicate", "web", at(25))
	fate(t, conn, 7, "conflict", "app", at(25))
	fate(t, conn, 8, "duplicate", "app", at(-5000))
	journaled(t, conn, 9)

	r, err := Gather(t.Context(), conn, Range{})
	require.NoError(t, err)
	require.Equal(t, 6*time.Hour, r.Step)
	require.Equal(t, begin.Add(30*time.Hour), r.To, "the end of the last hour's step")
	require.Equal(t, uint64(4), r.Events)
	require.Equal(t, []uint64{3, 2, 2}, []uint64{r.Actors, r.Sources, r.Types})
	require.Equal(t, []uint64{2, 1}, []uint64{r.Duplicates, r.Conflicts})
	var events, duplicates, conflicts uint64
	for i, p := range r.Points {
		events, duplicates, conflicts = events+p.Events, duplicates+p.Duplicates, conflicts+p.Conflicts
		if p.At.Equal(begin) {
			require.Equal(t, []uint64{2, 1, 0}, []uint64{p.Events, p.Duplicates, p.Conflicts})
			require.Equal(t, uint64(2), r.TopSources[0].Points[i])
		}
		if p.At.Equal(begin.Add(24 * time.Hour)) {
			require.Equal(t, []uint64{2, 1, 1}, []uint64{p.Events, p.Duplicates, p.Conflicts})
		}
	}
	require.Equal(t, []uint64{4, 2, 1}, []uint64{events, duplicates, conflicts}, "every one in a step")
	require.Equal(t, "web", r.TopSources[0].Name)
	require.Equal(t, []uint64{3, 2, 0}, []uint64{r.TopSources[0].Events, r.TopSources[0].Duplicates, r.TopSources[0].Conflicts})
	require.Equal(t, []uint64{1, 0, 1}, []uint64{r.TopSources[1].Events, r.TopSources[1].Duplicates, r.TopSources[1].Conflicts})
	require.Equal(t, []Named{{"view", 3}, {"order", 1}}, r.TopTypes)
	require.Equal(t, time.Hour, r.Freshness.Longest)
	require.Equal(t, []Bucket{{"100 ms", 1}, {"250 ms", 1}, {"500 ms", 1}, {"1 s", 0}, {"2.5 s", 0}, {"5 s", 0}, {"30 s", 0}, {"5 min", 0}, {"more", 1}}, r.Freshness.Buckets)
	require.Equal(t, []Bucket{{"1 s", 1}, {"1 min", 0}, {"10 min", 1}, {"1 hour", 0}, {"6 hours", 1}, {"1 day", 0}, {"1 week", 0}, {"30 days", 0}, {"more", 1}}, r.Late)
	require.Len(t, r.Balance, 1)
	require.Equal(t, int64(0), r.Balance[0].Difference)
	require.Contains(t, rendered(t, r), "it adds up")

	// The minute's step, cut to what was asked for; the balance is of all.
	r, err = Gather(t.Context(), conn, Range{From: begin.Add(time.Second), To: begin.Add(10 * time.Minute)})
	require.NoError(t, err)
	require.Equal(t, []any{time.Minute, begin, uint64(2), 10}, []any{r.Step, r.From, r.Events, len(r.Points)})
	require.Equal(t, uint64(9), r.Balance[0].Records)

	// A record that is nowhere is said first of all.
	require.NoError(t, conn.Exec(t.Context(), "INSERT INTO journal (topic_id, topic, partition, entry, offset, last_offset, records) SELECT toUUID('00000000-0000-0000-0000-000000000001'), 'events', 0, 'batch', 9, 9, 1"))
	r, err = Gather(t.Context(), conn, Range{})
	require.NoError(t, err)
	require.Contains(t, rendered(t, r), "1 records are not accounted for")

	require.Contains(t, rendered(t, r), "no edge has said", "an empty view of completeness")

	text, err := json.Marshal(r)
	require.NoError(t, err)
	require.Contains(t, string(text), `"events":4`)

	through := begin.Add(24*time.Hour + 500*time.Millisecond)
	require.NoError(t, conn.Exec(t.Context(), "INSERT INTO completeness (topic_id, complete_through) SELECT toUUID('00000000-0000-0000-0000-000000000001'), fromUnixTimestamp64Milli(?, 'UTC')", through.UnixMilli()))
	r, err = Gather(t.Context(), conn, Range{})
	require.NoError(t, err)
	require.Equal(t, []Complete{{"app", through}, {"web", through}}, r.Completeness.Sources)
	require.Equal(t, 1, strings.Count(string(r.eventsChart().Open), "L"), "the last of the steps of 6 hours")

	// A schema of before there was such a view.
	require.NoError(t, conn.Exec(t.Context(), "DROP VIEW complete_through"))
	r, err = Gather(t.Context(), conn, Range{})
	require.NoError(t, err)
	require.Contains(t, rendered(t, r), "no view complete_through")
}

func TestTimesBefore1970AndAfter2106(t *testing.T) {
	conn := database(t)
	for i, year := range []int{1931, 2199} {
		at := time.Date(year, 5, 6, 7, 8, 9, 500, time.UTC)
		row(t, conn, i, "old and new", "t", "a", at, 0, 0)
		fate(t, conn, 10+i, "duplicate", "old and new", at)
		for _, width := range []time.Duration{10 * time.Minute, 30 * 24 * time.Hour} {
			r, err := Gather(t.Context(), conn, Range{From: at.Add(-width), To: at.Add(width)})
			require.NoError(t, err)
			require.Equal(t, []uint64{1, 1}, []uint64{r.Events, r.Duplicates}, "%d", year)
		}
	}
}

func TestNamesAreTextAndNothingElse(t *testing.T) {
	conn := database(t)
	for i, name := range hostile {
		for n := range len(hostile) - i { // so that the order is known
			row(t, conn, 100*i+n, name, name, name, begin.Add(time.Duration(n)*time.Minute), 0, 0)
		}
	}
	r, err := Gather(t.Context(), conn, Range{})
	require.NoError(t, err)
	require.Len(t, r.TopSources, top)
	for i := range r.TopSources {
		require.Equal(t, hostile[i], r.TopSources[i].Name)
		require.Equal(t, uint64(len(hostile)-i), r.TopSources[i].Events)
	}
	r.Completeness = Completeness{Sources: []Complete{{hostile[0], begin}, {hostile[1], begin}}}
	text := rendered(t, r)
	requireInert(t, text)
	require.Contains(t, text, `&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;`)
	require.Contains(t, text, `\u{202E}evil\u{202C}`, "a mark of direction is shown, not obeyed")
	require.NotContains(t, text, "\u202E")
	require.Contains(t, text, "<bdi>مصدر عربي</bdi>")
}

func TestAnyNameIsText(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.OneOf(rapid.SampledFrom(hostile), rapid.String(), rapid.StringMatching(`[<>"'&/={}\x00-\x20a-z]{1,40}`)).Draw(rt, "name")
		r := &Report{From: begin, To: begin.Add(time.Hour), Step: time.Hour, Points: []Point{{At: begin, Events: 3}}, Events: 3,
			TopSources: []Source{{Name: name, Events: 3, Points: []uint64{3}}}, TopTypes: []Named{{name, 3}},
			Completeness: Completeness{Sources: []Complete{{name, begin}}}, Balance: []Line{{Topic: name}}}
		var b bytes.Buffer
		if err := r.WriteHTML(&b); err != nil {
			rt.Fatal(err)
		}
		plain := *r
		plain.TopSources, plain.TopTypes = []Source{{Name: "x", Events: 3, Points: []uint64{3}}}, []Named{{"x", 3}}
		plain.Completeness, plain.Balance = Completeness{Sources: []Complete{{"x", begin}}}, []Line{{Topic: "x"}}
		var want bytes.Buffer
		if err := plain.WriteHTML(&want); err != nil {
			rt.Fatal(err)
		}
		// Whatever the name, the elements and their attributes are the same.
		if got, want := skeleton(b.String()), skeleton(want.String()); got != want {
			rt.Fatalf("%q changes the page:\n%s", name, b.String())
		}
	})
}

// skeleton is a page's tags, without what their attributes say.
func skeleton(text string) string {
	var b strings.Builder
	for _, tag := range regexp.MustCompile(`<[^>]*>`).FindAllString(text, -1) {
		b.WriteString(regexp.MustCompile(`"[^"]*"`).ReplaceAllString(tag, `""`))
	}
	return b.String()
}

// requireInert fails when a page could do or fetch anything.
func requireInert(t *testing.T, text string) {
	t.Helper()
	for _, never := range []string{"<script", "<img", "<link", "<iframe", "<object", "url(", "@import", "http://", "https://", "javascript:"} {
		for _, tag := range regexp.MustCompile(`(?s)<style>.*?</style>|<[^>]*>`).FindAllString(text, -1) {
			tag = regexp.MustCompile(`title="[^"]*"`).ReplaceAllString(tag, "")
			require.NotContains(t, strings.ToLower(tag), never)
		}
	}
	require.NotRegexp(t, `<[^>]*\son\w+=`, regexp.MustCompile(`title="[^"]*"`).ReplaceAllString(text, ""))
	require.Contains(t, text, `content="default-src 'none'; style-src 'unsafe-inline'"`)
}

// TestChartsAreWellFormed reads each SVG as XML: a browser draws half of one that
// is not, and says nothing.
func TestChartsAreWellFormed(t *testing.T) {
	r := &Report{Made: begin.Add(50 * time.Hour), From: begin, To: begin.Add(48 * time.Hour), Step: time.Hour, Duplicates: 1}
	for i := range 48 {
		r.Points = append(r.Points, Point{At: begin.Add(time.Duration(i) * time.Hour), Events: uint64(i * i * 1000), Duplicates: uint64(i % 3), Conflicts: uint64(i % 2)})
		r.Events += uint64(i * i * 1000)
	}
	r.Completeness.Sources = []Complete{{"web", begin.Add(40 * time.Hour)}, {"app", begin.Add(45 * time.Hour)}}
	text := rendered(t, r)
	drawings := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(text, -1)
	require.Len(t, drawings, 2)
	for _, d := range drawings {
		x := xml.NewDecoder(strings.NewReader(d))
		for {
			if _, err := x.Token(); errors.Is(err, io.EOF) {
				break
			} else {
				require.NoError(t, err, d)
			}
		}
		require.NotContains(t, d, "NaN")
		require.NotContains(t, d, "ZgotmplZ")
	}
	// Forty steps are whole, the last eight are not and are dashed.
	c := r.eventsChart()
	require.Equal(t, 39, strings.Count(string(c.Line), "L"))
	require.Equal(t, 8, strings.Count(string(c.Open), "L"), "from where the line ends")
	require.Contains(t, text, "may still grow")
	require.Contains(t, text, "1 March 2026")

	r.Completeness.Sources[0].Through = begin.Add(47 * time.Hour)
	r.Completeness.Sources[1].Through = begin.Add(48 * time.Hour)
	require.Equal(t, 1, strings.Count(string(r.eventsChart().Open), "L"))
	r.Completeness.Sources[0].Through = begin.Add(48 * time.Hour)
	require.Empty(t, r.eventsChart().Open)
	r.Completeness.Sources[0].Through = begin
	c = r.eventsChart()
	require.Empty(t, c.Line)
	require.Equal(t, 47, strings.Count(string(c.Open), "L"))

	// An hour that is not over may grow, whether or not completeness is known.
	r.Completeness, r.Made = Completeness{Unknown: "nobody says"}, begin.Add(47*time.Hour+time.Minute)
	require.Equal(t, 1, strings.Count(string(r.eventsChart().Open), "L"))
	require.Contains(t, rendered(t, r), "nobody says")
}

func TestWords(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1\u202f000", 12345678: "12\u202f345\u202f678"} {
		require.Equal(t, want, grouped(n))
	}
	for n, want := range map[uint64]string{0: "0", 999: "999", 1500: "1.5k", 2e6: "2M", 25e8: "2.5G"} {
		require.Equal(t, want, short(n))
	}
	for d, want := range map[time.Duration]string{
		0: "0 ms", -3 * time.Millisecond: "-3 ms", 1234 * time.Millisecond: "1.2 s", 90 * time.Second: "1.5 min", 36 * time.Hour: "36 h", 400 * time.Hour: "17 days",
	} {
		require.Equal(t, want, lasting(d))
	}
	for _, most := range []uint64{0, 1, 4, 5, 7, 99, 100, 101, 1234567} {
		s, ticks := niceScale(most)
		require.GreaterOrEqual(t, s.most, float64(most))
		require.LessOrEqual(t, s.most, max(4, 2.6*float64(most)), "most of the height is used")
		require.Len(t, ticks, 5)
	}
	for name, want := range map[string]string{"": `""`, "  ": `"  "`, "a\x00b": `a\u{0000}b`, "\xff": `\xFF`, "\uFFFD": "\uFFFD", "zero\u200Bwidth": `zero\u{200B}width`, "שלום": "שלום"} {
		require.Equal(t, want, visible(name), "%q", name)
	}
	require.Equal(t, []string{"none", "< 0.01 %", "0.5 %", "50 %"}, []string{share(0, 9), share(1, 1e6), share(5, 1000), share(1, 2)})
	require.Equal(t, fmt.Sprint([]string{"minute", "15 minutes", "hour", "6 hours", "day", "week", "4 weeks"}),
		fmt.Sprint([]string{stepName(time.Minute), stepName(15 * time.Minute), stepName(time.Hour), stepName(6 * time.Hour), stepName(24 * time.Hour), stepName(7 * 24 * time.Hour), stepName(28 * 24 * time.Hour)}))
}
