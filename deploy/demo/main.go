// Command demo shows a running Sluice at work: it posts a sample of real
// events, posts a third of them again, waits until the consumer has dealt with
// all of it, and prints what three queries to ClickHouse say. "make demo" runs
// it beside "make run"; it may be run any number of times.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"sluice/deploy/demo/sample"
)

func main() {
	httpPort := flag.String("http-port", env("HTTP_PORT", "8080"), "port of the edge on 127.0.0.1")
	clickhousePort := flag.String("clickhouse-port", env("CLICKHOUSE_PORT", "8123"), "port of ClickHouse's HTTP interface on 127.0.0.1")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := demo{
		edge:       "http://" + net.JoinHostPort("127.0.0.1", *httpPort),
		clickhouse: "http://" + net.JoinHostPort("127.0.0.1", *clickhousePort),
		client:     &http.Client{Timeout: 30 * time.Second},
		out:        os.Stdout,
		wait:       30 * time.Second,
		poll:       100 * time.Millisecond,
	}
	if err := d.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", explain(err))
		os.Exit(1)
	}
}

func env(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

// explain adds what to do to the error that a newcomer is most likely to see.
func explain(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("nothing listens there: start it with make run, wait for its ready line, and run make demo in another terminal "+
			"(with the same HTTP_PORT and CLICKHOUSE_PORT, if you set them)\n%w", err)
	}
	return err
}

// demo is one run.
type demo struct {
	edge, clickhouse string // base URLs
	client           *http.Client
	out              io.Writer
	wait             time.Duration // how long the consumer may take
	poll             time.Duration // between looks at ClickHouse
}

// run posts the sample and shows what came of it. An event
// refused, records that do not arrive within the wait, and a balance that does
// not add up are errors.
func (d demo) run(ctx context.Context) error {
	p := message.NewPrinter(language.English)
	again, err := firstThird()
	if err != nil {
		return fmt.Errorf("reading the sample: %w", err)
	}
	before, err := d.records(ctx)
	if err != nil {
		return err
	}
	first, err := d.post(ctx, sample.Packed(), "gzip")
	if err != nil {
		return err
	}
	p.Fprintf(d.out, "Posted %d events to %s/api/events/batch: all accepted.\n", first.accepted, d.edge)
	second, err := d.post(ctx, again, "")
	if err != nil {
		return err
	}
	p.Fprintf(d.out, "Posted the first %d of them again, as a client does that lost the answer.\n", second.accepted)
	if known := first.known + second.known; known > 0 {
		p.Fprintf(d.out, "The edge knew that %d of these are in the log, and wrote them no second time.\n", known)
	}

	start := time.Now()
	records := first.records() + second.records()
	if err := d.arrived(ctx, before+int64(records)); err != nil {
		return err
	}
	p.Fprintf(d.out, "The consumer has dealt with all %d records (waited %s).\n", records, time.Since(start).Round(10*time.Millisecond))
	return d.show(ctx, p)
}

// show prints the three questions, how each is asked, and the answers.
func (d demo) show(ctx context.Context, p *message.Printer) error {
	var last *table
	for i, q := range questions {
		t, err := d.query(ctx, q.sql)
		if err != nil {
			return fmt.Errorf("asking %q: %w", q.title, err)
		}
		p.Fprintf(d.out, "\n%d. %s\n\n%s\n\n%s", i+1, q.title, indent(q.sql), t.format(p))
		last = t
	}
	s, err := sentence(p, last)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(d.out, "\n%s\n", s)
	return err
}

// firstThird returns the first third of the sample's lines.
func firstThird() ([]byte, error) {
	text, err := sample.Text()
	if err != nil {
		return nil, err
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	lines = lines[:bytes.Count(text, []byte("\n"))/3]
	return bytes.Join(lines, nil), nil
}
