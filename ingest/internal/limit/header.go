package limit

import (
	"net/http"
	"strconv"
	"time"

	"sluice/ingest/internal/problem"
)

// SetHeader tells the client where it stands, as
// draft-ietf-httpapi-ratelimit-headers-11 has it: RateLimit-Policy, what the key
// has (q events in w seconds), and RateLimit, what is left of it (r) and in how
// many seconds there will be more (t, left out when it is whole). The unit, an
// event, is not among the draft's, so the policy's name tells it.
func (b *Bucket) SetHeader(h http.Header, now time.Time) {
	left, more := b.Left(now)
	h["Ratelimit-Policy"] = []string{`"events";q=` + strconv.Itoa(b.burst) + `;w=` + problem.Seconds(b.Window())}
	state := `"events";r=` + strconv.Itoa(left)
	if more > 0 {
		state += `;t=` + problem.Seconds(more)
	}
	h["Ratelimit"] = []string{state}
}
