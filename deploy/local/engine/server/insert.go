package server

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"sluice/deploy/local/engine/chdb"
	"sluice/deploy/local/engine/statement"
)

// insertBuffer is how much of a body is handed to the engine at a time.
const insertBuffer = 1 << 20

// insert streams the statement's data and then the body into the engine. If
// they end too early, by the client or on the way, the insert is cancelled.
func (s *Server) insert(w http.ResponseWriter, c *chdb.Session, q *request, st statement.Statement) error {
	format := st.Format
	if format == "" {
		format = "Values"
	}
	ins, err := c.Insert(st.Head, format, q.params)
	if err != nil {
		return err
	}
	defer ins.Close()
	if err := feed(ins, io.MultiReader(strings.NewReader(st.Data), q.body)); err != nil {
		ins.Cancel()
		return badBody(err)
	}
	r, err := ins.Done()
	if err != nil {
		return err
	}
	defer r.Free()
	w.Header().Set("X-ClickHouse-Summary", summary(r.Counts()))
	w.WriteHeader(http.StatusOK)
	return nil
}

// feed hands the engine all of src, in pieces. Its error is src's: when the
// engine takes no more, its reason comes from Done.
func feed(ins *chdb.Insert, src io.Reader) error {
	buf := make([]byte, insertBuffer)
	for {
		n, over, err := fill(src, buf)
		if err != nil {
			return err
		}
		if !ins.Append(buf[:n]) || over {
			return nil
		}
	}
}

// fill reads until buf is full or src is over. Unlike io.ReadFull it does not
// call a src that ends early, io.ErrUnexpectedEOF of the connection, its end.
func fill(src io.Reader, buf []byte) (n int, over bool, err error) {
	for n < len(buf) && !over && err == nil {
		var m int
		m, err = src.Read(buf[n:])
		n += m
		if errors.Is(err, io.EOF) {
			over, err = true, nil
		}
	}
	return n, over, err
}
