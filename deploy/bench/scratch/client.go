// Package scratch gives a benchmark a ClickHouse engine of its own and asks it
// questions.
package scratch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	schema "sluice/schemas/clickhouse"
)

// Client asks a ClickHouse over HTTP, as an analyst's tool does.
type Client struct {
	// URL is http://HOST:PORT.
	URL string
	// Database is where tables without one are looked for.
	Database string
}

// Answer is one, as FORMAT JSON has it.
type Answer struct {
	Data       []json.RawMessage
	Statistics struct {
		RowsRead  int64 `json:"rows_read"`
		BytesRead int64 `json:"bytes_read"`
	}
	// Took is from the request's start to the answer's last byte.
	Took time.Duration `json:"-"`
}

// Ask asks one question, with settings like "name = value, name = value" or none.
// Nothing that an earlier asking left behind may answer it, but what the operating
// system keeps of the files.
func (c Client) Ask(ctx context.Context, query string, settings string) (*Answer, error) {
	params := url.Values{"database": {c.Database}, "default_format": {"JSON"}, "use_query_cache": {"0"}, "use_query_condition_cache": {"0"}, "output_format_json_quote_64bit_integers": {"1"}}
	for _, kv := range strings.Split(settings, ", ") {
		if name, value, ok := strings.Cut(kv, " = "); ok {
			params.Set(name, value)
		}
	}
	begin := time.Now()
	text, err := c.post(ctx, params, query)
	took := time.Since(begin)
	if err != nil {
		return nil, err
	}
	a := Answer{Took: took}
	if err := json.Unmarshal(text, &a); err != nil {
		return nil, fmt.Errorf("%w in the answer %.200s", err, text)
	}
	return &a, nil
}

// One reads the one row of an answer.
func (c Client) One(ctx context.Context, query string, into any) error {
	a, err := c.Ask(ctx, query, "")
	if err != nil {
		return err
	}
	if len(a.Data) != 1 {
		return fmt.Errorf("%d rows where one was wanted: %s", len(a.Data), query)
	}
	return json.Unmarshal(a.Data[0], into)
}

// Exec runs a statement, with the settings of an INSERT of events.
func (c Client) Exec(ctx context.Context, statement string) error {
	params := url.Values{"database": {c.Database}, "max_memory_usage": {"4000000000"}}
	for name, value := range schema.InsertSettings() {
		params.Set(name, fmt.Sprint(value))
	}
	_, err := c.post(ctx, params, statement)
	return err
}

// Migrate makes the tables that Sluice has.
func (c Client) Migrate(ctx context.Context) error {
	if err := (Client{c.URL, "default"}).Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+c.Database); err != nil {
		return err
	}
	migrations, err := schema.Migrations()
	if err != nil {
		return err
	}
	for _, m := range migrations {
		for _, s := range m.Statements {
			if err := c.Exec(ctx, s); err != nil {
				return fmt.Errorf("migration %d: %w", m.Version, err)
			}
		}
	}
	return nil
}

func (c Client) post(ctx context.Context, params url.Values, query string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL+"/?"+params.Encode(), strings.NewReader(query))
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK:
		return nil, errors.New(string(bytes.TrimSpace(text)))
	}
	return text, nil
}
