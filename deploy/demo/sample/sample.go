// Package sample holds the events that the demo posts, and that benchmarks and
// tests take for real ones.
//
// They are the beginning of a public repository's history: 3,000 commits, one
// event a line, who committed when. 111 of them were rebased or picked into
// another branch, so their tuple comes again with another payload.
package sample

import (
	"bufio"
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"os"
	"time"

	"sluice/schemas/event"
)

//go:embed sample.ndjson.gz
var packed []byte

// Packed returns the sample as NDJSON in gzip. It is not to be changed.
func Packed() []byte { return packed }

// Text returns the sample as NDJSON.
func Text() ([]byte, error) { return unpacked(bytes.NewReader(packed)) }

// Events returns the events of a file of NDJSON, in gzip or not, or the sample's if
// path is empty. Blank lines are passed over. A line that could not become a row,
// and a file without events, are errors.
func Events(path string) ([]event.Event, error) {
	from, name := io.Reader(bytes.NewReader(packed)), "the sample"
	if path != "" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		from, name = file, path
	}
	text, err := unpacked(from)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var out []event.Event
	decoder, n := event.NewDecoder(event.Ceiling()), 0
	for line := range bytes.Lines(text) { // payloads go on referring to text
		n++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		e, faults := decoder.Decode(line, time.Time{})
		if len(faults) > 0 {
			return nil, fmt.Errorf("%s, line %d: %s", name, n, faults[0])
		}
		out = append(out, e)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no event", name)
	}
	return out, nil
}

// unpacked reads all of from, in gzip or not.
func unpacked(from io.Reader) ([]byte, error) {
	r := bufio.NewReader(from)
	if magic, _ := r.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return io.ReadAll(r)
	}
	plain, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(plain)
}
