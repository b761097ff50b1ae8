package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"sluice/schemas/event"
)

// form is a request to be sent over and over, its events different each time.
type form struct {
	text []byte
	// at is where the nine digits of each event's time below a second stand.
	at []int
}

// timeDigits are those digits.
const timeDigits = 9

// newForm puts events into the body of a request to path: one on a line each. At
// most 10^9 events can be made of forms with the same base.
func newForm(path, media string, base time.Time, events []event.Event) form {
	const name = `"occurred_at":"`
	var body []byte
	var at []int
	base = base.UTC().Truncate(time.Second)
	for i, e := range events {
		if i > 0 {
			body = append(body, '\n')
		}
		e.OccurredAt = base.Add(1) // so that all nine digits stand there
		from := len(body)
		body = e.AppendJSON(body)
		i := from + bytes.Index(body[from:], []byte(name)) + len(name)
		at = append(at, i+len("2006-01-02T15:04:05."))
	}
	f := form{text: fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: edge\r\nContent-Type: %s\r\nPrefer: return=minimal\r\nContent-Length: %d\r\n\r\n", path, media, len(body))}
	head := len(f.text)
	f.text = append(f.text, body...)
	for _, i := range at {
		f.at = append(f.at, head+i)
	}
	return f
}

// fill appends the request to dst, its events numbered from n.
func (f form) fill(dst []byte, n int) []byte {
	from := len(dst)
	dst = append(dst, f.text...)
	for k, i := range f.at {
		digits := dst[from+i : from+i+timeDigits]
		for v, j := n+k, timeDigits-1; j >= 0; v, j = v/10, j-1 {
			digits[j] = '0' + byte(v%10)
		}
	}
	return dst
}

// answered is one request: when it was due, sent and answered.
type answered struct {
	due, sent, done time.Time
	status          int // 0: none
}

// openLoop sends requests in an open loop: each when it is due, on a connection that
// has nothing else to do, a new one if there is none. It is a client that costs
// little beside the server it shares the machine with.
type openLoop struct {
	address     string
	forms       []form
	first       int // number of the first event
	seldom      int // requests of askSeldom
	connections int // at most; what is due while all wait for answers is not sent
}

// run sends rate requests a second, and returns when the last is answered; unsent
// is how many were due and not sent. With rate 0 every connection sends its next
// request as soon as the last is answered.
func (l *openLoop) run(ctx context.Context, rate float64, lasting time.Duration) (all []answered, unsent int, err error) {
	type job struct {
		n   int
		due time.Time
	}
	jobs := make(chan job)
	var mu sync.Mutex
	var failed error
	var wg sync.WaitGroup
	worker := func(next func() (job, bool)) {
		c := &connection{address: l.address}
		defer c.close()
		var mine []answered
		var request []byte
		for {
			j, ok := next()
			if !ok {
				break
			}
			f := l.forms[j.n%len(l.forms)]
			request = f.fill(request[:0], l.first+j.n*len(f.at))
			a := answered{due: j.due, sent: time.Now()}
			status, err := c.do(ctx, request)
			a.status, a.done = status, time.Now()
			mine = append(mine, a)
			if err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
			}
		}
		mu.Lock()
		all = append(all, mine...)
		mu.Unlock()
	}
	if rate == 0 {
		var count counter
		end := time.Now().Add(lasting)
		for range l.connections {
			wg.Go(func() {
				worker(func() (job, bool) {
					now := time.Now()
					return job{count.next(), now}, now.Before(end) && ctx.Err() == nil
				})
			})
		}
		wg.Wait()
		return all, 0, sentNothing(all, failed)
	}
	workers := 0
	_, _, err = paced(ctx, rate, lasting, func(n int, due time.Time) {
		select {
		case jobs <- job{n, due}:
			return
		default:
		}
		if workers == l.connections {
			unsent++
			return
		}
		workers++
		first := true
		wg.Go(func() {
			worker(func() (job, bool) {
				if first {
					first = false
					return job{n, due}, true
				}
				j, ok := <-jobs
				return j, ok
			})
		})
	})
	close(jobs)
	wg.Wait()
	if err == nil {
		err = sentNothing(all, failed)
	}
	return all, unsent, err
}

const (
	seldomConnections = 50
	// seldomEvery is longer than the Retry-After of a refusal.
	seldomEvery = 1100 * time.Millisecond
	// seldomFirst is above the numbers of all events that are sent otherwise.
	seldomFirst = 800_000_000
)

// askSeldom is those who keep to what they are told, beside the load: a few more
// connections, each with a request only now and then. There is at least one.
func (l *openLoop) askSeldom(ctx context.Context, lasting time.Duration) []answered {
	var mu sync.Mutex
	var all []answered
	var wg sync.WaitGroup
	begin := time.Now()
	end := begin.Add(lasting)
	for i := range seldomConnections {
		wg.Go(func() {
			c := &connection{address: l.address}
			defer c.close()
			var request []byte
			for due := begin.Add(seldomEvery * time.Duration(i) / seldomConnections); ; due = due.Add(seldomEvery) {
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Until(due)):
				}
				mu.Lock()
				n := seldomFirst + len(l.forms[0].at)*l.seldom
				l.seldom++
				mu.Unlock()
				request = l.forms[n%len(l.forms)].fill(request[:0], n)
				a := answered{due: due, sent: time.Now()}
				a.status, _ = c.do(ctx, request) // 0 when there was none
				a.done = time.Now()
				mu.Lock()
				all = append(all, a)
				mu.Unlock()
				if a.done.Add(seldomEvery).After(end) {
					return
				}
			}
		})
	}
	wg.Wait()
	return all
}

func sentNothing(all []answered, failed error) error {
	if slices.ContainsFunc(all, func(a answered) bool { return a.status != 0 }) {
		return nil
	}
	return fmt.Errorf("nothing was answered: %w", failed)
}

type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n - 1
}

// connection is one connection to the edge, made again when it is lost.
type connection struct {
	address string
	conn    net.Conn
	answers *bufio.Reader
	bounded time.Time // when its deadline must be set again
}

// do sends a request and reads its answer, whose status it returns.
func (c *connection) do(ctx context.Context, request []byte) (status int, err error) {
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.conn == nil {
		if c.conn, err = new(net.Dialer).DialContext(ctx, "tcp", c.address); err != nil {
			return 0, err
		}
		c.answers, c.bounded = bufio.NewReader(c.conn), time.Time{}
	}
	// Not for every request: it costs a tenth of what sending one does.
	if now := time.Now(); now.After(c.bounded) {
		c.bounded = now.Add(postBound / 2)
		if err := c.conn.SetDeadline(now.Add(postBound)); err != nil {
			return 0, err
		}
	}
	if _, err := c.conn.Write(request); err != nil {
		return 0, err
	}
	length, closes := 0, false
	for first := true; ; first = false {
		line, err := c.answers.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimSpace(line)
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case first:
			if status, err = statusOf(line); err != nil {
				return 0, err
			}
		case len(line) == 0:
			_, err := c.answers.Discard(length)
			if closes {
				c.close()
			}
			return status, err
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, err
			}
		case bytes.EqualFold(name, []byte("Connection")):
			closes = bytes.EqualFold(value, []byte("close"))
		}
	}
}

func statusOf(line []byte) (int, error) {
	const version = "HTTP/1.1 "
	if len(line) < len(version)+3 {
		return 0, fmt.Errorf("not an answer: %q", line)
	}
	return strconv.Atoi(string(line[len(version) : len(version)+3]))
}

func (c *connection) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}
