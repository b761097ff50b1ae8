package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"unicode/utf8"

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
	text  []byte
	err   error // why there is no file
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
	f.text = appendLine(f.text[:0], x)
	if _, err := f.out.Write(f.text); err != nil {
		f.err = errors.Join(f.err, err)
	}
}

// appendLine appends a finding as one line of JSON: of no single record it has no
// topic_id, partition and offset. There may be millions, so it is not json.Marshal.
func appendLine(to []byte, x verify.Finding) []byte {
	to = appendString(append(to, `{"kind":`...), x.Kind)
	if o := x.Origin; o != (verify.Finding{}).Origin {
		to = append(append(to, `,"topic_id":"`...), o.TopicID.String()...)
		to = strconv.AppendInt(append(to, `","partition":`...), int64(o.Partition), 10)
		to = strconv.AppendInt(append(to, `,"offset":`...), o.Offset, 10)
	}
	if x.Key != "" {
		to = appendString(append(to, `,"key":`...), x.Key)
	}
	return append(appendString(append(to, `,"what":`...), x.What), "}\n"...)
}

// appendString appends s as json.Marshal has it.
func appendString(to []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c >= utf8.RuneSelf, c == '"', c == '\\', c == '<', c == '>', c == '&', c == 0x7f:
			text, _ := json.Marshal(s) // a string never fails
			return append(to, text...)
		}
	}
	return append(append(append(to, '"'), s...), '"')
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
