package proxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server counts the requests that it has done.
func server(t *testing.T) (addr string, done *atomic.Int64) {
	done = &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			return // torn
		}
		done.Add(1)
		fmt.Fprint(w, "done")
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://"), done
}

func listen(t *testing.T, cfg Config) *Proxy {
	t.Helper()
	p, err := Listen(cfg)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

const insert = "/?query=INSERT+INTO+event_log+FORMAT+Native"

// post sends a body and returns the answer, "" when there was none.
func post(t *testing.T, client *http.Client, p *Proxy, path string) string {
	t.Helper()
	// Without GetBody the client does not try again by itself.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.Addr()+path, struct{ io.Reader }{strings.NewReader(strings.Repeat("x", 20_000))})
	require.NoError(t, err)
	resp, err := client.Do(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	return string(text)
}

func TestHTTP(t *testing.T) {
	addr, done := server(t)
	p := listen(t, Config{Target: addr, Client: "c"})
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	require.Equal(t, "done", post(t, client, p, insert))
	require.EqualValues(t, 1, done.Load())

	// The server does the work, the client does not hear of it; other kinds and
	// other clients are let alone.
	p.LoseAnswers("c", Rows, 1)
	p.LoseAnswers("another", Any, 1)
	require.Equal(t, "done", post(t, client, p, "/?query=SELECT+1"))
	require.Empty(t, post(t, client, p, insert))
	require.EqualValues(t, 3, done.Load(), "the work was done")
	require.Equal(t, "done", post(t, client, p, insert))

	// A torn request is not done.
	p.TearRequests("c", Rows, 1, 300)
	require.Empty(t, post(t, client, p, insert))
	require.EqualValues(t, 4, done.Load())
	require.Equal(t, "done", post(t, client, p, insert))

	// What was not used up is forgotten.
	p.LoseAnswers("c", Any, 100)
	p.TearRequests("c", Any, 100, 0)
	p.Stall("c", Both, time.Hour)
	p.Delay("c", Both, time.Hour, time.Hour)
	p.Clear()
	require.Equal(t, "done", post(t, client, p, insert))
	require.Equal(t, Counts{Connections: 3, Lost: 1, Torn: 1}, p.Counts())
}

func TestStall(t *testing.T) {
	for _, d := range []Direction{Up, Down} {
		t.Run(d.String(), func(t *testing.T) {
			addr, done := server(t)
			p := listen(t, Config{Target: addr, Client: "c"})
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			p.Stall("c", d, time.Hour)
			answer := make(chan string)
			go func() { answer <- post(t, client, p, insert) }()
			if d == Down { // the request passes, the answer does not
				require.Eventually(t, func() bool { return done.Load() == 1 }, 20*time.Second, time.Millisecond)
			}
			select {
			case a := <-answer:
				t.Fatalf("it passed: %q", a)
			case <-time.After(50 * time.Millisecond):
			}
			p.Clear()
			require.Equal(t, "done", <-answer)
		})
	}
}

// A proxy that is closed lets go of everything, stalled or not, and one whose
// server is away ends connections at once.
func TestClose(t *testing.T) {
	addr, _ := server(t)
	p := listen(t, Config{Target: addr, Client: "c"})
	p.Stall("c", Both, time.Hour)
	silent, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.Addr())
	require.NoError(t, err)
	defer silent.Close()
	answer := make(chan string)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	go func() { answer <- post(t, client, p, insert) }()
	time.Sleep(20 * time.Millisecond)
	p.Close()
	require.Empty(t, <-answer)

	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	away := listen(t, Config{Target: l.Addr().String(), Client: "c"})
	require.Empty(t, post(t, client, away, insert))
}

// kafka answers each frame with its correlation id, and tells which keys it saw.
func kafka(t *testing.T) (addr string, saw func() []int16) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var mu sync.Mutex
	var keys []int16
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() {
				defer c.Close()
				for {
					b, err := frame(c)
					if err != nil {
						return
					}
					key, correlation, _, _ := kafkaRequest(b[4:])
					mu.Lock()
					keys = append(keys, key)
					mu.Unlock()
					_, _ = c.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 4}, uint32(correlation))) // it may be cut
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); tasks.Wait() })
	return l.Addr().String(), func() []int16 {
		mu.Lock()
		defer mu.Unlock()
		return append([]int16(nil), keys...)
	}
}

func ask(client string, key int16, correlation uint32) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(key))
	b = binary.BigEndian.AppendUint16(b, 9)
	b = binary.BigEndian.AppendUint32(b, correlation)
	b = binary.BigEndian.AppendUint16(b, uint16(len(client)))
	b = append(b, client+" and a body"...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// Kafka's clients are told apart by the id they send, and their answers by what
// they answer, however many are under way.
func TestKafka(t *testing.T) {
	addr, saw := kafka(t)
	p := listen(t, Config{Target: addr, Kafka: true})
	dial := func() net.Conn {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.Addr())
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
		return c
	}
	answers := func(c net.Conn) (ids []uint32) {
		r := bufio.NewReader(c)
		for {
			b, err := frame(r)
			if err != nil {
				return ids
			}
			ids = append(ids, binary.BigEndian.Uint32(b[4:]))
		}
	}
	const produce, commit = 0, 8
	p.LoseAnswers("one", Commit, 1)
	one, two := dial(), dial()
	for i, key := range []int16{18, produce, commit} {
		_, err := one.Write(ask("one", key, uint32(i)))
		require.NoError(t, err)
	}
	require.Equal(t, []uint32{0, 1}, answers(one))
	require.Equal(t, []int16{18, produce, commit}, saw(), "the commit was done")
	_, err := two.Write(ask("two", commit, 7))
	require.NoError(t, err)
	b, err := frame(two)
	require.NoError(t, err)
	require.EqualValues(t, 7, binary.BigEndian.Uint32(b[4:]))

	p.Cut("one") // has no connection any more
	_, err = two.Write(ask("two", produce, 8))
	require.NoError(t, err)
	_, err = frame(two)
	require.NoError(t, err)
	p.Cut("two")
	require.Empty(t, answers(two))

	p.TearRequests("one", Produce, 1, 9)
	again := dial()
	_, err = again.Write(ask("one", produce, 1))
	require.NoError(t, err)
	require.Empty(t, answers(again))
	require.Equal(t, []int16{18, produce, commit, commit, produce}, saw(), "a torn request is not done")
	counts := p.Counts()
	require.Contains(t, []int{1, 2}, counts.Cut, "the lost connection of one may not have been gone yet when it was cut")
	counts.Cut = 1
	require.Equal(t, Counts{Connections: 3, Cut: 1, Lost: 1, Torn: 1}, counts)
}

func TestHTTPKind(t *testing.T) {
	for text, want := range map[string]string{
		"POST /api/events/batch HTTP/1.1\r\nHost: x":                                            Post,
		"POST /?database=sluice&query=INSERT+INTO+event_log+%28a%29+FORMAT+Native HTTP/1.1\r\n": Rows,
		"POST /?query=INSERT+INTO+journal+%28a%29 HTTP/1.1\r\n":                                 Journal,
		"POST /?database=sluice HTTP/1.1\r\n\r\nSELECT 1":                                       Other,
		"GET /ping HTTP/1.1\r\n":                                                                Other,
		"the rest of a body, event_log":                                                         "",
	} {
		require.Equal(t, want, httpKind([]byte(text)), text)
	}
}

// The local broker never expires a member whose connection was reset while its
// answer to JoinGroup was due: that answer is where its session begins. So the
// broker's side stays open for a while, and is read.
func TestLinger(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	p := listen(t, Config{Target: l.Addr().String(), Kafka: true, Linger: time.Hour})
	client, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.Addr())
	require.NoError(t, err)
	_, err = client.Write(ask("one", 11, 1))
	require.NoError(t, err)
	server, err := l.Accept()
	require.NoError(t, err)
	defer server.Close()
	_, err = frame(server)
	require.NoError(t, err)
	client.Close()
	large := append(binary.BigEndian.AppendUint32(nil, 8<<20), make([]byte, 8<<20)...)
	require.NoError(t, server.SetWriteDeadline(time.Now().Add(20*time.Second)))
	for range 3 {
		_, err = server.Write(large)
		require.NoError(t, err, "it is open and read")
	}
	p.Close()
	require.NoError(t, server.SetReadDeadline(time.Now().Add(20*time.Second)))
	_, err = server.Read(make([]byte, 1))
	require.Error(t, err)
}
