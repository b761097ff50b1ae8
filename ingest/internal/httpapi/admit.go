package httpapi

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"sluice/ingest/internal/admission"
	"sluice/ingest/internal/decode"
	"sluice/ingest/internal/delivery"
	"sluice/ingest/internal/guard"
	"sluice/ingest/internal/problem"
)

// admit refuses a request while nearly all of the memory for requests in flight is
// in use, or as much is inside as is got through in time: what is left is for those
// accepted to finish. It is asked before the body is read, and again after that:
// many may have been reading.
func (a *API) admit() *problem.Error {
	switch {
	case a.budget.Used() >= a.budget.Limit()/10*9:
		a.metrics.memoryFull.Inc()
		return a.memoryFull
	case a.cfg.Limiter.Full():
		return a.tooBusy
	}
	return nil
}

// InFlightBytes is what the requests in flight hold now.
func (a *API) InFlightBytes() int64 { return a.budget.Used() }

// posting is a request to take events that was let in, with its body.
type posting struct {
	visit    guard.Visit
	body     *decode.Body
	ticket   admission.Ticket
	begun    time.Time
	received time.Time // by the clock of which events are stamped
}

// enter lets a post in and reads its body, of most bytes at the most or what its key
// may send; else tooLarge is the problem. Unless there is one, p must be left.
func (a *API) enter(p *posting, w http.ResponseWriter, r *http.Request, most int64, tooLarge *problem.Kind) (perr *problem.Error) {
	if perr = a.admit(); perr != nil {
		return perr
	}
	if p.visit, perr = a.cfg.Guard.Enter(w, r); perr != nil {
		return perr
	}
	body, perr := a.reader.Read(r, p.visit.BodyBytes(most), tooLarge)
	if perr != nil {
		return perr
	}
	if perr := a.admit(); perr != nil {
		body.Release()
		return perr
	}
	p.body, p.ticket = body, a.cfg.Limiter.Enter(int64(len(body.Bytes())))
	p.begun, p.received = time.Now(), a.parts.Now()
	a.bodyRead(w, r)
	return nil
}

// leave lets p out, if it did not get as far as the log.
func (a *API) leave(p *posting) {
	p.body.Release()
	a.cfg.Limiter.Leave(&p.ticket, false)
}

// taken tells whether the log or the spool has taken d just now.
func taken(d *delivery.Delivery) bool { return d.Err == nil && !d.Repeat }

// connection is what is known of one.
type connection struct {
	refused atomic.Int64 // when a post on it was refused last, Unix nanoseconds
}

type connectionKey struct{}

// ConnContext is for [http.Server]: with it, a connection is known again.
func ConnContext(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, new(connection))
}

// tooSoon tells whether a post that is refused comes on a connection on which one was
// already, and earlier than Retry-After said. Such refusals wait for their turn; one
// who keeps to it is told at once.
func tooSoon(r *http.Request) bool {
	c, ok := r.Context().Value(connectionKey{}).(*connection)
	if !ok {
		return true
	}
	now := time.Now().UnixNano()
	return now-c.refused.Swap(now) < int64(problem.Overloaded.RetryAfter)
}

const (
	// drainBytes is how much of a refused body is read at a time. It is held while
	// the body comes, beyond the budget, so it is as much as net/http itself holds of
	// a connection; and what is read and not looked at stays in the processor's cache.
	drainBytes = 8 << 10
	// drainMost is the largest body that is read to keep the connection, as
	// net/http has it; before a larger one it is closed.
	drainMost = 256 << 10
)

// refuse answers before what is left of the body is read, which net/http does
// first by itself: a client that is slow to send, or has much to send, is told at
// once. begun is when the header had been read.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, err *problem.Error, begun time.Time) {
	told := a.metrics.told.atOnce
	if wait := a.cfg.Limiter.Turn(r.ContentLength); wait > 0 && tooSoon(r) {
		told = a.metrics.told.inTurn
		time.Sleep(wait)
	}
	c := http.NewResponseController(w)
	sends := r.ProtoMajor == 1 && r.ContentLength > 0 && r.ContentLength <= drainMost && r.Header["Expect"] == nil
	if !sends || c.EnableFullDuplex() != nil {
		a.give(w, err)
		told.Observe(time.Since(begun).Seconds())
		return
	}
	a.give(w, err)
	if c.Flush() != nil {
		return // the client has left
	}
	told.Observe(time.Since(begun).Seconds())
	// Not left to net/http, which begins to wait for the next request while it
	// still reads this one's body, and gives up the connection for it
	// (golang/go#68560).
	buf, ok := a.drains.Get().(*[drainBytes]byte)
	if !ok {
		buf = new([drainBytes]byte)
	}
	defer a.drains.Put(buf)
	for {
		if _, err := r.Body.Read(buf[:]); err != nil {
			return
		}
	}
}
