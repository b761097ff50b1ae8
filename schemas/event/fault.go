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
