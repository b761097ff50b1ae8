package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

const (
	// admissionEvents is how many events a batch has.
	admissionEvents = 200
	admissionFor    = 8 * time.Second
	// admissionClients are those of the closed loop that finds the capacity.
	admissionClients = 16
)

// admissionEnv bounds the edge's memory so that load reaches the bound: the
// defaults are for far more than one machine offers.
func admissionEnv() []string {
	return []string{
		"SLUICE_LIMITS_EVENT_BYTES=65536", "SLUICE_LIMITS_BODY_BYTES=1048576", "SLUICE_LIMITS_BATCH_ITEMS=1000",
		"SLUICE_LIMITS_IN_FLIGHT_BYTES=8388608", "SLUICE_PRODUCE_BUFFER_BYTES=4194304",
	}
}

// offered is what came of one rate.
type offered struct {
	factor           float64
	asked, sent      float64 // batches a second
	goodput          float64 // accepted batches a second
	refused, other   float64 // shares
	p95, p99, refP95 time.Duration
}

// admission finds what the edge takes in a closed loop, then offers it a tenth of
// that to ten times that, each post sent when it is due.
func admission(ctx context.Context, b *bench) (t *table, err error) {
	s, err := b.start(ctx, freshPartitions)
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return nil, err
	}
	if err := s.ingest(admissionEnv()...); err != nil {
		return nil, err
	}
	lasting := max(time.Second, b.cfg.lasting(admissionFor))
	batches := s.batches(512)
	closed, err := s.offer(batches, vegeta.Rate{}, lasting, admissionClients)
	if err != nil {
		return nil, err
	}
	capacity := closed.goodput
	b.say("admission: %.0f batches a second in a closed loop", capacity)
	t = newTable(
		column{"factor", "times capacity", "%.1f"}, column{"asked", "asked/s", "%.0f"}, column{"sent", "sent/s", "%.0f"},
		column{"goodput", "accepted/s", "%.0f"}, column{"of_peak", "of the peak", "%.2f"}, column{"refused", "refused", "%.2f"}, column{"unanswered", "no answer", "%.2f"},
		column{"p95_ms", "P95 ms", "%.1f"}, column{"p99_ms", "P99 ms", "%.1f"}, column{"refused_p95_ms", "refusal P95 ms", "%.1f"},
	)
	var all []offered
	for _, factor := range []float64{0.1, 0.2, 0.5, 0.8, 1, 1.5, 2, 3, 5, 10} {
		rate := max(1, int(capacity*factor))
		b.say("admission: %.1f times, %d batches a second", factor, rate)
		o, err := s.offer(batches, vegeta.Rate{Freq: rate, Per: time.Second}, lasting, 0)
		if err != nil {
			return t, err
		}
		o.factor, o.asked = factor, float64(rate)
		all = append(all, o)
	}
	peak := slices.MaxFunc(all, func(a, b offered) int { return int(a.goodput - b.goodput) }).goodput
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	for _, o := range all {
		t.add(o.factor, o.asked, o.sent, o.goodput, o.goodput/peak, o.refused, o.other, ms(o.p95), ms(o.p99), ms(o.refP95))
	}
	t.note("Batches of %d events; capacity is what %d clients get through in a closed loop, %.0f a second. The edge's memory is bounded to 8 MiB of requests and 4 MiB of records. \"Sent\" is what vegeta managed beside broker and edge on the same cores.",
		admissionEvents, admissionClients, capacity)
	if b.cfg.plot != "" {
		err = os.WriteFile(filepath.Join(b.cfg.plot, "admission.svg"), admissionPlot(all, capacity), 0o644)
	}
	return t, err
}

// batches are n bodies of NDJSON, no event twice.
func (s *stack) batches(n int) [][]byte {
	base, all := time.Now().Add(-time.Hour), make([][]byte, n)
	for i := range all {
		var body bytes.Buffer
		for j := range admissionEvents {
			k := i*admissionEvents + j
			e := s.sample.event(k, base.Add(time.Duration(k)*time.Microsecond))
			body.Write(e.AppendJSON(nil))
			body.WriteByte('\n')
		}
		all[i] = body.Bytes()
	}
	return all
}

// offer posts batches at rate, or, at no rate, one after the other from so many
// clients.
func (s *stack) offer(batches [][]byte, rate vegeta.Rate, lasting time.Duration, clients uint64) (o offered, err error) {
	options := []func(*vegeta.Attacker){vegeta.Timeout(10 * time.Second), vegeta.Connections(2000), vegeta.MaxBody(0)}
	if clients > 0 {
		options = append(options, vegeta.Workers(clients), vegeta.MaxWorkers(clients))
	} else {
		options = append(options, vegeta.Workers(64), vegeta.MaxWorkers(1000))
	}
	n := 0
	target := func(to *vegeta.Target) error {
		n++
		*to = vegeta.Target{
			Method: http.MethodPost, URL: s.edge + "/api/events/batch", Body: batches[n%len(batches)],
			Header: http.Header{"Content-Type": {"application/x-ndjson"}, "Prefer": {"return=minimal"}},
		}
		return nil
	}
	attacker := vegeta.NewAttacker(options...)
	var taken, refused []time.Duration
	var first, last time.Time
	total, why := 0, map[string]int{}
	for r := range attacker.Attack(target, rate, lasting, "admission") {
		if first.IsZero() || r.Timestamp.Before(first) {
			first = r.Timestamp
		}
		if end := r.End(); end.After(last) {
			last = end
		}
		total++
		switch r.Code {
		case http.StatusAccepted:
			taken = append(taken, r.Latency)
		case http.StatusServiceUnavailable:
			refused = append(refused, r.Latency)
		default:
			why[fmt.Sprintf("%d %s", r.Code, r.Error)]++
		}
	}
	for text, n := range why {
		if n > total/50 {
			s.say("admission: %d of %d: %s", n, total, text)
		}
	}
	if total == 0 {
		return o, errors.New("no batch was sent")
	}
	seconds := last.Sub(first).Seconds()
	o.sent, o.goodput = float64(total)/lasting.Seconds(), float64(len(taken))/seconds
	o.refused, o.other = float64(len(refused))/float64(total), float64(total-len(taken)-len(refused))/float64(total)
	slices.Sort(taken)
	slices.Sort(refused)
	o.p95, o.p99, o.refP95 = quantile(taken, 0.95), quantile(taken, 0.99), quantile(refused, 0.95)
	return o, nil
}

// admissionPlot draws goodput and the accepted's P95 over what was offered.
func admissionPlot(all []offered, capacity float64) []byte {
	const w, h, left, right, top, bottom = 720.0, 360.0, 60.0, 60.0, 40.0, 50.0
	most, slowest := capacity, 60.0
	for _, o := range all {
		most = max(most, o.goodput)
		slowest = max(slowest, float64(o.p95)/1e6)
	}
	most, slowest = most*1.1, slowest*1.1
	x := func(i int) float64 { return left + float64(i)*(w-left-right)/float64(len(all)-1) }
	y := func(v, of float64) float64 { return h - bottom - v/of*(h-top-bottom) }
	var out strings.Builder
	text := func(x, y float64, anchor, color, s string) {
		fmt.Fprintf(&out, `<text x="%.0f" y="%.0f" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, anchor, color, s)
	}
	line := func(color string, at func(i int) float64) {
		fmt.Fprintf(&out, `<polyline fill="none" stroke="%s" stroke-width="2.5" points="`, color)
		for i := range all {
			fmt.Fprintf(&out, "%.1f,%.1f ", x(i), at(i))
		}
		out.WriteString("\"/>\n")
		for i := range all {
			fmt.Fprintf(&out, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", x(i), at(i), color)
		}
	}
	const blue, red, grey = "#1d7fbf", "#c93a2b", "#64748b"
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="system-ui, sans-serif" font-size="12">`+"\n", w, h)
	fmt.Fprintf(&out, `<rect width="%.0f" height="%.0f" fill="#fff"/><path d="M%.0f %.0fH%.0f" stroke="%s"/>`+"\n", w, h, left, h-bottom, w-right, grey)
	for i := range 5 {
		v := float64(i) / 4
		text(left-8, y(v, 1.0)+4, "end", blue, fmt.Sprintf("%.0f", v*most))
		text(w-right+8, y(v, 1.0)+4, "start", red, fmt.Sprintf("%.0f", v*slowest))
	}
	for i, o := range all {
		text(x(i), h-bottom+18, "middle", grey, fmt.Sprintf("%g×", o.factor))
	}
	text(left, 20, "start", blue, "accepted batches a second")
	text(w-right, 20, "end", red, "P95 of the accepted, ms")
	text(w/2, h-12, "middle", grey, fmt.Sprintf("offered, in multiples of what a closed loop gets through (%.0f a second)", capacity))
	line(blue, func(i int) float64 { return y(all[i].goodput, most) })
	line(red, func(i int) float64 { return y(float64(all[i].p95)/1e6, slowest) })
	out.WriteString("</svg>\n")
	return []byte(out.String())
}
