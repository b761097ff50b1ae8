package server

import (
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/ClickHouse/ch-go/compress"

	"sluice/deploy/local/engine/chdb"
	"sluice/deploy/local/engine/statement"
)

// query runs a statement that is no INSERT of data and sends what it puts out.
// An error it returns was not yet told to the client.
func (s *Server) query(ctx context.Context, w http.ResponseWriter, c *chdb.Session, q *request, st statement.Statement) error {
	q.format = first(st.Format, q.format)
	h := w.Header()
	h.Set("X-ClickHouse-Format", q.format)
	h.Set("Content-Type", contentType(q.format))
	text := idColumn.Answer(q.query)
	if streams(st.Keyword, q.format) {
		stream, err := c.Stream(text, q.format, q.params)
		if err == nil {
			defer stream.Close()
			return s.stream(ctx, w, stream, q)
		}
		if !strings.Contains(err.Error(), "Streaming query is not supported") {
			return err
		}
	}
	r, err := c.Query(text, q.format, q.params)
	if err != nil {
		return err
	}
	defer r.Free()
	h.Set("X-ClickHouse-Summary", summary(r.Counts()))
	out := q.output(w)
	_, werr := out.Write(r.Bytes())
	_ = errors.Join(werr, out.Close()) // a client that left is no one's loss
	return nil
}

// streams says whether the engine can give the output piece by piece: it
// formats each for itself, so the format must be one whose pieces join.
func streams(keyword, format string) bool {
	switch keyword {
	case "SELECT", "WITH", "(":
	default:
		return false
	}
	switch format {
	case "Native", "RowBinary", "JSONEachRow", "TabSeparated", "TSV", "TabSeparatedRaw", "TSVRaw", "CSV":
		return true
	}
	return false
}

// stream sends the pieces as they come. The first is waited for before the
// status is sent, so that most errors are still answered with theirs.
func (s *Server) stream(ctx context.Context, w http.ResponseWriter, stream *chdb.Stream, q *request) error {
	var out io.WriteCloser
	tag := rand.Text()[:16]
	for {
		r, err := stream.Next()
		if err != nil && out == nil {
			return err
		}
		if err != nil {
			s.failLate(w, out, q, tag, err)
			break
		}
		if out == nil {
			w.Header().Set("X-ClickHouse-Exception-Tag", tag)
			out = q.output(w)
		}
		if r == nil {
			_ = out.Close() // a client that left is no one's loss
			break
		}
		_, gone := out.Write(r.Bytes())
		r.Free()
		if gone != nil || ctx.Err() != nil {
			stream.Cancel()
			break
		}
	}
	return nil
}

// failLate tells an error after the status was sent: ClickHouse frames it in
// the body; and not in a compressed block, for a client finds it by its mark
// where it expected the next block.
func (s *Server) failLate(w io.Writer, out io.WriteCloser, q *request, tag string, err error) {
	text := s.text(asException(err))
	frame := fmt.Sprintf("\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n", tag, text, len(text), tag)
	// A client that left is no one's loss.
	if q.compress {
		_ = out.Close()
		_, _ = io.WriteString(w, frame)
		return
	}
	_, _ = io.WriteString(out, frame)
	_ = out.Close()
}

// output is where the answer's bytes go, compressed as the client asked.
func (q *request) output(w http.ResponseWriter) io.WriteCloser {
	switch {
	case q.compress && q.method == "ZSTD":
		return &blockWriter{w: w, c: compress.NewWriter(0, compress.ZSTD)}
	case q.compress:
		return &blockWriter{w: w, c: compress.NewWriter(0, compress.LZ4)}
	case q.gzip:
		w.Header().Set("Content-Encoding", "gzip")
		return gzip.NewWriter(w)
	}
	return nopCloser{w}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// blockBytes is the size of a compressed block, before compression.
const blockBytes = 1 << 20

// blockWriter frames what is written as ClickHouse's compressed blocks.
type blockWriter struct {
	w   io.Writer
	c   *compress.Writer
	buf []byte
}

func (b *blockWriter) Write(p []byte) (int, error) {
	b.buf = append(b.buf, p...)
	for len(b.buf) >= blockBytes {
		if err := b.flush(blockBytes); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (b *blockWriter) flush(n int) error {
	if err := b.c.Compress(b.buf[:n]); err != nil {
		return err
	}
	b.buf = append(b.buf[:0], b.buf[n:]...)
	_, err := b.w.Write(b.c.Data)
	return err
}

func (b *blockWriter) Close() error {
	if len(b.buf) == 0 {
		return nil
	}
	return b.flush(len(b.buf))
}

func contentType(format string) string {
	switch format {
	case "JSON", "JSONCompact", "JSONStrings", "JSONColumns":
		return "application/json; charset=UTF-8"
	case "JSONEachRow", "JSONCompactEachRow", "JSONStringsEachRow":
		return "application/x-ndjson; charset=UTF-8"
	case "CSV":
		return "text/csv; charset=UTF-8; header=absent"
	case "CSVWithNames":
		return "text/csv; charset=UTF-8; header=present"
	case "TabSeparated", "TSV":
		return "text/tab-separated-values; charset=UTF-8"
	case "Native", "RowBinary", "Parquet":
		return "application/octet-stream"
	}
	return "text/plain; charset=UTF-8"
}

func summary(c chdb.Counts) string {
	return fmt.Sprintf(`{"read_rows":"%d","read_bytes":"%d","written_rows":"%d","written_bytes":"%d"}`,
		c.ReadRows, c.ReadBytes, c.WrittenRows, c.WrittenBytes)
}
