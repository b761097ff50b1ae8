package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"sluice/deploy/local/supervise"
)

// figures are what the consumers say of themselves, all of them together.
type figures struct {
	ends    map[int]map[int32]int64 // by consumer and partition it owns: the first offset not journaled, -1 when not known
	batches float64
	rows    float64
}

// journaled is how many records are decided.
func (f figures) journaled() (n int64) {
	most := map[int32]int64{}
	for _, ends := range f.ends {
		for p, end := range ends {
			most[p] = max(most[p], end)
		}
	}
	for _, end := range most {
		n += end
	}
	return n
}

// figures asks every consumer.
func (s *stack) figures() (figures, error) {
	all := figures{ends: map[int]map[int32]int64{}}
	for n, m := range s.consumers {
		st, err := m.status(s.ctx)
		if err != nil {
			return all, fmt.Errorf("%s: %w", m.name, err)
		}
		all.ends[n] = map[int32]int64{}
		for _, p := range st.Partitions {
			all.ends[n][p.Partition] = p.Next
		}
		metrics, err := m.metrics(s.ctx)
		if err != nil {
			return all, fmt.Errorf("%s: %w", m.name, err)
		}
		for _, metric := range metrics["sluice_consumer_batches_total"].GetMetric() {
			all.batches += metric.GetCounter().GetValue()
		}
		for _, metric := range metrics["sluice_consumer_rows_written_total"].GetMetric() {
			all.rows += metric.GetCounter().GetValue()
		}
	}
	return all, nil
}

// status is what a consumer's admin port says at /status.
type status struct {
	Ready      bool   `json:"ready"`
	Reason     string `json:"reason"`
	Partitions []struct {
		Partition int32 `json:"partition"`
		Next      int64 `json:"next"`
	} `json:"partitions"`
}

func (m *member) status(ctx context.Context) (s status, err error) {
	var text bytes.Buffer
	if err := get(ctx, "http://"+m.admin+"/status", &text); err != nil {
		return s, err
	}
	return s, json.Unmarshal(text.Bytes(), &s)
}

func (m *member) metrics(ctx context.Context) (map[string]*dto.MetricFamily, error) {
	return metrics(ctx, m.admin)
}

// metrics are what the program of that admin address says of itself.
func metrics(ctx context.Context, admin string) (map[string]*dto.MetricFamily, error) {
	var text bytes.Buffer
	if err := get(ctx, "http://"+admin+"/metrics", &text); err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(&text)
}

// balanced waits until every consumer is ready and all partitions are owned, each
// consumer having its share.
func (s *stack) balanced() error {
	return s.await("consumers", func(ctx context.Context) error {
		total := 0
		for _, m := range s.consumers {
			st, err := m.status(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			n, share := len(st.Partitions), s.partitions/len(s.consumers)
			if !st.Ready {
				return fmt.Errorf("%s is not ready: %s", m.name, st.Reason)
			}
			if n < share || n > share+1 {
				return fmt.Errorf("%s owns %d of %d partitions", m.name, n, s.partitions)
			}
			total += n
		}
		if total != s.partitions {
			return fmt.Errorf("%d of %d partitions are owned", total, s.partitions)
		}
		return nil
	})
}

// reading is all that is looked at before and after what is measured.
type reading struct {
	at time.Time
	figures
	rowParts, journal parts
	cpu, engine       time.Duration // taken so far, by the consumers and by ClickHouse
}

func (s *stack) reading() (r reading, err error) {
	if r.rowParts, err = s.parts("event_log"); err != nil {
		return r, err
	}
	if r.journal, err = s.parts("journal"); err != nil {
		return r, err
	}
	r.at = time.Now()
	if r.figures, err = s.figures(); err != nil {
		return r, err
	}
	for _, m := range s.consumers {
		cpu, _, err := m.used()
		if err != nil {
			return r, err
		}
		r.cpu += cpu
	}
	r.engine, _, err = s.engine.used()
	return r, err
}

// profile records where the program of that admin address spends its time, for so
// long from now on, and what its heap holds then, if profiles are wanted. The channel
// tells when it is done.
func (b *bench) profile(ctx context.Context, admin, name string, lasting time.Duration) <-chan error {
	done := make(chan error, 1)
	if b.cfg.profile == "" {
		done <- nil
		return done
	}
	go func() {
		done <- func() error {
			if err := os.MkdirAll(b.cfg.profile, 0o755); err != nil {
				return err
			}
			record := func(name, of string) error {
				file, err := os.Create(filepath.Join(b.cfg.profile, name+".pprof"))
				if err != nil {
					return err
				}
				defer file.Close()
				return get(ctx, "http://"+admin+"/debug/pprof/"+of, io.Writer(file))
			}
			return errors.Join(record(name, fmt.Sprintf("profile?seconds=%d", max(1, int(lasting.Seconds())))), record(name+"-heap", "heap"))
		}()
	}()
	return done
}

// drained waits until n records are decided. bound is how long that may take.
func (s *stack) drained(n int, bound time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(s.ctx, bound, fmt.Errorf("not decided within %s", bound))
	defer cancel()
	return supervise.Await(ctx, func(context.Context) error {
		f, err := s.figures()
		if err != nil {
			return err
		}
		if got := f.journaled(); got < int64(n) {
			return fmt.Errorf("%d of %d records", got, n)
		}
		return nil
	})
}

// parts are how many parts a table has and how many INSERTs have made so far: a
// part's name has the numbers of the blocks in it, which count up by table.
type parts struct{ active, made uint64 }

func (s *stack) parts(table string) (p parts, err error) {
	err = s.conn.QueryRow(s.ctx, `SELECT countIf(active), toUInt64(max(max_block_number)) FROM system.parts
		WHERE database = currentDatabase() AND table = ?`, table).Scan(&p.active, &p.made)
	if err != nil {
		return p, fmt.Errorf("parts of %s: %w", table, err)
	}
	return p, nil
}

// age is how old records were when their rows were written, by what the rows say:
// from the record's timestamp, which is when it was due to be produced, to the
// server's time when the INSERT had arrived.
type age struct{ p50, p99, most time.Duration }

// ages looks at the rows of one partition (-1: all) from one time on.
func (s *stack) ages(partition int, from time.Time) (a age, err error) {
	var q []int64
	var most int64
	err = s.conn.QueryRow(s.ctx, `WITH toUnixTimestamp64Milli(inserted_at) - toUnixTimestamp64Milli(record_timestamp) AS ms
		SELECT arrayMap(x -> toInt64(x), quantilesExact(0.5, 0.99)(ms)), max(ms) FROM event_log
		WHERE (partition = ? OR ? < 0) AND record_timestamp >= fromUnixTimestamp64Milli(?)`,
		int32(partition), partition, from.UnixMilli()).Scan(&q, &most)
	if err != nil {
		return a, fmt.Errorf("the rows' ages: %w", err)
	}
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	return age{ms(q[0]), ms(q[1]), ms(most)}, nil
}

// holds fails unless event_log has exactly so many rows, each of another event:
// what is fast and wrong is not worth a figure.
func (s *stack) holds(rows int) error {
	var all, distinct uint64
	err := s.conn.QueryRow(s.ctx, "SELECT count(), uniqExact(event_id) FROM event_log").Scan(&all, &distinct)
	if err != nil {
		return fmt.Errorf("counting rows: %w", err)
	}
	if all != uint64(rows) || distinct != uint64(rows) {
		return fmt.Errorf("event_log has %d rows of %d events, want %d of each", all, distinct, rows)
	}
	return nil
}
