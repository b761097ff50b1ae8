package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// variant is a copy of the tables.
type variant struct {
	name, database string
	// drop names projections to do without; every is all of them.
	drop []string
}

const every = "*"

func variants() []variant {
	return []variant{
		{"as it is", "bench_all", nil},
		{"without by_actor", "bench_no_actor", []string{"by_actor"}},
		{"without late", "bench_no_late", []string{"late"}},
		{"without both", "bench_neither", []string{"by_actor", "late"}},
		{"without any projection", "bench_bare", []string{every}},
	}
}

// make makes the tables of v, empty, whose parts stay as they are written.
func (b *bench) make(ctx context.Context, v variant) error {
	c := b.in(v.database)
	if err := c.Migrate(ctx); err != nil {
		return err
	}
	drop := v.drop
	if len(drop) == 1 && drop[0] == every {
		a, err := c.Ask(ctx, "SELECT groupArray(name) AS names FROM system.projections WHERE database = currentDatabase() AND table = 'event_log'", "")
		if err != nil {
			return err
		}
		var row struct{ Names []string }
		if err := json.Unmarshal(a.Data[0], &row); err != nil {
			return err
		}
		drop = row.Names
	}
	for _, p := range drop {
		if err := c.Exec(ctx, "ALTER TABLE event_log DROP PROJECTION "+p); err != nil {
			return err
		}
	}
	return c.Exec(ctx, "SYSTEM STOP MERGES event_log")
}

// spent is the engine's CPU time of statements.
func (b *bench) spent(ctx context.Context, database string, statements ...string) (time.Duration, error) {
	before, err := b.cpu()
	if err != nil {
		return 0, err
	}
	for _, s := range statements {
		if err := b.in(database).Exec(ctx, s); err != nil {
			return 0, err
		}
	}
	after, err := b.cpu()
	return after - before, err
}

// write is the INSERT of one batch into a table, as one block.
func (b *bench) write(table string, from int) string {
	return fmt.Sprintf("INSERT INTO %[1]s (%[2]s) SELECT %[2]s FROM %[3]s.rows WHERE n >= %[4]d AND n < %[5]d ORDER BY n SETTINGS max_insert_threads = 1, max_threads = 1, min_insert_block_size_rows = %[6]d, min_insert_block_size_bytes = 0",
		table, inserted, sourceDatabase, from, from+b.cfg.batch, b.cfg.batch)
}

// inserts writes the same batches into every variant in turn, so that whatever the
// machine does besides is shared. Reading a batch is measured by itself and taken off.
// The time of all is the median batch's, as many times as there were.
func (b *bench) inserts(ctx context.Context) (*table, error) {
	t := &table{
		name: "inserts", what: fmt.Sprintf("%d rows in INSERTs of %d, not merged; CPU of the engine by the median INSERT, reading the rows taken off", b.rows, b.cfg.batch),
		columns: []column{{"table", "event_log", "%s"}, {"cpu_seconds", "CPU s", "%.2f"}, {"rows_per_cpu_second", "rows a CPU s", "%.0f"}, {"spread_percent", "+- %", "%.1f"}, {"bytes_per_row", "bytes a row", "%.1f"}, {"projection_bytes_per_row", "of projections", "%.1f"}},
	}
	all := variants()
	for _, v := range all {
		if err := b.make(ctx, v); err != nil {
			return nil, fmt.Errorf("%s: %w", v.name, err)
		}
	}
	if err := b.in(sourceDatabase).Exec(ctx, "CREATE TABLE nowhere AS rows ENGINE = Null"); err != nil {
		return nil, err
	}
	var reading []time.Duration
	cpu := make([][]time.Duration, len(all))
	told := time.Now()
	for from := 0; from < b.cfg.rows; from += b.cfg.batch {
		took, err := b.spent(ctx, sourceDatabase, b.write("nowhere", from))
		if err != nil {
			return nil, err
		}
		reading = append(reading, took)
		for i := range all {
			i = (i + from/b.cfg.batch) % len(all) // none is always first
			took, err := b.spent(ctx, all[i].database, b.write("event_log", from))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", all[i].name, err)
			}
			cpu[i] = append(cpu[i], took)
		}
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			b.say("%d rows of %d in each of %d tables", from+b.cfg.batch, b.cfg.rows, len(all))
		}
	}
	read, _ := quartiles(reading)
	for i, v := range all {
		middle, spread := quartiles(cpu[i])
		took := max(middle-read, time.Millisecond) * time.Duration(len(cpu[i]))
		size, err := b.size(ctx, v.database)
		if err != nil {
			return nil, err
		}
		if size.Rows != b.rows {
			return nil, fmt.Errorf("%s: %d rows where %d were written", v.name, size.Rows, b.rows)
		}
		t.add(v.name, took.Seconds(), float64(b.rows)/took.Seconds(), spread, size.bytes(), size.projections())
	}
	return t, nil
}

// quartiles are the median, and half the distance of the quartiles about it in percent
// of it. all is sorted by it.
func quartiles(all []time.Duration) (middle time.Duration, spread float64) {
	slices.Sort(all)
	middle = all[len(all)/2]
	return middle, float64(all[len(all)*3/4]-all[len(all)/4]) / 2 / float64(max(middle, 1)) * 100
}

// merges merges all parts of every variant into one a month.
func (b *bench) merges(ctx context.Context) (*table, error) {
	t := &table{
		name: "merges", what: "the same rows, merged once into one part a month",
		columns: []column{{"table", "event_log", "%s"}, {"cpu_seconds", "CPU s", "%.2f"}, {"rows_per_cpu_second", "rows a CPU s", "%.0f"}, {"bytes_per_row", "bytes a row", "%.1f"}, {"projection_bytes_per_row", "of projections", "%.1f"}},
	}
	for _, v := range variants() {
		took, err := b.merge(ctx, v.database)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.name, err)
		}
		size, err := b.size(ctx, v.database)
		if err != nil {
			return nil, err
		}
		took = max(took, time.Millisecond)
		t.add(v.name, took.Seconds(), float64(b.rows)/took.Seconds(), size.bytes(), size.projections())
		b.say("merged: %s", v.name)
	}
	return t, nil
}

// merge merges all parts, into such as have a file for each column: of others the
// engine does not tell what a column takes. Large ones have so in any case.
func (b *bench) merge(ctx context.Context, database string) (time.Duration, error) {
	return b.spent(ctx, database, "ALTER TABLE event_log MODIFY SETTING min_bytes_for_wide_part = 0",
		"SYSTEM START MERGES event_log", "OPTIMIZE TABLE event_log FINAL")
}

// size is what a table takes on the disk.
type size struct {
	Rows  int `json:",string"`
	Bytes int `json:",string"`
	Own   int `json:",string"`
}

func (s size) bytes() float64       { return float64(s.Bytes) / float64(max(s.Rows, 1)) }
func (s size) projections() float64 { return float64(s.Own) / float64(max(s.Rows, 1)) }

func (b *bench) size(ctx context.Context, database string) (s size, err error) {
	err = b.in(database).One(ctx, `SELECT sum(rows) AS Rows, sum(bytes_on_disk) AS Bytes,
    (SELECT sum(bytes_on_disk) FROM system.projection_parts WHERE database = currentDatabase() AND table = 'event_log' AND active) AS Own
FROM system.parts WHERE database = currentDatabase() AND table = 'event_log' AND active`, &s)
	return s, err
}

// codecs compares each column's bytes, of merged parts, with a table of plain
// defaults.
func (b *bench) codecs(ctx context.Context) (*table, error) {
	t := &table{
		name: "codecs", what: "bytes a row of each column of merged parts, without projections",
		columns: []column{{"column", "column", "%s"}, {"codec", "codec", "%s"}, {"plain", "LZ4", "%.2f"}, {"chosen", "as chosen", "%.2f"}},
	}
	plain := variant{"plain defaults", "bench_plain", []string{every}}
	if err := b.make(ctx, plain); err != nil {
		return nil, err
	}
	c := b.in(plain.database)
	codecs := map[string]string{}
	a, err := c.Ask(ctx, "SELECT name, compression_codec AS codec FROM system.columns WHERE database = currentDatabase() AND table = 'event_log' AND compression_codec != ''", "")
	if err != nil {
		return nil, err
	}
	var alters []string
	for _, line := range a.Data {
		var col struct{ Name, Codec string }
		if err := json.Unmarshal(line, &col); err != nil {
			return nil, err
		}
		codecs[col.Name] = strings.TrimSuffix(strings.TrimPrefix(col.Codec, "CODEC("), ")")
		alters = append(alters, "MODIFY COLUMN "+col.Name+" REMOVE CODEC")
	}
	if err := c.Exec(ctx, "ALTER TABLE event_log "+strings.Join(alters, ", ")); err != nil {
		return nil, err
	}
	for from := 0; from < b.cfg.rows; from += b.cfg.batch {
		if err := c.Exec(ctx, b.write("event_log", from)); err != nil {
			return nil, err
		}
	}
	if _, err := b.merge(ctx, plain.database); err != nil {
		return nil, err
	}
	b.say("merged: %s", plain.name)
	a, err = c.Ask(ctx, `SELECT column AS Name, sumIf(column_data_compressed_bytes, database = 'bench_bare') / sumIf(rows, database = 'bench_bare') AS Chosen,
    sumIf(column_data_compressed_bytes, database = 'bench_plain') / sumIf(rows, database = 'bench_plain') AS Plain
FROM system.parts_columns WHERE database IN ('bench_bare', 'bench_plain') AND table = 'event_log' AND active GROUP BY column ORDER BY min(column_position)`, "")
	if err != nil {
		return nil, err
	}
	var chosen, plainly float64
	for _, line := range a.Data {
		var col struct {
			Name          string
			Chosen, Plain float64
		}
		if err := json.Unmarshal(line, &col); err != nil {
			return nil, err
		}
		t.add(col.Name, codecs[col.Name], col.Plain, col.Chosen)
		chosen, plainly = chosen+col.Chosen, plainly+col.Plain
	}
	t.add("all", "", plainly, chosen)
	return t, nil
}
