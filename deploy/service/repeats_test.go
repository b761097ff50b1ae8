package service

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func lines(b *strings.Builder) []string {
	defer b.Reset()
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
}

// TestRepeats: of equal lines five are written in ten seconds, then how many more
// there were. A broker that is away makes the same line for every connection.
func TestRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		r := NewRepeats(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		log := slog.New(r)
		kafka := log.With("part", "kafka")
		for range 100 {
			kafka.Warn("away", "broker", 1)
			time.Sleep(10 * time.Millisecond)
		}
		kafka.Warn("away", "broker", 2)
		log.Warn("away", "broker", 1)
		require.Equal(t, []string{
			`level=WARN msg=away part=kafka broker=1`, `level=WARN msg=away part=kafka broker=1`, `level=WARN msg=away part=kafka broker=1`,
			`level=WARN msg=away part=kafka broker=1`, `level=WARN msg=away part=kafka broker=1`,
			`level=WARN msg=away part=kafka broker=2`, `level=WARN msg=away broker=1`,
		}, lines(&out), "what differs is another line")

		time.Sleep(10 * time.Second)
		log.Info("else")
		require.Equal(t, []string{`level=WARN msg=away part=kafka broker=1 repeated=95`, `level=INFO msg=else`}, lines(&out))
		kafka.Warn("away", "broker", 1)
		require.Equal(t, []string{`level=WARN msg=away part=kafka broker=1`}, lines(&out), "a window of its own")

		recent := r.Recent()
		require.Len(t, recent, 3, "no more than warnings and errors")
		require.Equal(t, Logged{At: time.Now(), Level: "WARN", Message: "away", Detail: "part=kafka broker=1", Count: 101}, recent[0])
	})
}

// TestRepeatsBounded: neither kinds nor memories grow without end, and nothing is
// lost that is not counted.
func TestRepeatsBounded(t *testing.T) {
	var out strings.Builder
	r := NewRepeats(slog.NewTextHandler(&out, nil))
	log := slog.New(r)
	for i := range 2 * repeatsKinds {
		log.Error("no " + strconv.Itoa(i))
	}
	require.Len(t, lines(&out), 2*repeatsKinds)
	require.Len(t, r.shared.kinds, repeatsKinds)
	require.Len(t, r.Recent(), recentKinds)
	require.Equal(t, "no "+strconv.Itoa(2*repeatsKinds-1), r.Recent()[0].Message)
	require.False(t, NewRepeats(slog.NewTextHandler(&out, nil)).Enabled(context.Background(), slog.LevelDebug))
}
