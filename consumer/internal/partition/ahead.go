package partition

import (
	"context"
	"errors"
	"time"

	"sluice/consumer/internal/batch"
)

// ahead reads and decodes while the owner writes the batch before. It decides
// nothing: what it holds is dropped with it.
type ahead struct {
	reader Reader
	chunks chan chunk
	ready  chan struct{} // a chunk has come, or none will
	cancel context.CancelFunc
	done   chan struct{}
	err    error // why chunks was closed
}

// chunk is what the reader returned at once: no record when it was markers only.
type chunk struct {
	records []batch.Record
	end     int64 // the first offset not yet read
}

// readAhead starts reading. One chunk is held ready besides the one in the
// making; a chunk is what the reader returns at once, so that its bound on
// bytes bounds this too.
func readAhead(ctx context.Context, reader Reader, decoder *batch.Decoder) *ahead {
	ctx, cancel := context.WithCancel(ctx)
	a := &ahead{reader: reader, chunks: make(chan chunk, 1), ready: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		defer a.signal()
		defer close(a.chunks)
		for {
			raws, err := reader.Next(ctx)
			if err != nil {
				a.err = err
				return
			}
			records := make([]batch.Record, len(raws))
			for i := range raws {
				decoder.DecodeInto(&records[i], &raws[i])
			}
			select {
			case a.chunks <- chunk{records, reader.Position()}:
				a.signal()
			case <-ctx.Done():
				a.err = ctx.Err()
				return
			}
		}
	}()
	return a
}

// signal wakes who waits for [ahead.ready], now or later.
func (a *ahead) signal() {
	select {
	case a.ready <- struct{}{}:
	default:
	}
}

// has tells whether the next chunk, or the error in its place, is there.
func (a *ahead) has() bool {
	select {
	case <-a.done:
		return true
	default:
		return len(a.chunks) > 0
	}
}

// close ends reading and returns when it has ended.
func (a *ahead) close() {
	a.cancel()
	<-a.done
	a.reader.Close()
}

// errQuiet: nothing came within the time given, or there is something else to do.
var errQuiet = errors.New("nothing has arrived")

// next returns the chunk that comes within wait. It returns errQuiet when none
// does, or when stop is closed or wake says something first.
func (a *ahead) next(ctx context.Context, stop, wake <-chan struct{}, wait time.Duration) (chunk, error) {
	timer := time.NewTimer(max(wait, 0))
	defer timer.Stop()
	select {
	case c, ok := <-a.chunks:
		if !ok {
			return chunk{}, a.err
		}
		return c, nil
	case <-timer.C:
		return chunk{}, errQuiet
	case <-stop:
		return chunk{}, errQuiet
	case <-wake:
		return chunk{}, errQuiet
	case <-ctx.Done():
		return chunk{}, ctx.Err()
	}
}
