package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sluice/schemas/event"
)

const (
	// admissionEvents is how many events a batch has.
	admissionEvents = 200
	admissionFor    = 8 * time.Second
	// admissionConnections are the most that the open loop opens.
	admissionConnections = 1000
)

// admissionForm is what is posted, to whom, and how many clients find its capacity
// in a closed loop.
type admissionForm struct {
	name, path, media string
	events, clients   int
	bare              bool // to the bare handler, the anchor
}

func admissionForms() []admissionForm {
	return []admissionForm{
		{"posts", "/api/events", "application/json", 1, 32, false},
		{"batches", "/api/events/batch", "application/x-ndjson", admissionEvents, 16, false},
		{"bare", "/api/events", "application/json", 1, 32, true},
	}
}

// offered is what came of one rate.
type offered struct {
	factor                 float64
	asked, sent            float64 // requests a second
	goodput                float64 // accepted requests a second
	refused, other, unsent float64 // shares
	p95, p99, refP95, late time.Duration
	polite, witness, edge  time.Duration // P95 of first refusals: as the load's own process sees them, as one beside it does, and from header to answer in the edge
	loadCores, edgeCores   float64       // what the load and the edge took of the machine
}

// admission finds what the edge takes in a closed loop, then offers it a tenth of
// that to ten times that, each post sent when it is due.
func admission(ctx context.Context, b *bench) (t *table, err error) {
	s, err := b.start(ctx, freshPartitions)
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return nil, err
	}
	if err := s.ingest(); err != nil {
		return nil, err
	}
	edge := server{edgeName, s.edge, s.programs[len(s.programs)-1]}
	path, err := s.bare()
	if err != nil {
		return nil, err
	}
	bare, err := s.serve(bareName, path, s.bareArgs)
	if err != nil {
		return nil, err
	}
	if err := s.place(b.cfg); err != nil {
		return nil, err
	}
	lasting := max(time.Second, b.cfg.lasting(admissionFor))
	t = newTable(
		column{"form", "form", "%s"}, column{"factor", "times capacity", "%.1f"}, column{"asked", "asked/s", "%.0f"}, column{"sent", "sent/s", "%.0f"},
		column{"goodput", "accepted/s", "%.0f"}, column{"of_peak", "of the peak", "%.2f"}, column{"refused", "refused", "%.2f"}, column{"unanswered", "no answer", "%.2f"},
		column{"p95_ms", "P95 ms", "%.1f"}, column{"p99_ms", "P99 ms", "%.1f"}, column{"refused_p95_ms", "refusal P95 ms", "%.1f"}, column{"first_refusal_p95_ms", "first refusal P95 ms", "%.1f"},
		column{"first_refusal_witness_p95_ms", "seen by a process of its own", "%.1f"}, column{"first_refusal_edge_p95_ms", "in the edge, at most", "%.2f"},
		column{"late_p95_ms", "sent late P95 ms", "%.1f"}, column{"load_cores", "cores: load", "%.2f"}, column{"edge_cores", "edge", "%.2f"}, column{"rss_mib", "edge MiB", "%d"},
	)
	var plots []string
	for _, form := range admissionForms() {
		if !slices.Contains(b.cfg.forms, form.name) {
			continue
		}
		k := len(plots)
		srv := edge
		if form.bare {
			srv = bare
		}
		l := &openLoop{address: strings.TrimPrefix(srv.url, "http://"), connections: form.clients}
		base := time.Now().Add(-time.Hour * time.Duration(k+1))
		for i := range 64 {
			var events []event.Event
			for j := range form.events {
				events = append(events, s.sample.event(i*form.events+j, base))
			}
			l.forms = append(l.forms, newForm(form.path, form.media, base, events))
		}
		offer := func(rate float64) (o offered, err error) {
			theirs, _, err := srv.program.used()
			if err != nil {
				return o, err
			}
			own, began := ownCPU(), time.Now()
			told, err := s.refusals(form)
			if err != nil {
				return o, err
			}
			beside, apart := make(chan []answered, 1), make(chan witnessed, 1)
			go func() { beside <- l.askSeldom(ctx, lasting) }()
			go func() { apart <- s.witness(ctx, l, lasting) }()
			all, unsent, err := l.run(ctx, rate, lasting)
			polite, seen := <-beside, <-apart
			if err := errors.Join(err, seen.err); err != nil {
				return o, err
			}
			toldNow, err := s.refusals(form)
			if err != nil {
				return o, err
			}
			l.first += (len(all) + unsent) * form.events
			took := time.Since(began).Seconds()
			now, _, err := srv.program.used()
			if err != nil {
				return o, err
			}
			o = sum(all, unsent, lasting)
			o.polite, o.witness, o.edge = sum(polite, 0, lasting).refP95, seen.p95, bound95(told, toldNow)
			o.loadCores, o.edgeCores = (ownCPU()-own).Seconds()/took, (now-theirs).Seconds()/took
			return o, nil
		}
		profile := func(of string) <-chan error {
			if form.bare {
				none := make(chan error, 1)
				none <- nil
				return none
			}
			return b.profile(ctx, s.edgeAdmin, "edge-"+form.name+of, lasting)
		}
		profiled := profile("")
		_, err := offer(0) // warms it up
		if err := errors.Join(err, <-profiled); err != nil {
			return t, err
		}
		closed, err := offer(0)
		if err != nil {
			return t, err
		}
		capacity := closed.goodput
		b.say("admission: %s: %.0f a second in a closed loop", form.name, capacity)
		l.connections = admissionConnections
		var all []offered
		var memory []int
		for _, factor := range b.cfg.factors {
			b.say("admission: %s: %.1f times, %.0f a second", form.name, factor, capacity*factor)
			profiled := profile(fmt.Sprintf("-%g", factor))
			o, err := offer(capacity * factor)
			if err := errors.Join(err, <-profiled); err != nil {
				return t, err
			}
			_, rss, err := srv.program.used()
			if err != nil {
				return t, err
			}
			o.factor, o.asked = factor, capacity*factor
			all, memory = append(all, o), append(memory, rss>>20)
		}
		peak := slices.MaxFunc(all, func(a, b offered) int { return int(a.goodput - b.goodput) }).goodput
		ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
		for i, o := range all {
			t.add(form.name, o.factor, o.asked, o.sent, o.goodput, o.goodput/peak, o.refused, o.other, ms(o.p95), ms(o.p99), ms(o.refP95), ms(o.polite), ms(o.witness), ms(o.edge), ms(o.late), o.loadCores, o.edgeCores, memory[i])
		}
		t.note("%s: capacity is what %d clients get through in a closed loop, %.0f a second.", form.name, form.clients, capacity)
		plots = append(plots, admissionPlot(form.name, all, capacity, float64(k)*plotHeight))
	}
	t.note("Batches have %d events. \"Sent\" is what the load managed beside broker and edge on the same cores, with at most %d connections; times are from the request's sending to the end of its answer, \"sent late\" is from when it was due to that.",
		admissionEvents, admissionConnections)
	if b.cfg.plot != "" {
		err = os.WriteFile(filepath.Join(b.cfg.plot, "admission.svg"), plotFile(plots), 0o644)
	}
	return t, err
}

// ownCPU is the time that this process has taken, in the system, too.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0 // it cannot fail for ourselves
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// sum puts together what became of the requests of one rate.
func sum(all []answered, unsent int, lasting time.Duration) (o offered) {
	var taken, refused, late []time.Duration
	if len(all) == 0 {
		return o
	}
	var end time.Time
	begin := all[0].due
	for _, a := range all {
		late = append(late, a.sent.Sub(a.due))
		if a.due.Before(begin) {
			begin = a.due
		}
		switch a.status {
		case 202:
			taken = append(taken, a.done.Sub(a.sent))
			if a.done.After(end) {
				end = a.done
			}
		case 503:
			refused = append(refused, a.done.Sub(a.sent))
		}
	}
	total := float64(len(all))
	o.sent = total / lasting.Seconds()
	if len(taken) > 0 {
		o.goodput = float64(len(taken)) / max(end.Sub(begin), lasting).Seconds()
	}
	o.refused, o.other = float64(len(refused))/total, (total-float64(len(taken)+len(refused)))/total
	o.unsent = float64(unsent) / (total + float64(unsent))
	slices.Sort(taken)
	slices.Sort(refused)
	slices.Sort(late)
	o.p95, o.p99, o.refP95, o.late = quantile(taken, 0.95), quantile(taken, 0.99), quantile(refused, 0.95), quantile(late, 0.95)
	return o
}

const plotWidth, plotHeight = 720.0, 340.0

func plotFile(plots []string) []byte {
	h := plotHeight * float64(len(plots))
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="system-ui, sans-serif" font-size="12">`+"\n"+
		`<rect width="%.0f" height="%.0f" fill="#fff"/>`+"\n%s</svg>\n", plotWidth, h, plotWidth, h, strings.Join(plots, ""))
}

// admissionPlot draws goodput and the accepted's P95 over what was offered.
func admissionPlot(name string, all []offered, capacity, down float64) string {
	const w, h, left, right, top, bottom = plotWidth, plotHeight, 60.0, 60.0, 40.0, 50.0
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
	line := func(color, dash string, at func(i int) float64) {
		fmt.Fprintf(&out, `<polyline fill="none" stroke="%s" stroke-width="2.5"%s points="`, color, dash)
		for i := range all {
			fmt.Fprintf(&out, "%.1f,%.1f ", x(i), at(i))
		}
		out.WriteString("\"/>\n")
		for i := range all {
			fmt.Fprintf(&out, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", x(i), at(i), color)
		}
	}
	const blue, red, grey = "#1d7fbf", "#c93a2b", "#64748b"
	fmt.Fprintf(&out, `<g transform="translate(0 %.0f)"><path d="M%.0f %.0fH%.0f" stroke="%s"/>`+"\n", down, left, h-bottom, w-right, grey)
	for i := range 5 {
		v := float64(i) / 4
		text(left-8, y(v, 1.0)+4, "end", blue, fmt.Sprintf("%.0f", v*most))
		text(w-right+8, y(v, 1.0)+4, "start", red, fmt.Sprintf("%.0f", v*slowest))
	}
	for i, o := range all {
		text(x(i), h-bottom+18, "middle", grey, fmt.Sprintf("%g×", o.factor))
	}
	text(left, 20, "start", blue, name+" accepted a second")
	text(w-right, 20, "end", red, "P95 of the accepted, ms")
	text(w/2, h-12, "middle", grey, fmt.Sprintf("offered, in multiples of what a closed loop gets through (%.0f a second)", capacity))
	line(blue, "", func(i int) float64 { return y(all[i].goodput, most) })
	line(red, ` stroke-dasharray="6 3"`, func(i int) float64 { return y(float64(all[i].p95)/1e6, slowest) })
	out.WriteString("</g>\n")
	return out.String()
}
