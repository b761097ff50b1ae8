package server

import (
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"
)

// request is one HTTP request, taken apart.
type request struct {
	id       string // of the query
	database string
	format   string            // of the output, unless the statement names one
	settings map[string]string // of this request alone
	params   map[string]string // {name:Type} in the statement
	query    string            // from the URL, or from a form's field
	body     io.Reader         // what follows the query, decompressed
	external []externalTable
	compress bool   // answer in ClickHouse's compressed blocks
	method   string // of those: LZ4 or ZSTD
	gzip     bool   // the client accepts gzip and asked for it

	closers []func() error
}

// externalTable is a table that a client sends along with its query.
type externalTable struct {
	name, structure, format string
	data                    []byte
}

// httpParams are the URL's parameters that are no settings.
func isHTTPParam(name string) bool {
	switch name {
	case "query", "database", "default_format", "query_id", "compress", "decompress", "client_protocol_version",
		"user", "password", "quota_key", "role", "buffer_size", "wait_end_of_query", "stacktrace":
		return true
	}
	return false
}

// read takes r apart. Its error is the client's fault.
func (s *Server) read(r *http.Request) (*request, error) {
	u := r.URL.Query()
	q := &request{
		id:       u.Get("query_id"),
		database: first(u.Get("database"), r.Header.Get("X-ClickHouse-Database")),
		format:   first(u.Get("default_format"), r.Header.Get("X-ClickHouse-Format"), "TabSeparated"),
		settings: map[string]string{},
		params:   map[string]string{},
		query:    u.Get("query"),
		compress: u.Get("compress") == "1",
		method:   strings.ToUpper(u.Get("network_compression_method")),
		gzip:     u.Get("enable_http_compression") == "1" && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip"),
	}
	if q.id == "" {
		q.id = uuid.NewString()
	}
	body, err := q.decoded(r.Body, r.Header.Get("Content-Encoding"), u.Get("decompress") == "1")
	if err != nil {
		return q, err
	}
	q.body = body
	if ct, p, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && ct == "multipart/form-data" {
		if err := q.readForm(multipart.NewReader(body, p["boundary"]), u); err != nil {
			return q, &exception{codeCannotRead, "DB::Exception: Cannot read the form: " + err.Error() + ". (CANNOT_READ_ALL_DATA)"}
		}
		q.body = strings.NewReader("")
	}
	for name, v := range u {
		switch param, isParam := strings.CutPrefix(name, "param_"); {
		case isParam:
			q.params[param] = v[0]
		case strings.HasPrefix(name, "session_"):
			if name == "session_id" {
				return q, &exception{codeNotSupported, "DB::Exception: HTTP sessions are not supported by the embedded engine. (NOT_IMPLEMENTED)"}
			}
		case !isHTTPParam(name) && !q.describesExternal(name):
			q.settings[name] = v[0]
		}
	}
	if r.Method == http.MethodGet {
		q.settings["readonly"] = "2" // as ClickHouse's server does
	}
	return q, nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// decoded undoes the HTTP coding, then ClickHouse's own compression.
func (q *request) decoded(body io.Reader, coding string, native bool) (io.Reader, error) {
	switch coding {
	case "", "identity":
	case "gzip":
		g, err := gzip.NewReader(body)
		if err != nil {
			return nil, badBody(err)
		}
		body = g
	case "deflate":
		z, err := zlib.NewReader(body)
		if err != nil {
			return nil, badBody(err)
		}
		body = z
	case "zstd":
		z, err := zstd.NewReader(body)
		if err != nil {
			return nil, badBody(err)
		}
		q.closers = append(q.closers, func() error { z.Close(); return nil })
		body = z
	default:
		return nil, &exception{codeMediaType, fmt.Sprintf("DB::Exception: Content-Encoding %q is not known to the embedded engine: use gzip, deflate, zstd or none. (UNSUPPORTED_MEDIA_TYPE)", coding)}
	}
	if native {
		body = cleanEOF{compress.NewReader(body)}
	}
	return body, nil
}

func badBody(err error) error {
	return &exception{codeCannotRead, "DB::Exception: Cannot read all data of the request: " + err.Error() + ". (CANNOT_READ_ALL_DATA)"}
}

// cleanEOF turns the wrapped io.EOF of the block reader into io.EOF itself.
type cleanEOF struct{ r io.Reader }

func (c cleanEOF) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// readForm takes the query and the external tables of a form. A table's format
// and columns stand in the URL, as NAME_format and NAME_structure.
func (q *request) readForm(form *multipart.Reader, u url.Values) error {
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		data, err := io.ReadAll(part)
		if err != nil {
			return err
		}
		name := part.FormName()
		if part.FileName() == "" && u.Get(name+"_structure") == "" {
			if name == "query" {
				q.query += string(data)
			}
			continue
		}
		q.external = append(q.external, externalTable{name, u.Get(name + "_structure"), first(u.Get(name+"_format"), "TabSeparated"), data})
	}
}

func (q *request) describesExternal(name string) bool {
	for _, t := range q.external {
		if name == t.name+"_format" || name == t.name+"_structure" {
			return true
		}
	}
	return false
}

// close frees what decoding held.
func (q *request) close() {
	for _, c := range q.closers {
		_ = c() // readers have nothing left to say
	}
}
