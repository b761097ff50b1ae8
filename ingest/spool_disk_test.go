package main

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sluice/ingest/internal/problem"
)

// smallDisk is a folder on a disk of its own, of so many bytes: a tmpfs. Where
// that may not be mounted, TestDiskFails of the spool's package has the same
// errors from a file that fails.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			t.Skip("mounting a tmpfs needs CAP_SYS_ADMIN: run this test as root")
		}
		require.NoError(t, err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// TestSpoolDisk: the disk of the spool is full while the log does not answer:
// posts get a 503 that says when to try again, everything
// accepted is in the topic in the end, and the edge takes events again by itself
// once there is room.
func TestSpoolDisk(t *testing.T) {
	dir := smallDisk(t, 6<<20)
	e := startEdge(t, newControlled(t), spooled(dir))
	thaw := freezeProduce(e.cluster)
	defer thaw()
	next, accepted := 0, map[int]bool{}
	post := func() answer {
		body := strings.Replace(with("payload", `{"a":"`+strings.Repeat("x", 100_000)+`"}`), `"actor_id":"u1"`, fmt.Sprintf(`"actor_id":"u%d"`, next), 1)
		a := e.post(t, "/api/events", []byte(body))
		if a.status == http.StatusAccepted {
			accepted[next] = true
		}
		next++
		return a
	}
	refused := func(kind string) {
		t.Helper()
		for {
			a := post()
			if a.status == http.StatusAccepted {
				continue
			}
			require.Equal(t, http.StatusServiceUnavailable, a.status, "%s", a.body)
			require.Equal(t, problem.TypePrefix+kind, a.problem(t).Type)
			requireRetryAfter(t, a)
			after, err := strconv.Atoi(a.header.Get("Retry-After"))
			require.NoError(t, err)
			require.LessOrEqual(t, after, 300)
			return
		}
	}
	refused("spool-full")
	require.Greater(t, len(accepted), 20)
	require.NotEmpty(t, e.spoolState(t).Problem)

	// Room comes by hand: a file of someone else's is removed. Here, a disk that
	// grows.
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=8388608"))
	require.Eventually(t, func() bool { return post().status == http.StatusAccepted }, 20*time.Second, 50*time.Millisecond)

	refused("spool-full")

	// The log comes back: the drain makes room.
	thaw()
	e.waitDrained(t)
	require.Eventually(t, func() bool { return e.spoolState(t).Problem == "" }, 20*time.Second, 50*time.Millisecond)
	require.Equal(t, http.StatusAccepted, post().status)
	e.waitDrained(t)
	stored := map[string]bool{}
	for _, r := range allRecords(t, e.cluster) {
		stored[string(r.Key)] = true
	}
	for n := range accepted {
		require.True(t, stored[fmt.Sprintf("app:click:u%d:2026-01-02T03:04:05.000000000Z", n)], "event %d was accepted and is not in the topic", n)
	}
	t.Logf("%d events accepted, %d refused", len(accepted), next-len(accepted))
}
