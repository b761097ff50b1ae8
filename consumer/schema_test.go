package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/migrate"
)

// TestAwaitSchema: the engine may be away at any of the questions a start asks.
// A consumer once ended with exit 1 when it went between the first and the
// second, since only the first was waited for.
func TestAwaitSchema(t *testing.T) {
	unknownTable := &clickhouse.Exception{Code: 60, Message: "no such table"}
	for _, c := range []struct {
		name  string
		looks []error
		err   error
	}{
		{"there", []error{nil}, nil},
		{"away, then there", []error{io.EOF, io.ErrUnexpectedEOF, nil}, nil},
		{"busy, then there", []error{&clickhouse.Exception{Code: 202, Message: "too many queries"}, nil}, nil},
		{"older", []error{fmt.Errorf("x: %w", migrate.ErrOutdated)}, migrate.ErrOutdated},
		{"newer, seen after it was away", []error{io.EOF, migrate.ErrNewer}, migrate.ErrNewer},
		{"of other statements", []error{migrate.ErrDrift}, migrate.ErrDrift},
		{"no access", []error{unknownTable}, unknownTable},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				looked, waited := 0, 0
				err := awaitSchema(t.Context(), func(context.Context) error {
					looked++
					return c.looks[looked-1]
				}, func(error) { waited++ }, slog.New(slog.DiscardHandler))
				require.ErrorIs(t, err, c.err)
				require.Equal(t, len(c.looks), looked)
				require.Equal(t, looked-1, waited, "what it waits for must be shown")
			})
		})
	}
}
