package httpapi

import (
	"math"
	"net/http"
	"strings"
	"time"
)

// preferences are what a request prefers, of what is known here (RFC 7240).
type preferences struct {
	minimal bool          // return=minimal
	waits   bool          // wait was given
	wait    time.Duration // how long
}

// preferencesOf reads the Prefer header. What is not understood is left out, as
// section 2 asks for; so is all of an element with broken syntax. Of a preference
// given twice the first counts.
func preferencesOf(h http.Header) preferences {
	var p preferences
	lines := h["Prefer"]
	if lines == nil {
		return p
	}
	var seen struct{ ret, wait bool }
	for _, line := range lines {
		for rest := line; rest != ""; {
			var name, value string
			var ok bool
			name, value, ok, rest = nextPreference(rest)
			switch {
			case !ok:
			case strings.EqualFold(name, "return") && !seen.ret:
				seen.ret = true
				p.minimal = strings.EqualFold(value, "minimal")
			case strings.EqualFold(name, "wait") && !seen.wait:
				seen.wait = true
				p.wait, p.waits = deltaSeconds(value)
			}
		}
	}
	return p
}

// deltaSeconds reads a number of seconds (RFC 9111, section 1.2.2); one too large
// is the largest there is.
func deltaSeconds(s string) (time.Duration, bool) {
	const most = int64(math.MaxInt64 / time.Second)
	n := int64(0)
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = min(n*10+int64(s[i]-'0'), most/10)
	}
	return time.Duration(n) * time.Second, s != ""
}

// nextPreference takes the first element of a list off:
//
//	preference = token [ BWS "=" BWS word ] *( OWS ";" [ OWS parameter ] )
//
// ok is false when there is none, or it is none of these. rest begins behind the
// comma that ends it.
func nextPreference(s string) (name, value string, ok bool, rest string) {
	s = space(s)
	name, s = token(s)
	ok = name != ""
	if after := space(s); ok && strings.HasPrefix(after, "=") {
		value, s, ok = word(space(after[1:]))
	}
	for after := space(s); ok && strings.HasPrefix(after, ";"); after = space(s) {
		var parameter string
		parameter, s = token(space(after[1:]))
		if after := space(s); parameter != "" && strings.HasPrefix(after, "=") {
			_, s, ok = word(space(after[1:]))
		}
	}
	s = space(s)
	if ok && s == "" {
		return name, value, true, ""
	}
	if !strings.HasPrefix(s, ",") {
		ok = false
	}
	return name, value, ok, pastComma(s)
}

// pastComma returns what follows the first comma outside a quoted string.
func pastComma(s string) string {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			return s[i+1:]
		}
	}
	return ""
}

func space(s string) string { return strings.TrimLeft(s, " \t") }

// token takes a token (RFC 9110, section 5.6.2) off s; "" when there is none.
func token(s string) (tok, rest string) {
	n := 0
	for n < len(s) && isToken(s[n]) {
		n++
	}
	return s[:n], s[n:]
}

func isToken(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// word takes a token or a quoted string off s.
func word(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = token(s)
		return value, rest, value != ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}
