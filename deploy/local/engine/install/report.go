package install

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

const (
	barEvery  = 200 * time.Millisecond
	lineEvery = 5 * time.Second
)

// reporter tells a person, or a log, how far the install is.
type reporter struct {
	out      *os.File
	terminal bool
}

func newReporter(out *os.File) *reporter {
	return &reporter{out, term.IsTerminal(int(out.Fd()))}
}

func (r *reporter) say(format string, args ...any) { fmt.Fprintf(r.out, format+"\n", args...) }

// follow tells how much of total bytes dir holds, until stop is called.
func (r *reporter) follow(dir string, total int64) (stop func()) {
	every, tell, end := lineEvery, func(n int64) {
		r.say("  %d of %d MB", n/1_000_000, total/1_000_000)
	}, func() {}
	if r.terminal {
		bar := progressbar.NewOptions64(total, progressbar.OptionSetWriter(r.out), progressbar.OptionShowBytes(true), progressbar.OptionShowCount(),
			progressbar.OptionSetWidth(40), progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(false))
		every = barEvery
		tell = func(n int64) { _ = bar.Set64(min(n, total)) } // a terminal that is gone is no reason to stop
		end = func() { _ = bar.Finish() }                     // likewise
	}
	over := make(chan struct{})
	var following sync.WaitGroup
	following.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				tell(sizeOf(dir))
			case <-over:
				end()
				return
			}
		}
	})
	return func() { close(over); following.Wait() }
}

// sizeOf sums up the files below dir, as far as they can be read: they come
// and go while npm works.
func sizeOf(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}
