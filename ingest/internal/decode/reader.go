// Package decode turns the body of a request into the texts of the events it
// holds: bounded in bytes as sent and as decoded, and in time by the server's
// timeouts. What an event's text means is the business of schemas/event.
package decode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"sluice/ingest/internal/problem"
)

// Media types of request bodies.
const (
	TypeJSON   = "application/json"
	TypeNDJSON = "application/x-ndjson"
)

// codings is what Content-Encoding may name, as an Accept-Encoding header.
const codings = "gzip, zstd, identity"

// maxWindowBytes is the most history a zstd frame may ask for: what RFC 8878,
// section 3.1.1.1.2 recommends decoders to support.
const maxWindowBytes = 8 << 20

// Reader reads bodies. It is safe for concurrent use.
type Reader struct {
	budget  *Budget
	buffers buffers
	gzips   sync.Pool // *gzip.Reader
	zstds   sync.Pool // *zstd.Decoder
}

// NewReader returns a reader whose bodies share budget.
func NewReader(budget *Budget) *Reader { return &Reader{budget: budget} }

// Body is a decoded body. Release it when no one reads its bytes any more.
type Body struct {
	reader *Reader
	buffer *buffer // nil when there is none
	length int
}

// Bytes is the decoded text. It is valid until Release.
func (b *Body) Bytes() []byte { return b.buffer.bytes[:b.length] }

// Release gives the body's memory back. The body must not be used afterwards.
func (b *Body) Release() {
	if b.buffer != nil {
		b.reader.budget.Give(int64(len(b.buffer.bytes)))
		b.reader.buffers.put(b.buffer)
		b.buffer = nil
	}
}

// MediaType returns the body's media type, one of allowed, or the problem
// unsupported-media-type. A charset other than UTF-8 is refused, too: JSON
// knows no other (RFC 8259, section 8.1).
func MediaType(h http.Header, allowed ...string) (string, *problem.Error) {
	given := h.Get("Content-Type")
	for _, a := range allowed {
		if given == a {
			return a, nil
		}
	}
	refuse := func(why string) (string, *problem.Error) {
		takes := strings.Join(allowed, ", ")
		return "", problem.New(problem.UnsupportedMediaType,
			"Content-Type "+why+"; send "+takes).With("Accept", takes)
	}
	if given == "" {
		return refuse("is missing")
	}
	media, params, err := mime.ParseMediaType(given)
	if err != nil {
		return refuse(strconv.Quote(given) + " cannot be read")
	}
	for _, a := range allowed {
		if media != a {
			continue
		}
		if c, ok := params["charset"]; ok && !strings.EqualFold(c, "utf-8") {
			return refuse(strconv.Quote(given) + " names another charset than UTF-8")
		}
		return a, nil
	}
	return refuse("is " + strconv.Quote(given))
}

// Read reads the body of req, which may have at most most bytes, both as it is
// sent and after decoding its Content-Encoding; tooLarge is the problem it is
// otherwise. A body that announces a greater length is refused unread.
//
// The bytes as sent are gathered before they are decoded, so that a slow
// client holds a buffer and no decompressor.
//
// Problems: unsupported-encoding, tooLarge, invalid-encoding, incomplete-body,
// body-timeout, overloaded (the budget is used up).
func (r *Reader) Read(req *http.Request, most int64, tooLarge *problem.Kind) (*Body, *problem.Error) {
	coding, perr := contentCoding(req.Header)
	if perr != nil {
		return nil, perr
	}
	over := func() *problem.Error {
		return problem.New(tooLarge, fmt.Sprintf("the body may have %d bytes, as sent and after decoding", most))
	}
	if req.ContentLength > most {
		return nil, over()
	}
	sent := &Body{reader: r}
	if err := sent.fill(req.Body, req.ContentLength, most); err != nil {
		sent.Release()
		if errors.Is(err, errOver) {
			return nil, over()
		}
		return nil, readProblem(req.Context(), err)
	}
	if coding == "" {
		return sent, nil
	}
	defer sent.Release()
	plain := &Body{reader: r}
	if err := r.expand(plain, coding, sent.Bytes(), most); err != nil {
		plain.Release()
		switch {
		case errors.Is(err, errOver):
			return nil, over()
		case errors.Is(err, errBudget):
			return nil, readProblem(req.Context(), err)
		}
		return nil, problem.New(problem.InvalidEncoding, "the body is not valid "+coding+": "+err.Error())
	}
	return plain, nil
}

// contentCoding returns gzip, zstd or "" for none.
func contentCoding(h http.Header) (string, *problem.Error) {
	values := h.Values("Content-Encoding")
	if len(values) == 0 {
		return "", nil
	}
	given := strings.ToLower(strings.TrimSpace(strings.Join(values, ",")))
	switch given {
	case "", "identity":
		return "", nil
	case "gzip", "x-gzip":
		return "gzip", nil
	case "zstd":
		return "zstd", nil
	}
	return "", problem.New(problem.UnsupportedEncoding,
		"Content-Encoding is "+strconv.Quote(given)+"; one of "+codings+" is taken, one at a time").
		With("Accept-Encoding", codings)
}

var (
	errOver   = errors.New("more bytes than allowed")
	errBudget = errors.New("no memory left for bodies")
)

func readProblem(ctx context.Context, err error) *problem.Error {
	var timeout net.Error
	switch {
	case errors.Is(err, errBudget):
		return problem.New(problem.Overloaded, "the requests in flight fill the memory set aside for them; send it again later")
	case errors.As(err, &timeout) && timeout.Timeout():
		return problem.New(problem.BodyTimeout, "the rest of the body did not arrive in time")
	case ctx.Err() != nil:
		return problem.New(problem.IncompleteBody, "the client left before the body was complete")
	}
	return problem.New(problem.IncompleteBody, "the body ended before it was complete: "+err.Error())
}

// fill reads src to its end. length is what it is expected to have, or -1.
func (b *Body) fill(src io.Reader, length, most int64) error {
	if err := b.grow(min(sizes[0], int(length)+1)); err != nil {
		return err
	}
	for {
		space := b.buffer.bytes[b.length:min(len(b.buffer.bytes), int(most)+1)]
		n, err := src.Read(space)
		b.length += n
		switch {
		case int64(b.length) > most:
			return errOver
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case b.length < len(b.buffer.bytes):
			continue
		}
		if err := b.grow(grown(b.length, length)); err != nil {
			return err
		}
	}
}

// grow moves the body to a buffer of at least n bytes.
func (b *Body) grow(n int) error {
	larger := b.reader.buffers.get(n)
	if !b.reader.budget.Take(int64(len(larger.bytes))) {
		b.reader.buffers.put(larger)
		return errBudget
	}
	if b.buffer != nil {
		copy(larger.bytes, b.buffer.bytes[:b.length])
		b.reader.budget.Give(int64(len(b.buffer.bytes)))
		b.reader.buffers.put(b.buffer)
	}
	b.buffer = larger
	return nil
}

// expand decodes sent into b.
func (r *Reader) expand(b *Body, coding string, sent []byte, most int64) error {
	src := bytes.NewReader(sent)
	if coding == "gzip" {
		z, ok := r.gzips.Get().(*gzip.Reader)
		if !ok {
			z = new(gzip.Reader)
		}
		defer r.gzips.Put(z)
		if err := z.Reset(src); err != nil {
			return noEOF(err)
		}
		return noEOF(b.fill(z, -1, most))
	}
	z, ok := r.zstds.Get().(*zstd.Decoder)
	if !ok {
		var err error
		// Concurrency 1 decodes in the caller, without goroutines.
		z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindowBytes))
		if err != nil {
			return err
		}
	}
	defer func() {
		_ = z.Reset(nil) // lets go of src; a nil reader cannot fail
		r.zstds.Put(z)
	}()
	if err := z.Reset(src); err != nil {
		return err
	}
	if len(sent) == 0 {
		return io.ErrUnexpectedEOF // zstd itself takes no frame at all for an empty text
	}
	return b.fill(z, -1, most)
}

// noEOF makes an end where more must come an error like any other.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
