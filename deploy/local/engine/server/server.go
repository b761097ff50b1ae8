// Package server answers ClickHouse's HTTP protocol with libchdb, well enough
// for unmodified clickhouse-go, curl and whatever else speaks it to one node.
package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"sluice/deploy/local/engine/statement"
)

// maxQueryBytes bounds a statement that stands in the request's body, with the
// data in it: such a body is held in memory.
const maxQueryBytes = 1 << 30

// Server is an http.Handler over one engine.
type Server struct {
	engine            *engine
	version, timezone string
	host              string
}

// Open starts the engine of the shared library on the data directory, which it
// makes if need be. One process at a time may have it.
func Open(library, data string) (*Server, error) {
	e, err := openEngine(library, data)
	if err != nil {
		return nil, err
	}
	s := &Server{engine: e}
	r, err := e.keep.Query("SELECT version(), timezone(), hostName()", "TSVRaw", nil)
	if err != nil {
		e.close()
		return nil, fmt.Errorf("the engine answers no query: %w", err)
	}
	defer r.Free()
	f := strings.Split(strings.TrimSpace(string(r.Bytes())), "\t")
	if len(f) != 3 {
		e.close()
		return nil, fmt.Errorf("the engine says of itself %q: want version, time zone and host", r.Bytes())
	}
	s.version, s.timezone, s.host = f[0], f[1], f[2]
	return s, nil
}

// Version is the engine's.
func (s *Server) Version() string { return s.version }

// Close ends the engine. No request may be under way.
func (s *Server) Close() { s.engine.close() }

// ServeHTTP answers /ping, and a query in the URL, the body or both. A request
// whose client goes away is killed.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-ClickHouse-Server-Display-Name", s.host)
	w.Header().Set("X-ClickHouse-Timezone", s.timezone)
	switch r.URL.Path {
	case "/ping", "/replicas_status":
		_, _ = io.WriteString(w, "Ok.\n") // a client that left is no one's loss
		return
	case "/":
	default:
		http.Error(w, "There is no handle "+r.URL.Path+"\nUse / or /ping.", http.StatusNotFound)
		return
	}
	q, err := s.read(r)
	defer q.close()
	w.Header().Set("X-ClickHouse-Query-Id", q.id)
	if err == nil {
		err = s.answer(r.Context(), w, q)
	}
	if err != nil {
		s.fail(w, err)
	}
}

// answer runs q. An error it returns was not yet told to the client.
func (s *Server) answer(ctx context.Context, w http.ResponseWriter, q *request) error {
	st, err := statement.Parse(q.query)
	if !st.Insert || q.query == "" {
		// The statement goes on in the body, or stands there as a whole.
		rest, rerr := io.ReadAll(io.LimitReader(q.body, maxQueryBytes+1))
		switch {
		case rerr != nil:
			return badBody(rerr)
		case len(rest) > maxQueryBytes:
			return &exception{codeCannotRead, fmt.Sprintf("DB::Exception: A statement in the body may have %d bytes: put it into the URL and only the data into the body. (CANNOT_READ_ALL_DATA)", maxQueryBytes)}
		case len(rest) > 0 && q.query != "":
			q.query += "\n"
		}
		q.query += string(rest)
		q.body = strings.NewReader("")
		st, err = statement.Parse(q.query)
	}
	if err != nil {
		return &exception{codeSyntax, "DB::Exception: Syntax error (" + err.Error() + "). (SYNTAX_ERROR)"}
	}
	if st.Keyword == "" {
		_, err := io.WriteString(w, "Ok.\n") // what ClickHouse says to no query
		return err
	}
	if st.Head == helloQuery && q.format == "Native" {
		return s.hello(w, q)
	}
	leave, err := s.engine.enter(ctx, q.id, st.Keyword == "KILL")
	if err != nil {
		return err
	}
	defer leave()
	c, err := s.engine.session(q)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := s.engine.killWhen(ctx, q.id)
	defer stop()
	if st.Insert {
		return s.insert(w, c, q, st)
	}
	return s.query(ctx, w, c, q, st)
}
