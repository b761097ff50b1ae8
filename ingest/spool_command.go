package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/term"

	"sluice/deploy/local/lock"
	"sluice/deploy/service"
	"sluice/ingest/internal/produce"
	"sluice/ingest/internal/spool"
)

// spoolCommand is for operators: what is in the spool, and out with it.
func spoolCommand(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "spool",
		Short: "Look at this edge's spool, drain it, export it",
		Long: `The spool holds events that were accepted while the log did not acknowledge them.
An edge that runs drains it by itself. These commands ask that edge on its admin
port (admin.address); when none runs they use the folder itself (spool.dir).

Exit status: 0 done; 1 it could not be done, or not all of it; 2 when the command
line or the configuration is wrong.`,
		Example: "  ingest spool status\n  ingest spool drain --json\n  ingest spool export > events.ndjson",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return errors.New("spool: name what to do: status, drain or export")
		},
	}
	var asJSON bool
	add := func(use, short, long, example string, run func(*spoolTools) error) *cobra.Command {
		sub := &cobra.Command{
			Use: use, Short: short, Long: long + "\n\nExit status: 0 done; 1 it could not be done, or not all of it; 2 when the command\nline or the configuration is wrong.", Example: example, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := load(cmd, environ)
				if err != nil {
					return err
				}
				dir, err := cfg.spoolDir(os.Getenv)
				if err != nil {
					return err
				}
				t := &spoolTools{cfg: cfg, dir: dir, ctx: cmd.Context(), out: cmd.OutOrStdout(), err: cmd.ErrOrStderr(), json: asJSON}
				if err := run(t); err != nil {
					return &failure{err}
				}
				return nil
			},
		}
		cmd.AddCommand(sub)
		return sub
	}
	add("status", "Show what is in the spool", `Shows how much is in the spool, how old it is, what was set aside, and whether it
takes and drains. Without an edge it reads the folder and changes nothing.`,
		"  ingest spool status --json", (*spoolTools).status).Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	add("drain", "Bring what is in the spool to the log", `Brings the spool's events to the log, oldest first, and shows how far it is. While
an edge runs, which drains by itself, it waits until that has. Interrupted, it
leaves the rest where it is.`,
		"  ingest spool drain --spool.dir /var/lib/sluice/spool", (*spoolTools).drain).Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	add("export", "Print the spool's events as NDJSON", `Prints each event of the spool that the log has not acknowledged, oldest first, one
JSON object a line: key, timestamp, headers, value. Nothing is changed, and an
edge may run meanwhile. Events that were set aside are in the folder: as such
lines in refused.ndjson, and as bytes in damaged/.`,
		"  ingest spool export > events.ndjson", (*spoolTools).export)
	return cmd
}

// spoolTools is one command on one folder.
type spoolTools struct {
	cfg      config
	dir      string
	ctx      context.Context
	out, err io.Writer
	json     bool
}

// shown is a state with where it comes from.
type shown struct {
	spool.State
	// Process is the edge that has the folder; 0: none.
	Process int `json:"process"`
}

// look asks the edge that has the folder, or reads the folder.
func (t *spoolTools) look() (shown, error) {
	pid, err := t.holder()
	if err != nil {
		return shown{}, err
	}
	if pid != 0 {
		st, err := t.ask()
		if err != nil {
			return shown{}, fmt.Errorf("process %d has the spool %s, and does not answer on admin.address %s: %w", pid, t.dir, t.cfg.Admin.Address, err)
		}
		if st.Dir != t.dir && !same(st.Dir, t.dir) {
			return shown{}, fmt.Errorf("process %d has the spool %s, but the edge on admin.address %s has %s: name the right one by admin.address or spool.dir", pid, t.dir, t.cfg.Admin.Address, st.Dir)
		}
		return shown{st, pid}, nil
	}
	st, err := spool.Peek(t.cfg.spool(t.dir))
	return shown{State: spool.State{Status: st}}, err
}

func same(a, b string) bool {
	x, err := os.Stat(a)
	y, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// holder is the process that has the folder, 0 when none has.
func (t *spoolTools) holder() (int, error) {
	path := filepath.Join(t.dir, "lock")
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("there is no spool in %s: name its folder by spool.dir (SLUICE_SPOOL_DIR)", t.dir)
		}
		return 0, err
	}
	l, err := lock.Try(path)
	var held *lock.HeldError
	if errors.As(err, &held) {
		return held.PID, nil
	}
	if err != nil {
		return 0, err
	}
	return 0, l.Release()
}

func (t *spoolTools) ask() (spool.State, error) {
	var st spool.State
	ctx, cancel := context.WithTimeout(t.ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.cfg.Admin.Address+"/spool", http.NoBody)
	if err != nil {
		return st, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return st, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return st, fmt.Errorf("it answers %s", resp.Status)
	}
	return st, json.NewDecoder(resp.Body).Decode(&st)
}

func (t *spoolTools) status() error {
	st, err := t.look()
	if err != nil {
		return err
	}
	if t.json {
		return json.NewEncoder(t.out).Encode(st)
	}
	who := "no edge has it"
	if st.Process != 0 {
		who = fmt.Sprintf("process %d has it", st.Process)
	}
	fmt.Fprintf(t.out, "spool     %s (%s)\nedge      %s\n", st.Dir, who, st.Edge)
	fmt.Fprintf(t.out, "records   %d in %d segments, %s of %s\n", st.Records, st.Segments, mebibytes(st.Bytes), mebibytes(st.LimitBytes))
	if st.Oldest != nil {
		fmt.Fprintf(t.out, "oldest    %s, %v ago\n", st.Oldest.Format(time.RFC3339), time.Since(*st.Oldest).Round(time.Second))
	}
	if st.Process != 0 {
		use := "not in use: the log acknowledges in time"
		if st.InUse {
			use = "in use: the log does not acknowledge in time"
		}
		fmt.Fprintf(t.out, "state     %s; %s a second drained\n", use, mebibytes(int64(st.DrainBytesPerSecond)))
	}
	if st.Problem != "" {
		fmt.Fprintf(t.out, "problem   %s; senders are told to try again in %.0f s\n", st.Problem, st.RetryAfterSeconds)
	}
	if st.Waiting > 0 {
		fmt.Fprintf(t.out, "waiting   %d refused records or damaged parts to be set aside: make room on the disk\n", st.Waiting)
	}
	if st.DamagedFiles > 0 {
		fmt.Fprintf(t.out, "damaged   %d files, %s, in %s\n", st.DamagedFiles, mebibytes(st.DamagedBytes), filepath.Join(st.Dir, "damaged"))
	}
	if st.RefusedRecords > 0 {
		fmt.Fprintf(t.out, "refused   %d records, with reasons, in %s\n", st.RefusedRecords, filepath.Join(st.Dir, "refused.ndjson"))
	}
	return nil
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// drained is what a drain came to.
type drained struct {
	Drained int `json:"drained"`
	Left    int `json:"left"`
	spool.Kept
}

func (t *spoolTools) drain() error {
	pid, err := t.holder()
	if err != nil {
		return err
	}
	look := func() (spool.State, error) { st, err := t.look(); return st.State, err }
	if pid == 0 {
		own, stop, err := t.open()
		if err != nil {
			return err
		}
		defer func() {
			if err := stop(); err != nil {
				fmt.Fprintln(t.err, "closing the spool:", err)
			}
		}()
		look = own
	}
	st, err := look()
	if err != nil {
		return err
	}
	bar := progressbar.NewOptions(st.Records, progressbar.OptionSetDescription("draining"), progressbar.OptionSetWriter(t.err),
		progressbar.OptionSetVisibility(isTerminal(t.err)), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("records"), progressbar.OptionClearOnFinish())
	done, last := 0, st.Records
	for st.Records > 0 {
		select {
		case <-t.ctx.Done():
			return errors.Join(t.tell(drained{done, st.Records, st.Kept}), fmt.Errorf("interrupted: %d records are left in the spool", st.Records))
		case <-time.After(200 * time.Millisecond):
		}
		if st, err = look(); err != nil {
			return err
		}
		if st.Records > last { // more came; the bar's end moves
			bar.ChangeMax(bar.GetMax() + st.Records - last)
		} else {
			done += last - st.Records
			_ = bar.Set(done) // a terminal that went away
		}
		last = st.Records
	}
	_ = bar.Finish() // a terminal that went away
	return t.tell(drained{done, 0, st.Kept})
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (t *spoolTools) tell(d drained) error {
	if t.json {
		return json.NewEncoder(t.out).Encode(d)
	}
	fmt.Fprintf(t.out, "%d records drained, %d left", d.Drained, d.Left)
	if d.RefusedRecords > 0 {
		fmt.Fprintf(t.out, "; %d that the log refuses are in %s", d.RefusedRecords, filepath.Join(t.dir, "refused.ndjson"))
	}
	fmt.Fprintln(t.out)
	return nil
}

// open takes the folder and drains it in this process.
func (t *spoolTools) open() (look func() (spool.State, error), stop func() error, err error) {
	log := slog.New(slog.NewTextHandler(t.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	own := t.cfg.spool(t.dir)
	store, err := spool.Open(own, log)
	if err != nil {
		return nil, nil, err
	}
	reg := service.NewRegistry()
	producer, err := produce.New(t.cfg.producer(), log, reg, t.cfg.Kafka.Options(log)...)
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	s := spool.New(own, store, producer, log, reg)
	ctx, cancel := context.WithCancel(t.ctx)
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	// Nothing is drained before the edge's watermark stands.
	herald := spool.NewHerald(s, controlTopic{t.cfg, producer, log}, log)
	running.Go(func() { herald.Run(ctx) })
	running.Go(func() { // the herald is silent until the log has been seen
		for producer.Ready() != nil && ctx.Err() == nil {
			bounded, done := context.WithTimeout(ctx, produce.CheckTimeout)
			if err := producer.Check(bounded); err != nil && ctx.Err() == nil {
				log.Warn("the log cannot be seen; trying again", "error", err)
			}
			done()
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	stop = func() error {
		cancel()
		bound, done := context.WithTimeout(context.WithoutCancel(t.ctx), t.cfg.Shutdown.Flush)
		defer done()
		err := producer.Stop(bound)
		running.Wait()
		return errors.Join(err, store.Close())
	}
	return s.State, stop, nil
}

func (t *spoolTools) export() error {
	if _, err := os.Stat(t.dir); err != nil {
		return fmt.Errorf("there is no spool in %s: name its folder by spool.dir (SLUICE_SPOOL_DIR)", t.dir)
	}
	w := bufio.NewWriter(t.out)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	unreadable, err := spool.Walk(t.dir, func(r *kgo.Record) error {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		return enc.Encode(spool.Export(r))
	})
	if err = errors.Join(err, w.Flush()); err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	if unreadable > 0 {
		return fmt.Errorf("%d bytes could not be read: they are damaged, or were being written", unreadable)
	}
	return nil
}
