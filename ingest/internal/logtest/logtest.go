// Package logtest is the log of tests, which looks through every line for what no
// line of the edge may hold.
package logtest

import (
	"io"
	"log/slog"
	"regexp"
)

// secrets is what no line of any edge's log may hold, at any level: a key's text,
// a credential, or what only events have: a member with its quotes, as text or
// quoted again by the log, or the tuple that the tests post.
var secrets = regexp.MustCompile(`sluice_[0-9A-Za-z]+_[0-9A-Za-z_-]{20,}|Bearer |\\?"(payload|actor_id|occurred_at)\\?"\s*:|app:click:`)

// Secret tells whether a line of a log holds a key or a part of an event.
func Secret(line string) bool { return secrets.MatchString(line) }

// New returns a logger that writes lines of all levels to w ([io.Discard], for one).
// It panics, and so fails the test, at a line with a secret.
func New(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(strict{w}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type strict struct{ io.Writer }

// Write is called once for each line.
func (s strict) Write(line []byte) (int, error) {
	if Secret(string(line)) {
		panic("a key or a part of an event is in a log line: " + string(line))
	}
	return s.Writer.Write(line)
}
