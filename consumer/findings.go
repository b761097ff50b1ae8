package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"sluice/consumer/internal/verify"
)

// findingsShown is how many findings verify prints.
const findingsShown = 100

// findings prints the first of what verify finds and, when there are more,
// writes all of it to a file.
type findings struct {
	to   io.Writer
	path string // "": no file

	n     int
	first []verify.Finding
	file  *os.File
	out   *bufio.Writer
	err   error // why there is no file
}

// line is a finding in the file. Origin's members are absent where a finding is
// about no single record.
type line struct {
	Kind      string `json:"kind"`
	TopicID   string `json:"topic_id,omitempty"`
	Partition *int32 `json:"partition,omitempty"`
	Offset    *int64 `json:"offset,omitempty"`
	Key       string `json:"key,omitempty"`
	What      string `json:"what"`
}

func (f *findings) add(x verify.Finding) {
	f.n++
	if f.n <= findingsShown {
		fmt.Fprintln(f.to, plain(fmt.Sprint(x)))
		f.first = append(f.first, x)
		return
	}
	if f.path == "" || f.err != nil {
		return
	}
	if f.file == nil {
		if f.file, f.err = os.Create(f.path); f.err != nil {
			return
		}
		f.out = bufio.NewWriterSize(f.file, 256<<10)
		for _, x := range f.first {
			f.write(x)
		}
	}
	f.write(x)
}

func (f *findings) write(x verify.Finding) {
	l := line{Kind: x.Kind, Key: x.Key, What: x.What}
	if o := x.Origin; o != (verify.Finding{}).Origin {
		l.TopicID, l.Partition, l.Offset = o.TopicID.String(), &o.Partition, &o.Offset
	}
	text, err := json.Marshal(l)
	if err == nil {
		_, err = f.out.Write(append(text, '\n'))
	}
	f.err = errors.Join(f.err, err)
}

// close says where the rest is. A file that could not be written changes nothing
// of what was found.
func (f *findings) close() {
	if f.n <= findingsShown {
		return
	}
	if f.file != nil {
		f.err = errors.Join(f.err, f.out.Flush(), f.file.Close())
	}
	switch {
	case f.err != nil:
		fmt.Fprintf(f.to, "and %d more, which could not be written to a file (--findings chooses it): %v\n", f.n-findingsShown, f.err)
	case f.file == nil:
		fmt.Fprintf(f.to, "and %d more\n", f.n-findingsShown)
	default:
		fmt.Fprintf(f.to, "and %d more: all %d are in %s\n", f.n-findingsShown, f.n, f.path)
	}
}
