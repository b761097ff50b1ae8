package report

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
	"time"
)

// The charts' geometry, in the units of an SVG's viewBox.
const (
	wholeWidth  = 960.0 // of a chart on a line of its own
	halfWidth   = 460.0 // of one of two
	chartHeight = 240.0
	left        = 56.0 // for the figures of the y axis
	right       = 8.0
	topEdge     = 10.0
	bottom      = 26.0 // for the times of the x axis
)

// chart is a line or bar chart over time, ready to be drawn.
type chart struct {
	Width, Height float64
	// Line is the path of what is whole, Open of what may still grow, Area of
	// what is below both.
	Line, Open, Area template.HTMLAttr
	// OpenFrom is where what may still grow begins; 0: nowhere.
	OpenFrom     float64
	YTicks       []tick
	XTicks       []tick
	Bars         []bar
	Hovers       []hover
	Left, Bottom float64 // of the plot
	Right, Top   float64
}

type tick struct {
	At    float64
	Label string
}

// bar is one part of a stacked bar.
type bar struct {
	X, Y, Width, Height float64
	Class               string
}

// hover is an invisible column with a text that shows when it is pointed at.
type hover struct {
	X, Width float64
	Text     string
}

// scale maps values to the plot's height.
type scale struct{ most float64 }

func (s scale) y(v float64) float64 {
	return chartHeight - bottom - v/s.most*(chartHeight-bottom-topEdge)
}

// niceScale chooses four even steps up to at least most, with round figures.
func niceScale(most uint64) (scale, []tick) {
	step := math.Ceil(float64(max(most, 4)) / 4)
	magnitude := math.Pow(10, math.Floor(math.Log10(step)))
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		if m*magnitude >= step && m*magnitude == math.Trunc(m*magnitude) {
			step = m * magnitude
			break
		}
	}
	s := scale{4 * step}
	var ticks []tick
	for i := range 5 {
		v := float64(i) * step
		ticks = append(ticks, tick{s.y(v), short(uint64(v))})
	}
	return s, ticks
}

// frame is a chart without its data, with its scale and the width of a step.
func (r *Report) frame(most uint64, total float64) (chart, scale, float64) {
	s, ticks := niceScale(most)
	c := chart{
		Width: total, Height: chartHeight, YTicks: ticks,
		Left: left, Right: total - right, Top: topEdge, Bottom: chartHeight - bottom,
	}
	width := (c.Right - c.Left) / float64(max(len(r.Points), 1))
	every := max(1, int(math.Ceil(float64(len(r.Points))/(total/120))))
	for i := 0; i < len(r.Points); i += every {
		if x := c.Left + float64(i)*width; x < c.Right-60 {
			c.XTicks = append(c.XTicks, tick{x, r.axisTime(r.Points[i].At)})
		}
	}
	return c, s, width
}

// axisTime is short: what the step makes of interest.
func (r *Report) axisTime(t time.Time) string {
	switch {
	case r.Step < time.Hour:
		return t.Format("15:04")
	case r.Step < 24*time.Hour:
		return t.Format("2 Jan 15:04")
	case r.Step < 28*24*time.Hour:
		return t.Format("2 Jan")
	}
	return t.Format("Jan 2006")
}

// span names a step's time.
func (r *Report) span(p Point) string {
	if r.Step >= 24*time.Hour {
		return p.At.Format("2 Jan 2006")
	}
	return p.At.Format("2 Jan 2006 15:04")
}

// eventsChart is a line of events over time. A step that was not over when the
// report was made, or up to whose end some source is not whole, may still grow
// and is dashed.
func (r *Report) eventsChart() chart {
	var most uint64
	for _, p := range r.Points {
		most = max(most, p.Events)
	}
	c, s, width := r.frame(most, wholeWidth)
	through, known := r.Completeness.Through()
	var line, open, area strings.Builder
	fmt.Fprintf(&area, "M%.1f,%.1f", c.Left+width/2, c.Bottom)
	was := false
	for i, p := range r.Points {
		x, y := c.Left+(float64(i)+0.5)*width, s.y(float64(p.Events))
		end := p.At.Add(r.Step)
		growing := end.After(r.Made) || known && end.After(through)
		switch {
		case !growing:
			point(&line, x, y)
		case !was: // the dashes begin where the line ends
			if i > 0 {
				point(&open, x-width, s.y(float64(r.Points[i-1].Events)))
			}
			c.OpenFrom = x - width/2
			fallthrough
		default:
			point(&open, x, y)
		}
		was = growing
		fmt.Fprintf(&area, "L%.1f,%.1f", x, y)
		text := fmt.Sprintf("%s: %s events", r.span(p), grouped(p.Events))
		if growing {
			text += ", may still grow"
		}
		c.Hovers = append(c.Hovers, hover{x - width/2, width, text})
	}
	fmt.Fprintf(&area, "L%.1f,%.1fZ", c.Right-width/2, c.Bottom)
	c.Line, c.Open, c.Area = path(line.String()), path(open.String()), path(area.String())
	return c
}

// path is an attribute made of numbers only.
func path(d string) template.HTMLAttr {
	if d == "" {
		return ""
	}
	return template.HTMLAttr(`d="` + d + `"`) //nolint:gosec // numbers, made above
}

func point(b *strings.Builder, x, y float64) {
	verb := "L"
	if b.Len() == 0 {
		verb = "M"
	}
	fmt.Fprintf(b, "%s%.1f,%.1f", verb, x, y)
}

// repeatsChart is a bar of duplicates and conflicts for each step.
func (r *Report) repeatsChart() chart {
	var most uint64
	for _, p := range r.Points {
		most = max(most, p.Duplicates+p.Conflicts)
	}
	c, s, width := r.frame(most, halfWidth)
	gap := min(width*0.15, 2)
	for i, p := range r.Points {
		x := c.Left + float64(i)*width
		below := c.Bottom
		for _, part := range []struct {
			n     uint64
			class string
		}{{p.Duplicates, "duplicate"}, {p.Conflicts, "conflict"}} {
			if part.n == 0 {
				continue
			}
			height := max(c.Bottom-s.y(float64(part.n)), 1.5)
			c.Bars = append(c.Bars, bar{x + gap, below - height, width - 2*gap, height, part.class})
			below -= height
		}
		c.Hovers = append(c.Hovers, hover{x, width, fmt.Sprintf("%s: %s duplicates, %s conflicts", r.span(p), grouped(p.Duplicates), grouped(p.Conflicts))})
	}
	return c
}

// The size of a source's small line.
const sparkWidth, sparkHeight = 150.0, 28.0

// spark is a small line of one source's events.
func spark(points []uint64) template.HTMLAttr {
	var most uint64 = 1
	for _, n := range points {
		most = max(most, n)
	}
	var b strings.Builder
	for i, n := range points {
		point(&b, (float64(i)+0.5)*sparkWidth/float64(len(points)), sparkHeight-2-float64(n)/float64(most)*(sparkHeight-4))
	}
	return path(b.String())
}

// short is a count for an axis: 1.5k, 2M.
func short(n uint64) string {
	for _, u := range []struct {
		size   uint64
		suffix string
	}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if n >= u.size {
			return strconv.FormatFloat(float64(n)/float64(u.size), 'f', -1, 64) + u.suffix
		}
	}
	return strconv.FormatUint(n, 10)
}

// grouped is a count for reading: 1 234 567, with narrow spaces that do not break.
func grouped(n uint64) string {
	text := strconv.FormatUint(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return text
}

// percent is a part of a whole in percent, at most 100.
func percent(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return math.Round(min(float64(part)/float64(whole), 1)*1e4) / 100
}

// lasting is a duration for reading: three digits at most.
func lasting(d time.Duration) string {
	switch abs := d.Abs(); {
	case abs < time.Second:
		return strconv.FormatFloat(float64(d.Round(time.Millisecond))/float64(time.Millisecond), 'f', -1, 64) + " ms"
	case abs < time.Minute:
		return strconv.FormatFloat(math.Round(d.Seconds()*10)/10, 'f', -1, 64) + " s"
	case abs < time.Hour:
		return strconv.FormatFloat(math.Round(d.Minutes()*10)/10, 'f', -1, 64) + " min"
	case abs < 48*time.Hour:
		return strconv.FormatFloat(math.Round(d.Hours()*10)/10, 'f', -1, 64) + " h"
	}
	return strconv.FormatFloat(math.Round(d.Hours()/24), 'f', -1, 64) + " days"
}
