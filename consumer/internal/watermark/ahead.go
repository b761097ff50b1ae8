package watermark

import (
	"time"

	"sluice/schemas/topic"
)

// bounded keeps a bound from lying ahead of the clocks here: an edge says what holds by
// its own clock, and if that is ahead another may yet take in what lies before. What
// is claimed of less holds all the more.
func (p *Prover) bounded(b *topic.Watermark, asked time.Time) {
	limit := asked
	if now := time.Now(); now.Before(limit) {
		limit = now
	}
	limit = limit.Truncate(time.Millisecond).UTC()
	ahead := b.LowWater.Sub(limit)
	if ahead > 0 {
		b.LowWater = limit
	}
	if ahead > aheadBound && p.ahead != b.Edge {
		p.ahead = b.Edge
		p.logger.Warn("an edge's clock is ahead: what it receives bears times to come", "edge", b.Edge, "by", ahead.Round(time.Second))
	} else if ahead <= 0 {
		p.ahead = ""
	}
}

// aheadBound is how far clocks may differ without a word.
const aheadBound = 10 * time.Second
