package migrate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/deploy/local/enginetest"
	schema "sluice/schemas/clickhouse"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestUpTwiceChangesNothing(t *testing.T) {
	e := enginetest.Start(t)
	d := in(t, e, "sluice")
	first := d.up()
	require.Contains(t, first, "created the database sluice")
	migrations, err := schema.Migrations()
	require.NoError(t, err)
	require.Len(t, first, 1+len(migrations), "the database and each migration")
	require.NoError(t, Check(t.Context(), d.conn))
	before := d.objects()
	for _, name := range []string{schema.EventLog, schema.Journal, schema.Operations, schema.Events, schema.EventConflicts, schema.Balance, schema.EventsPerMinute, schema.EventsPerHour, schema.EventsPerDay, schema.DailyActives, schema.SourceDailyActives, schema.EventsPhysical, schema.EventsGuard, schema.LateEventsPerDay} {
		require.Contains(t, before, name, "the constant names what exists")
	}
	require.Equal(t, []string{fmt.Sprintf("the schema is at version %d, nothing to do", len(migrations))}, d.up())
	require.Empty(t, cmp.Diff(before, d.objects()))
}

// cut is a connection that breaks at a statement: every Exec from the nth on
// fails, the nth either before it reaches the server or after it was carried
// out.
type cut struct {
	driver.Conn
	left  int
	after bool
}

var errCut = errors.New("the connection broke")

func (c *cut) Exec(ctx context.Context, query string, args ...any) error {
	c.left--
	if c.left > 0 || c.left == 0 && c.after {
		if err := c.Conn.Exec(ctx, query, args...); err != nil {
			return err
		}
	}
	if c.left <= 0 {
		return errCut
	}
	return nil
}

func silent(string) {}

// A run killed between any two statements is finished by the next one, whether
// the last statement reached the server or not.
func TestEveryHalfDoneRunIsFinished(t *testing.T) {
	e := enginetest.Start(t)
	whole := in(t, e, "whole")
	whole.up()
	want := whole.objects()
	migrations, err := schema.Migrations()
	require.NoError(t, err)
	execs := 1 // the table of records
	for _, m := range migrations {
		execs += 2 + len(m.Statements)
	}
	for n := 1; n <= execs; n++ {
		for _, after := range []bool{false, true} {
			if n%4 != 0 && after == (n%2 == 0) {
				continue // each way for half of the places, both for some: each is a whole schema
			}
			d := in(t, e, fmt.Sprintf("half_%d_%t", n, after))
			require.NoError(t, createDatabase(t.Context(), *d.options(), "", silent))
			err := up(t.Context(), &cut{Conn: d.conn, left: n, after: after}, "", silent)
			require.ErrorIs(t, err, errCut, "statement %d", n)
			if n < execs || !after {
				require.ErrorIs(t, Check(t.Context(), d.conn), ErrOutdated, "statement %d", n)
			}
			d.up()
			require.NoError(t, Check(t.Context(), d.conn))
			require.Empty(t, cmp.Diff(want, d.objects(), cmp.Transformer("database", func(s string) string {
				return without(s, d.name, whole.name)
			})), "statement %d", n)
			d.exec("DROP DATABASE " + d.name + " SYNC")
		}
	}
	require.NoError(t, up(t.Context(), &cut{Conn: whole.conn, left: 2}, "", silent), "a whole schema needs one statement only")
}

func TestRunsAtTheSameTimeDoNoHarm(t *testing.T) {
	e := enginetest.Start(t)
	d := in(t, e, "sluice")
	var wg sync.WaitGroup
	failed := make([]error, 6)
	for i := range failed {
		wg.Go(func() { failed[i] = Up(context.Background(), d.dsn, silent) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(failed...))
	require.NoError(t, Check(t.Context(), d.conn))
	whole := in(t, e, "whole")
	whole.up()
	require.Empty(t, cmp.Diff(whole.objects(), d.objects(), cmp.Transformer("database", func(s string) string {
		return without(s, d.name, whole.name)
	})))
}

func TestWhatIsRefused(t *testing.T) {
	e := enginetest.Start(t)
	for _, tt := range []struct {
		name string
		do   string
		want error
		says string
	}{
		{name: "missing", do: "SELECT 1"},
		{name: "newer", do: "INSERT INTO schema_migrations (version, name, checksum, state) VALUES (999, 'from_the_future', 'x', 'done')",
			want: ErrNewer, says: "0999 from_the_future"},
		{name: "newer_begun", do: "INSERT INTO schema_migrations (version, name, checksum, state) VALUES (1000, 'from_the_future', 'x', 'begun')",
			want: ErrNewer, says: "start the newer program"},
		{name: "drift", do: "INSERT INTO schema_migrations (version, name, checksum, state) VALUES (2, 'journal', 'feedbeef', 'done')",
			want: ErrDrift, says: "0002 journal was applied with checksum feedbeef"},
		{name: "begun_otherwise", do: "INSERT INTO schema_migrations (version, name, checksum, state) VALUES (2, 'journal', 'feedbeef', 'begun')"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := in(t, e, tt.name)
			d.up()
			d.exec(tt.do)
			before := d.objects()
			check, again := Check(t.Context(), d.conn), Up(t.Context(), d.dsn, silent)
			require.Empty(t, cmp.Diff(before, d.objects()))
			if tt.want == nil {
				require.NoError(t, check)
				require.NoError(t, again)
				return
			}
			for _, err := range []error{check, again} {
				require.ErrorIs(t, err, tt.want)
				require.ErrorContains(t, err, tt.says)
			}
		})
	}
}

func TestCheckOfADatabaseNeverMigrated(t *testing.T) {
	e := enginetest.Start(t)
	d := in(t, e, "default")
	err := Check(t.Context(), d.conn)
	require.ErrorIs(t, err, ErrOutdated)
	require.ErrorContains(t, err, "consumer migrate")
	status, err := Status(t.Context(), d.conn)
	require.NoError(t, err)
	require.NotEmpty(t, status)
	require.False(t, status[0].Done)
	require.NotContains(t, d.up(), "created the database default")
	status, err = Status(t.Context(), d.conn)
	require.NoError(t, err)
	require.True(t, status[len(status)-1].Done)
	require.False(t, status[len(status)-1].At.IsZero())
}

func TestQuoted(t *testing.T) {
	require.Equal(t, "`a`", quoted("a"))
	require.Equal(t, "`a\\`b\\\\c`", quoted("a`b\\c"))
}
