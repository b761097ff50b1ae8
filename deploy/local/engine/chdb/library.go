// Package chdb calls libchdb, ClickHouse as a shared library, without cgo:
// sessions, queries whose result is held in memory or streamed, and streamed
// inserts. It knows nothing of any protocol.
package chdb

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// paramsCall is the shape of every call that takes a statement, a format and
// query parameters, each with its length.
type paramsCall func(conn, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr,
	names, nameLens, values, valueLens unsafe.Pointer, n uintptr) unsafe.Pointer

// Library is a loaded libchdb. The library keeps its state per process: load
// it once, and open every session with the same arguments.
type Library struct {
	connect   func(argc int32, argv unsafe.Pointer) unsafe.Pointer
	closeConn func(conn unsafe.Pointer)

	query       paramsCall
	stream      paramsCall
	streamFetch func(conn, stream unsafe.Pointer) unsafe.Pointer
	streamStop  func(conn, stream unsafe.Pointer)

	insert        paramsCall
	insertAppend  func(insert, data unsafe.Pointer, n uintptr) int32
	insertDone    func(insert unsafe.Pointer) unsafe.Pointer
	insertCancel  func(insert unsafe.Pointer)
	insertError   func(insert unsafe.Pointer) string
	insertDestroy func(insert unsafe.Pointer)

	resultDestroy func(result unsafe.Pointer)
	resultError   func(result unsafe.Pointer) string
	resultBuffer  func(result unsafe.Pointer) unsafe.Pointer
	resultLength  func(result unsafe.Pointer) uintptr
	rowsRead      func(result unsafe.Pointer) uint64
	storageRows   func(result unsafe.Pointer) uint64
	storageBytes  func(result unsafe.Pointer) uint64
	rowsWritten   func(result unsafe.Pointer) uint64
	bytesWritten  func(result unsafe.Pointer) uint64

	shutdown func() int32
}

// Load opens the shared library at path. The library's own signal handlers are
// switched off: the Go runtime must keep its own.
func Load(path string) (_ *Library, err error) {
	h, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, fmt.Errorf("loading the ClickHouse engine %s: %w", path, err)
	}
	defer func() { // a symbol that is not there panics
		if r := recover(); r != nil {
			err = fmt.Errorf("%s is not the libchdb this program was written for: %v", path, r)
		}
	}()
	var l Library
	var handlers func(int32)
	for name, fn := range map[string]any{
		"chdb_connect":                     &l.connect,
		"chdb_close_conn":                  &l.closeConn,
		"chdb_query_with_params_n":         &l.query,
		"chdb_stream_query_with_params_n":  &l.stream,
		"chdb_stream_fetch_result":         &l.streamFetch,
		"chdb_stream_cancel_query":         &l.streamStop,
		"chdb_stream_insert_with_params_n": &l.insert,
		"chdb_stream_append":               &l.insertAppend,
		"chdb_stream_done":                 &l.insertDone,
		"chdb_stream_cancel_insert":        &l.insertCancel,
		"chdb_stream_insert_error":         &l.insertError,
		"chdb_destroy_insert_stream":       &l.insertDestroy,
		"chdb_destroy_query_result":        &l.resultDestroy,
		"chdb_result_error":                &l.resultError,
		"chdb_result_buffer":               &l.resultBuffer,
		"chdb_result_length":               &l.resultLength,
		"chdb_result_rows_read":            &l.rowsRead,
		"chdb_result_storage_rows_read":    &l.storageRows,
		"chdb_result_storage_bytes_read":   &l.storageBytes,
		"chdb_result_rows_written":         &l.rowsWritten,
		"chdb_result_bytes_written":        &l.bytesWritten,
		"chdb_shutdown":                    &l.shutdown,
		"chdb_set_signal_handlers_enabled": &handlers,
	} {
		purego.RegisterLibFunc(fn, h, name)
	}
	handlers(0)
	return &l, nil
}

// Shutdown ends the engine's background work and closes its files. Every
// session must be closed before.
func (l *Library) Shutdown() { l.shutdown() }

// call passes Go strings to C by address. They are not NUL-terminated; every
// function used here takes lengths.
func call(fn paramsCall, conn unsafe.Pointer, query, format string, params map[string]string) unsafe.Pointer {
	var pin runtime.Pinner
	defer pin.Unpin()
	address := func(s string) unsafe.Pointer {
		if s == "" {
			s = "\x00" // an address is wanted even for nothing
		}
		p := unsafe.Pointer(unsafe.StringData(s))
		pin.Pin(p)
		return p
	}
	var names, values []unsafe.Pointer
	var nameLens, valueLens []uintptr
	for k, v := range params {
		names, nameLens = append(names, address(k)), append(nameLens, uintptr(len(k)))
		values, valueLens = append(values, address(v)), append(valueLens, uintptr(len(v)))
	}
	r := fn(conn, address(query), uintptr(len(query)), address(format), uintptr(len(format)),
		first(names), first(nameLens), first(values), first(valueLens), uintptr(len(names)))
	runtime.KeepAlive(names)
	runtime.KeepAlive(nameLens)
	runtime.KeepAlive(values)
	runtime.KeepAlive(valueLens)
	return r
}

func first[T any](s []T) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(s)) }
