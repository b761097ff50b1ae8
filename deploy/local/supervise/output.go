package supervise

import (
	"bytes"
	"fmt"
	"io"
	"sync"
)

// maxLine bounds what is held of a line that does not end; longer ones are
// broken.
const maxLine = 64 << 10

// Output is where several programs' lines go, one line at a time.
type Output struct {
	mu     sync.Mutex
	w      io.Writer
	width  int
	colour bool
	names  int
}

// NewOutput writes to w, names padded to width; with colours if colour says so.
func NewOutput(w io.Writer, width int, colour bool) *Output {
	return &Output{w: w, width: width, colour: colour}
}

// Named returns a writer whose lines are shown as name's. It is safe for
// concurrent use, but pieces of a line should come from one writer.
func (o *Output) Named(name string) *Named {
	o.mu.Lock()
	defer o.mu.Unlock()
	prefix := fmt.Sprintf("%-*s | ", o.width, name)
	if o.colour {
		const first, colours = 31, 6 // red to cyan
		prefix = fmt.Sprintf("\x1b[%dm%s\x1b[0m", first+(o.names+1)%colours, prefix)
	}
	o.names++
	return &Named{o: o, prefix: prefix}
}

// Named is one program's writer.
type Named struct {
	o      *Output
	prefix string

	mu   sync.Mutex
	part []byte   // of a line not ended yet
	last [][]byte // the last few lines, for error messages
}

// lastLines is how many lines Tail has at most.
const lastLines = 8

func (n *Named) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.part = append(n.part, p...)
	for {
		i, next := bytes.IndexByte(n.part, '\n'), 1
		if i < 0 || i > maxLine {
			if len(n.part) < maxLine {
				return len(p), nil
			}
			i, next = maxLine, 0
		}
		n.line(n.part[:i])
		n.part = n.part[i+next:]
	}
}

// Flush ends a line that its program did not.
func (n *Named) Flush() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.part) > 0 {
		n.line(n.part)
		n.part = nil
	}
}

// Tail returns the last few lines.
func (n *Named) Tail() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return string(bytes.Join(n.last, []byte("\n")))
}

func (n *Named) line(b []byte) {
	n.last = append(n.last, bytes.Clone(b))
	n.last = n.last[max(0, len(n.last)-lastLines):]
	n.o.mu.Lock()
	defer n.o.mu.Unlock()
	// A terminal that is gone must not stop the programs.
	_, _ = fmt.Fprintf(n.o.w, "%s%s\n", n.prefix, b)
}
