package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sys/unix"
)

// How long an edge takes to refuse depends on who looks. The process that makes the
// load reads its answers late itself; the witness is another, which does nothing
// else and goes before all others on the machine where it may; and the edge measures
// from the header it has read to the answer it has written.

// witnessName has this program be a witness instead, told by its standard input.
const witnessName = "witness"

// witnessOrder is what a witness is told.
type witnessOrder struct {
	Address string
	Form    []byte
	At      []int
	First   int
	Lasting time.Duration
}

// witnessed is what it has seen.
type witnessed struct {
	p95 time.Duration // of its first refusals
	err error
}

// witnessNice is how far it goes before others; only root may.
const witnessNice = -19

// witness asks seldom, as it is told on in, and writes the P95 of the refusals in
// nanoseconds to out.
func witness(in io.Reader, out io.Writer) error {
	var o witnessOrder
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		return fmt.Errorf("what a witness is told: %w", err)
	}
	// It may not be allowed; then it is a process like others.
	_ = threads(os.Getpid(), func(tid int) error { return unix.Setpriority(unix.PRIO_PROCESS, tid, witnessNice) })
	l := &openLoop{address: o.Address, forms: []form{{o.Form, o.At}}, seldom: o.First}
	all := l.askSeldom(context.Background(), o.Lasting)
	return json.NewEncoder(out).Encode(sum(all, 0, o.Lasting).refP95)
}

// witness has another process ask seldom, and returns what that has seen. Its events
// have numbers of their own.
func (s *stack) witness(ctx context.Context, l *openLoop, lasting time.Duration) (w witnessed) {
	s.witnessed += int(lasting/seldomEvery+2) * seldomConnections
	order, err := json.Marshal(witnessOrder{l.address, l.forms[0].text, l.forms[0].at, witnessFirst + s.witnessed, lasting})
	if err != nil {
		return witnessed{err: err}
	}
	self, err := os.Executable()
	if err != nil {
		return witnessed{err: err}
	}
	cmd := exec.CommandContext(ctx, self, witnessName)
	cmd.Stdin = bytes.NewReader(order)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return witnessed{err: fmt.Errorf("the witness: %w", err)}
	}
	w.err = json.Unmarshal(said, &w.p95)
	return w
}

// witnessFirst is the number of a witness's first request, above those of the load's
// own.
const witnessFirst = 500_000

// refusals are, of the posts that the edge refused at once, how many were told within
// which time.
func (s *stack) refusals(of admissionForm) (*dto.Histogram, error) {
	if of.bare {
		return nil, nil //nolint:nilnil // it refuses no one
	}
	all, err := metrics(s.ctx, s.edgeAdmin)
	if err != nil {
		return nil, err
	}
	for _, m := range all["sluice_ingest_admission_refusal_seconds"].GetMetric() {
		if m.GetLabel()[0].GetValue() == "at_once" {
			return m.GetHistogram(), nil
		}
	}
	return nil, nil //nolint:nilnil // an edge of before there was such a figure
}

// bound95 is a time that 95 in 100 of the observations between two readings of a
// histogram did not exceed: the end of the bucket that holds that quantile. 0 when
// there were none, and the last end when it is beyond.
func bound95(before, after *dto.Histogram) time.Duration {
	count := after.GetSampleCount() - before.GetSampleCount()
	if count == 0 {
		return 0
	}
	var end time.Duration
	for i, b := range after.GetBucket() {
		was := uint64(0)
		if before != nil {
			was = before.GetBucket()[i].GetCumulativeCount()
		}
		end = time.Duration(b.GetUpperBound() * float64(time.Second))
		if float64(b.GetCumulativeCount()-was) >= 0.95*float64(count) {
			break
		}
	}
	return end
}
