package proxy

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// pieceBytes is the most that is passed on at once of HTTP.
const pieceBytes = 32 << 10

// pieces returns how one side is read: frame by frame, or as it comes.
func (p *Proxy) pieces(r net.Conn) func() ([]byte, error) {
	if p.cfg.Kafka {
		return func() ([]byte, error) { return frame(r) }
	}
	buf := make([]byte, pieceBytes)
	return func() ([]byte, error) {
		n, err := r.Read(buf)
		if n > 0 {
			return buf[:n], nil // the error comes again
		}
		return nil, err
	}
}

// requests passes on what the client sends. first has been read already.
func (p *Proxy) requests(c *conn, first []byte) {
	next := p.pieces(c.down)
	left := -1 // bytes that still arrive before the request is torn; -1: all
	for {
		b, err := first, error(nil)
		if first = nil; b == nil {
			b, err = next()
		}
		if err != nil {
			if errors.Is(err, io.EOF) && !p.cfg.Kafka {
				_ = c.up.(*net.TCPConn).CloseWrite() // the answer may still be on its way
				<-c.done
			}
			return
		}
		if kind, begins := c.request(b, p.cfg.Kafka); begins {
			if after, ok := c.faults.tears(kind); ok {
				left = after
				p.count(&p.counts.Torn)
			}
		}
		if !c.faults.hold(Up, c.done) {
			return
		}
		if left >= 0 && left < len(b) {
			_, _ = c.up.Write(b[:left]) // it is cut anyway
			return
		}
		if left >= 0 {
			left -= len(b)
		}
		if _, err := c.up.Write(b); err != nil {
			return
		}
	}
}

// answers passes on what the server sends.
func (p *Proxy) answers(c *conn) {
	next := p.pieces(c.up)
	for {
		b, err := next()
		if err != nil {
			return
		}
		select {
		case <-c.done: // it lingers: the server is read, and nobody hears it
			continue
		default:
		}
		if kind, begins := c.answer(b, p.cfg.Kafka); begins && c.faults.loses(kind) {
			p.count(&p.counts.Lost)
			return
		}
		if !c.faults.hold(Down, c.done) {
			continue
		}
		if _, err := c.down.Write(b); err != nil {
			c.cut()
		}
	}
}

// request notes what the client asks. begins: b begins a request.
func (c *conn) request(b []byte, kafka bool) (kind string, begins bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !kafka {
		if kind = httpKind(b); kind != "" {
			c.kind, c.answers = kind, false
		}
		return kind, kind != ""
	}
	key, correlation, _, ok := kafkaRequest(b[4:])
	kind = kafkaKind(key)
	if ok {
		c.kinds[correlation] = kind
	}
	return kind, ok
}

// answer tells what b answers. begins: b begins an answer.
func (c *conn) answer(b []byte, kafka bool) (kind string, begins bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !kafka {
		begins, c.answers = !c.answers, true
		return c.kind, begins
	}
	if len(b) < 8 {
		return Other, true
	}
	correlation := int32(binary.BigEndian.Uint32(b[4:]))
	kind = c.kinds[correlation]
	delete(c.kinds, correlation)
	return kind, true
}
