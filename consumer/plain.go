package main

import (
	"fmt"
	"strings"
	"unicode"
)

// plain is what a sender wrote, for a person's terminal: control characters, which
// could move its cursor or change its title, and what turns the direction of text, are
// written as \u001b. --json has the text itself.
func plain(text string) string { return plainBut(text, "") }

// plainBut leaves some control characters as they are.
func plainBut(text, leave string) string {
	hidden := func(r rune) bool {
		return (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) && !strings.ContainsRune(leave, r)
	}
	if strings.IndexFunc(text, hidden) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if hidden(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
