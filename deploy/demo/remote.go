package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// answerBytes is how much of an answer is read: far more than any of ours has.
const answerBytes = 8 << 20

// posted is what became of a batch: how many events were accepted, which is all
// of them, and how many of these the edge knew to be in the log already, so that
// it wrote no record of them.
type posted struct{ accepted, known int }

func (p posted) records() int { return p.accepted - p.known }

// post sends NDJSON events in one batch. One that is not accepted is an error.
func (d demo) post(ctx context.Context, body []byte, coding string) (posted, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.edge+"/api/events/batch", bytes.NewReader(body))
	if err != nil {
		return posted{}, err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Prefer", "return=minimal") // leave the accepted items out of the answer
	if coding != "" {
		req.Header.Set("Content-Encoding", coding)
	}
	status, text, err := d.do(req)
	if err != nil {
		return posted{}, fmt.Errorf("posting the events: %w", err)
	}
	var answer struct{ Accepted, Deduplicated, Rejected, Failed int }
	if status != http.StatusOK && status != http.StatusAccepted {
		return posted{}, fmt.Errorf("posting the events: the edge answered %d: %s", status, shorten(text))
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return posted{}, fmt.Errorf("the edge's answer is no JSON: %w", err)
	}
	if answer.Rejected > 0 || answer.Failed > 0 || answer.Accepted == 0 {
		return posted{}, fmt.Errorf("the edge accepted %d events, rejected %d, failed %d: %s", answer.Accepted, answer.Rejected, answer.Failed, shorten(text))
	}
	return posted{answer.Accepted, answer.Deduplicated}, nil
}

// query asks ClickHouse.
func (d demo) query(ctx context.Context, sql string) (*table, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.clickhouse+"/?default_format=JSONCompact", strings.NewReader(sql))
	if err != nil {
		return nil, err
	}
	status, text, err := d.do(req)
	if err != nil {
		return nil, fmt.Errorf("ClickHouse: %w", err)
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("ClickHouse answered %d: %s", status, shorten(text))
	}
	return parse(text)
}

// records is how many records the consumer has decided so far.
func (d demo) records(ctx context.Context) (int64, error) {
	t, err := d.query(ctx, "SELECT sum(records) AS records FROM sluice.balance")
	if err != nil {
		return 0, err
	}
	text, err := t.only("records")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the balance's records: %w", err)
	}
	return n, nil
}

// arrived waits until the balance speaks of at least want records.
func (d demo) arrived(ctx context.Context, want int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.wait, fmt.Errorf("gave up after %s", d.wait))
	defer cancel()
	var have int64
	for {
		n, err := d.records(ctx)
		if err == nil {
			have = n
		} else if ctx.Err() == nil {
			return err
		}
		if have >= want {
			return nil
		}
		select {
		case <-time.After(d.poll):
		case <-ctx.Done():
			return fmt.Errorf("sluice.balance has %d records, and %d were expected: %w; look at what the consumer logs in the terminal of make run",
				have, want, context.Cause(ctx))
		}
	}
}

func (d demo) do(req *http.Request) (status int, body []byte, err error) {
	resp, err := d.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, answerBytes))
	_ = resp.Body.Close() // what was read stands
	return resp.StatusCode, body, err
}

// shorten keeps an answer that is shown in an error to a few lines.
func shorten(text []byte) string {
	const most = 600
	s := strings.TrimSpace(string(text))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + " …"
	}
	return s
}
