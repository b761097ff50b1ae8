// Package proxy stands between programs and makes what lies between them bad:
// it cuts connections, holds bytes back, delivers half a request, and loses the
// answer to a request that the server has done.
package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Config says what a proxy stands in front of.
type Config struct {
	// Target is the server's address. It need not answer yet.
	Target string
	// Client names whose connections these are. Connections of Kafka's protocol
	// are told apart by the client id they send, so there it is ignored.
	Client string
	// Kafka says that Kafka's protocol is spoken; else it is HTTP.
	Kafka bool
	// Linger is how long the server's side of a connection stays when the
	// client's is gone, as it does where a machine disappears from the network.
	// Default 0: it is reset at once.
	Linger time.Duration
}

// Proxy is one listening address. Its methods are safe for concurrent use.
type Proxy struct {
	cfg      Config
	listener net.Listener
	tasks    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[*conn]struct{}
	faults map[string]*faults // by client
	counts Counts
}

// Counts are what has happened so far.
type Counts struct {
	// Connections were made; of them Cut were cut by [Proxy.Cut], Lost and Torn
	// by [Proxy.LoseAnswers] and [Proxy.TearRequests].
	Connections int `json:"made"`
	Cut         int `json:"cut"`
	Lost        int `json:"answers_lost"`
	Torn        int `json:"requests_torn"`
}

// Listen opens a proxy on a free port of 127.0.0.1. Close it.
func Listen(cfg Config) (*Proxy, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("proxy in front of %s: %w", cfg.Target, err)
	}
	p := &Proxy{cfg: cfg, listener: l, conns: map[*conn]struct{}{}, faults: map[string]*faults{}}
	p.tasks.Go(p.accept)
	return p, nil
}

// Addr is the address that clients connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close cuts everything and returns when nothing of the proxy runs any more.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		c.cut()
		reset(c.up) // it may linger
	}
	p.mu.Unlock()
	p.listener.Close()
	p.tasks.Wait()
}

// Counts tells what has happened so far.
func (p *Proxy) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

// Cut closes every connection of client.
func (p *Proxy) Cut(client string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if c.client == client {
			c.cut()
			p.counts.Cut++
		}
	}
}

// Stall holds everything back that goes the way d, for as long as bound.
func (p *Proxy) Stall(client string, d Direction, bound time.Duration) {
	f, until := p.of(client), time.Now().Add(bound)
	f.change(func() {
		for _, one := range []Direction{Up, Down} {
			if d&one != 0 {
				f.stall[one] = until
			}
		}
	})
}

// Delay holds each piece back that goes the way d by each, for as long as bound.
func (p *Proxy) Delay(client string, d Direction, each, bound time.Duration) {
	f, s := p.of(client), delay{each, time.Now().Add(bound)}
	f.change(func() {
		for _, one := range []Direction{Up, Down} {
			if d&one != 0 {
				f.delay[one] = s
			}
		}
	})
}

// LoseAnswers lets the server do the next n requests of a kind and cuts the
// connection when it answers, so that the client never hears of it.
func (p *Proxy) LoseAnswers(client, kind string, n int) {
	f := p.of(client)
	f.change(func() { f.lose[kind] += n })
}

// TearRequests delivers the first bytes of the next n requests of a kind, then
// cuts the connection.
func (p *Proxy) TearRequests(client, kind string, n, bytes int) {
	f := p.of(client)
	f.change(func() { f.tear[kind] = tear{times: f.tear[kind].times + n, after: bytes} })
}

// Clear ends all faults.
func (p *Proxy) Clear() {
	p.mu.Lock()
	all := make([]*faults, 0, len(p.faults))
	for _, f := range p.faults {
		all = append(all, f)
	}
	p.mu.Unlock()
	for _, f := range all {
		f.change(f.reset)
	}
}

func (p *Proxy) of(client string) *faults {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.faults[client]
	if f == nil {
		f = newFaults()
		p.faults[client] = f
	}
	return f
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.tasks.Go(func() { p.serve(client) })
	}
}

// conn is one connection through the proxy.
type conn struct {
	client string // whose
	up     net.Conn
	down   net.Conn
	faults *faults
	linger time.Duration
	once   sync.Once
	done   chan struct{} // closed by cut

	mu      sync.Mutex
	kinds   map[int32]string // of Kafka's requests not answered yet
	kind    string           // of HTTP's request at hand
	answers bool             // its answer has begun
}

func (c *conn) cut() {
	c.once.Do(func() {
		close(c.done)
		reset(c.down)
		if c.linger == 0 {
			reset(c.up)
		}
		_ = c.up.SetReadDeadline(time.Now().Add(c.linger)) // closed: there is nothing to be read
	})
}

// reset closes a connection so that the other side notices at once and what it
// had not read yet is gone.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // else it closes in the ordinary way
	}
	c.Close()
}

// serve is one connection from its beginning to its end.
func (p *Proxy) serve(down net.Conn) {
	c := &conn{client: p.cfg.Client, down: down, linger: p.cfg.Linger, done: make(chan struct{}), kinds: map[int32]string{}}
	// The first request is read before the server is asked: it tells whose
	// connection this is. A client that says nothing is cut with the rest.
	c.up = down
	if !p.add(c) {
		c.cut()
		return
	}
	defer p.remove(c)
	defer c.cut()
	var first []byte
	if p.cfg.Kafka {
		var err error
		if first, err = frame(down); err != nil {
			return
		}
		_, _, client, _ := kafkaRequest(first[4:])
		p.mu.Lock()
		c.client = client
		p.mu.Unlock()
	}
	up, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", p.cfg.Target)
	if err != nil {
		return // the client sees a connection that ends at once
	}
	p.mu.Lock()
	c.up = up
	closed := p.closed
	p.counts.Connections++
	p.mu.Unlock()
	c.faults = p.of(c.client)
	if closed {
		reset(up)
		return
	}
	select {
	case <-c.done: // cut while it was being made
		reset(up)
		return
	default:
	}
	var pumps sync.WaitGroup
	pumps.Go(func() { defer c.cut(); p.requests(c, first) })
	pumps.Go(func() { defer c.cut(); p.answers(c) })
	pumps.Wait()
	reset(up)
}

func (p *Proxy) add(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) remove(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *Proxy) count(n *int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*n++
}

// maxFrame bounds a frame; larger ones are not Kafka's.
const maxFrame = 256 << 20

// frame reads one frame of Kafka's protocol, its length included.
func frame(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxFrame {
		return nil, errors.New("not a frame of Kafka's protocol")
	}
	b := make([]byte, 4+n)
	copy(b, length[:])
	_, err := io.ReadFull(r, b[4:])
	return b, err
}
