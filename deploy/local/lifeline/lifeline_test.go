package lifeline

import (
	"context"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContext(t *testing.T) {
	r, w := io.Pipe()
	ctx, stop := Context(t.Context(), r, time.Hour)
	_, err := io.WriteString(w, "whatever is written means nothing")
	require.NoError(t, err)
	require.NoError(t, ctx.Err())
	require.NoError(t, w.Close())
	<-ctx.Done()
	require.ErrorIs(t, context.Cause(ctx), ErrParent)
	stop()

	ctx, stop = Context(t.Context(), nil, time.Hour)
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGTERM))
	<-ctx.Done()
	require.ErrorIs(t, context.Cause(ctx), ErrSignal)
	stop()

	ctx, stop = Context(t.Context(), nil, time.Hour)
	stop()
	require.ErrorIs(t, ctx.Err(), context.Canceled)
}
