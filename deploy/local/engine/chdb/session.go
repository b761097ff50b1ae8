package chdb

import (
	"errors"
	"runtime"
	"unsafe"
)

// Session has its own settings, current database and temporary tables. Its
// methods must not be called concurrently, and each occupies an OS thread until
// it returns.
type Session struct {
	lib *Library
	h   unsafe.Pointer // points to the connection's handle
}

// Connect opens a session. args are those of clickhouse-local, such as
// --path=DIR; the first call of a process starts the engine on that path, and
// later ones must repeat its arguments.
func (l *Library) Connect(args ...string) (*Session, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	argv := make([]unsafe.Pointer, 0, len(args)+2)
	for _, a := range append([]string{"chdb"}, args...) {
		b := append([]byte(a), 0)
		pin.Pin(&b[0])
		argv = append(argv, unsafe.Pointer(&b[0]))
	}
	argc := len(argv)
	argv = append(argv, nil)
	h := l.connect(int32(argc), unsafe.Pointer(&argv[0]))
	runtime.KeepAlive(argv)
	if h == nil {
		return nil, errors.New("the ClickHouse engine opened no session: is its data directory damaged, or used by another process?")
	}
	return &Session{lib: l, h: h}, nil
}

// Close ends the session and drops its temporary tables.
func (s *Session) Close() {
	if s.h != nil {
		s.lib.closeConn(s.h)
		s.h = nil
	}
}

func (s *Session) conn() unsafe.Pointer { return *(*unsafe.Pointer)(s.h) }

// Query runs a statement and holds its whole output, in format unless the
// statement names its own. The caller frees the result.
func (s *Session) Query(query, format string, params map[string]string) (*Result, error) {
	return s.lib.take(call(s.lib.query, s.conn(), query, format, params))
}

// Exec runs a statement of which no output is wanted.
func (s *Session) Exec(query string, params map[string]string) error {
	r, err := s.Query(query, "Null", params)
	if err == nil {
		r.Free()
	}
	return err
}

// Stream is a SELECT whose output comes in pieces.
type Stream struct {
	s *Session
	r *Result
}

// Stream begins a SELECT; the session takes nothing else until it is closed.
func (s *Session) Stream(query, format string, params map[string]string) (*Stream, error) {
	r, err := s.lib.take(call(s.lib.stream, s.conn(), query, format, params))
	if err != nil {
		return nil, err
	}
	return &Stream{s, r}, nil
}

// Next returns the next piece, which the caller frees, or nil at the end.
func (s *Stream) Next() (*Result, error) {
	r, err := s.s.lib.take(s.s.lib.streamFetch(s.s.conn(), s.r.h))
	if err != nil {
		return nil, err
	}
	if len(r.Bytes()) == 0 && s.s.lib.rowsRead(r.h) == 0 {
		r.Free()
		return nil, nil
	}
	return r, nil
}

// Cancel ends the query before its end.
func (s *Stream) Cancel() { s.s.lib.streamStop(s.s.conn(), s.r.h) }

// Close frees the stream.
func (s *Stream) Close() { s.r.Free() }

// Insert is an INSERT whose data come in pieces, in any split.
type Insert struct {
	lib     *Library
	h       unsafe.Pointer
	refused string // why the engine took a piece no more
}

// Insert begins "INSERT INTO t (columns)", a statement without FORMAT clause
// and without data; the data will be in format. The session takes nothing else
// until the insert is closed. It must end by Done or by Cancel, then Close.
func (s *Session) Insert(query, format string, params map[string]string) (*Insert, error) {
	i := &Insert{lib: s.lib, h: call(s.lib.insert, s.conn(), query, format, params)}
	if i.h == nil {
		return nil, errors.New("the ClickHouse engine began no insert and gave no reason")
	}
	if text := s.lib.insertError(i.h); text != "" {
		i.Close()
		return nil, errors.New(text)
	}
	return i, nil
}

// Append adds data. If it returns false the engine takes no more, and Done says
// why.
func (i *Insert) Append(b []byte) bool {
	if len(b) == 0 {
		return i.refused == ""
	}
	failed := i.lib.insertAppend(i.h, unsafe.Pointer(&b[0]), uintptr(len(b))) != 0
	runtime.KeepAlive(b)
	if failed {
		i.refused = i.lib.insertError(i.h)
		if i.refused == "" {
			i.refused = "the ClickHouse engine takes no more data and gave no reason"
		}
	}
	return !failed
}

// Done ends the data and waits until the rows are in the table. The caller
// frees the result.
func (i *Insert) Done() (*Result, error) {
	r, err := i.lib.take(i.lib.insertDone(i.h))
	if err == nil && i.refused != "" {
		r.Free()
		return nil, errors.New(i.refused)
	}
	return r, err
}

// Cancel gives the insert up: what the engine has not yet written it never
// will.
func (i *Insert) Cancel() { i.lib.insertCancel(i.h) }

// Close frees the insert.
func (i *Insert) Close() {
	if i.h != nil {
		i.lib.insertDestroy(i.h)
		i.h = nil
	}
}

// Result is a statement's output and what it cost.
type Result struct {
	lib *Library
	h   unsafe.Pointer
}

func (l *Library) take(h unsafe.Pointer) (*Result, error) {
	if h == nil {
		return nil, errors.New("the ClickHouse engine returned no result and gave no reason")
	}
	if text := l.resultError(h); text != "" {
		l.resultDestroy(h)
		return nil, errors.New(text)
	}
	return &Result{l, h}, nil
}

// Bytes is the output. It is the engine's memory: valid until Free.
func (r *Result) Bytes() []byte {
	n := r.lib.resultLength(r.h)
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(r.lib.resultBuffer(r.h)), n)
}

// Counts are the rows and bytes read from storage and written to tables.
type Counts struct{ ReadRows, ReadBytes, WrittenRows, WrittenBytes uint64 }

// Counts returns what the statement read and wrote.
func (r *Result) Counts() Counts {
	return Counts{r.lib.storageRows(r.h), r.lib.storageBytes(r.h), r.lib.rowsWritten(r.h), r.lib.bytesWritten(r.h)}
}

// Free gives the result's memory back.
func (r *Result) Free() {
	if r.h != nil {
		r.lib.resultDestroy(r.h)
		r.h = nil
	}
}
