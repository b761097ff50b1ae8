package limit

import (
	"net"
	"net/netip"
	"sync"
)

// Listener bounds the connections of each address: one too many is closed as soon
// as it is accepted.
type Listener struct {
	net.Listener
	most    int
	refused func()

	mu   sync.Mutex
	open map[netip.Addr]int
}

// NewListener allows each address most connections on l; 0: any number. refused
// is called for each that is closed.
func NewListener(l net.Listener, most int, refused func()) *Listener {
	return &Listener{Listener: l, most: most, refused: refused, open: map[netip.Addr]int{}}
}

// Accept returns the next connection of an address that has not too many.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || l.most == 0 {
			return c, err
		}
		from := Network(AddressOf(c.RemoteAddr().String()))
		if l.enter(from) {
			return &conn{Conn: c, leave: sync.OnceFunc(func() { l.leave(from) })}, nil
		}
		l.refused()
		// Without lingering: a stranger's connections must not wait here in the
		// kernel for their end.
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		c.Close()
	}
}

func (l *Listener) enter(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[from] >= l.most {
		return false
	}
	l.open[from]++
	return true
}

func (l *Listener) leave(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[from]--; l.open[from] == 0 {
		delete(l.open, from)
	}
}

type conn struct {
	net.Conn
	leave func()
}

func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// AddressOf is the address in host:port; the zero address when there is none.
func AddressOf(hostPort string) netip.Addr {
	ap, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}
