package event

import (
	"strings"

	"github.com/agnivade/levenshtein"
)

// Fault is one thing wrong with an event, worded for whoever sent it.
type Fault struct {
	// Pointer is the place, as a JSON Pointer (RFC 6901); "" is the whole.
	Pointer string `json:"pointer"`
	// Detail says what was wrong.
	Detail string `json:"detail"`
	// Allowed says what would have been right; "" when Detail leaves no doubt.
	Allowed string `json:"allowed,omitempty"`
	// Kind classes the fault for counting; it is not for whoever sent it.
	Kind FaultKind `json:"-"`
}

// FaultKind is one of a closed set of kinds of faults, fit for a metric's label.
type FaultKind string

// The kinds of faults.
const (
	FaultMalformed    FaultKind = "malformed"      // not one I-JSON object
	FaultRepeatedName FaultKind = "repeated_name"  // a name twice in an object
	FaultTooDeep      FaultKind = "too_deep"       // nested past Limits.Depth
	FaultTooLarge     FaultKind = "too_large"      // more bytes than the edge takes
	FaultMissing      FaultKind = "missing"        // a required member is not there
	FaultUnknown      FaultKind = "unknown_member" // a member that events do not have
	FaultType         FaultKind = "wrong_type"     // another JSON type than the member's
	FaultLength       FaultKind = "wrong_length"   // empty, or past Limits.FieldBytes
	FaultCharacter    FaultKind = "bad_character"  // NUL
	FaultTime         FaultKind = "bad_time"       // not an RFC 3339 date-time
	FaultTimeRange    FaultKind = "time_range"     // a time too early or too late
	FaultMismatch     FaultKind = "mismatch"       // two places that contradict each other
	FaultSchema       FaultKind = "schema"         // not what the type's registered schema allows
	FaultNotAllowed   FaultKind = "not_allowed"    // a source that the sender's key is not for
)

// FaultKinds lists them all.
func FaultKinds() []FaultKind {
	return []FaultKind{
		FaultMalformed, FaultRepeatedName, FaultTooDeep, FaultTooLarge, FaultMissing, FaultUnknown,
		FaultType, FaultLength, FaultCharacter, FaultTime, FaultTimeRange, FaultMismatch, FaultSchema, FaultNotAllowed,
	}
}

func (f Fault) String() string {
	s := f.Detail
	if f.Pointer != "" {
		s = f.Pointer + " " + s
	}
	if f.Allowed != "" {
		s += " (allowed: " + f.Allowed + ")"
	}
	return s
}

// Nearest returns the known name closest to name: one that differs only in
// case, else one at most a third of its letters away, else "".
func Nearest(name string, known []string) string {
	best, distance := "", len(name)/3+1
	if len(name) > 64 {
		return ""
	}
	for _, k := range known {
		if strings.EqualFold(k, name) {
			return k
		}
		if d := levenshtein.ComputeDistance(strings.ToLower(name), k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// clip shortens what a sender wrote for quoting it back.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// escapePointer writes a member name as a JSON Pointer token.
func escapePointer(name string) string {
	return "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(clip(name))
}
