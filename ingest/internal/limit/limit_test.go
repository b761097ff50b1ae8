package limit

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var clock = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// TestBucketOwes: more than the burst is let in, and owed.
func TestBucketOwes(t *testing.T) {
	b := NewBucket(10, 20)
	ok, _ := b.Take(clock, 50)
	require.True(t, ok)
	ok, wait := b.Take(clock, 1)
	require.False(t, ok)
	require.Equal(t, 3100*time.Millisecond, wait.Round(time.Millisecond))
	ok, _ = b.Take(clock.Add(wait), 1)
	require.True(t, ok, "what Retry-After says is not true")
}

// TestBucketRate: whatever is asked for and when, no one gets more than burst,
// rate times the time, and one request beyond.
func TestBucketRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0.5, 1000).Draw(t, "rate")
		burst := rapid.IntRange(1, 2000).Draw(t, "burst")
		b := NewBucket(rate, burst)
		now := clock
		got, last := 0, 0
		for range rapid.IntRange(1, 50).Draw(t, "requests") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(t, "pause")))
			n := rapid.IntRange(0, 5000).Draw(t, "n")
			if ok, wait := b.Take(now, n); ok {
				got, last = got+n, n
			} else if wait <= 0 {
				t.Fatal("refused, and yet nothing to wait for")
			}
			if most := float64(burst) + rate*now.Sub(clock).Seconds() + float64(last) + 1; float64(got) > most {
				t.Fatalf("%d events let in, at most %v", got, most)
			}
		}
	})
}

func TestBucketHeader(t *testing.T) {
	b := NewBucket(10, 20)
	h := http.Header{}
	b.SetHeader(h, clock)
	require.Equal(t, `"events";q=20;w=2`, h.Get("RateLimit-Policy"))
	require.Equal(t, `"events";r=20`, h.Get("RateLimit"))
	b.Take(clock, 45)
	b.SetHeader(h, clock)
	require.Equal(t, `"events";r=0;t=3`, h.Get("RateLimit"))
	b.SetHeader(h, clock.Add(3*time.Second))
	require.Equal(t, `"events";r=5;t=1`, h.Get("RateLimit"))
}

func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

func TestFailures(t *testing.T) {
	f := NewFailures(1, 3, 100)
	for i := range 5 {
		allowed, tell := f.Add(clock, address(1))
		require.Equal(t, i < 3, allowed)
		require.Equal(t, i == 0, tell)
	}
	allowed, _ := f.Add(clock, address(2))
	require.True(t, allowed, "one address is held up by another")
	allowed, tell := f.Add(clock.Add(time.Minute), address(1))
	require.True(t, allowed)
	require.True(t, tell)
}

// TestFailuresBounded: however many addresses come, as many are known as may be;
// the longest unseen go first.
func TestFailuresBounded(t *testing.T) {
	f := NewFailures(1, 1, 10)
	for i := range 100_000 {
		f.Add(clock, address(i))
		f.Add(clock, address(99_999_9)) // seen all the time
	}
	require.Len(t, f.seen, 10)
	allowed, _ := f.Add(clock, address(99_999_9))
	require.False(t, allowed)
	n := 1
	for a := f.old.next; a != f.old; a = a.next {
		n++
	}
	require.Equal(t, 10, n)
}

func TestNetwork(t *testing.T) {
	for from, want := range map[string]string{
		"10.0.0.1": "10.0.0.1", "::ffff:10.0.0.1": "10.0.0.1",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "fe80::1%eth0": "fe80::",
	} {
		require.Equal(t, want, Network(netip.MustParseAddr(from)).String())
	}
	require.False(t, AddressOf("nonsense").IsValid())
	require.Equal(t, "::1", AddressOf("[::1]:80").String())
}

// fakeListener accepts connections that say where they come from.
type fakeListener struct {
	net.Listener
	conns []net.Conn
}

func (l *fakeListener) Accept() (net.Conn, error) {
	if len(l.conns) == 0 {
		return nil, errors.New("no more")
	}
	c := l.conns[0]
	l.conns = l.conns[1:]
	return c, nil
}

type fakeConn struct {
	net.Conn
	from   string
	closed int
}

func (c *fakeConn) RemoteAddr() net.Addr { return fakeAddr(c.from) }
func (c *fakeConn) Close() error         { c.closed++; return nil }

type fakeAddr string

func (fakeAddr) Network() string  { return "tcp" }
func (a fakeAddr) String() string { return string(a) }

func TestListener(t *testing.T) {
	a, b, c, d := &fakeConn{from: "10.0.0.1:1"}, &fakeConn{from: "10.0.0.1:2"}, &fakeConn{from: "10.0.0.1:3"}, &fakeConn{from: "10.0.0.2:1"}
	refused := 0
	inner := &fakeListener{conns: []net.Conn{a, b, c, d}}
	l := NewListener(inner, 2, func() { refused++ })
	first, err := l.Accept()
	require.NoError(t, err)
	_, err = l.Accept()
	require.NoError(t, err)
	third, err := l.Accept()
	require.NoError(t, err)
	require.Equal(t, "10.0.0.2:1", third.RemoteAddr().String())
	require.Equal(t, 1, refused)
	require.Equal(t, 1, c.closed)

	// A place is given back once, however often its connection is closed.
	require.NoError(t, first.Close())
	require.NoError(t, first.Close())
	inner.conns = []net.Conn{&fakeConn{from: "10.0.0.1:4"}, &fakeConn{from: "10.0.0.1:5"}}
	_, err = l.Accept()
	require.NoError(t, err)
	_, err = l.Accept()
	require.Error(t, err)
	require.Equal(t, 2, refused)
}
