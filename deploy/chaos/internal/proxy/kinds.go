package proxy

import (
	"bytes"
	"encoding/binary"
)

// The kinds of requests that a fault can be aimed at.
const (
	// Of Kafka's protocol.
	Produce = "produce"
	Fetch   = "fetch"
	Commit  = "commit"
	Group   = "group" // joining, syncing, heartbeats
	// Of ClickHouse's over HTTP.
	Rows    = "rows"    // an INSERT into event_log
	Journal = "journal" // an INSERT into the journal
	// Of the edge's.
	Post = "post"
	// Anything else.
	Other = "other"
	// Any is every kind, for faults that do not choose.
	Any = ""
)

// kafkaKind names a request of Kafka's protocol by its API key
// (https://kafka.apache.org/protocol#protocol_api_keys).
func kafkaKind(key int16) string {
	switch key {
	case 0:
		return Produce
	case 1:
		return Fetch
	case 8:
		return Commit
	case 11, 12, 14, 68:
		return Group
	}
	return Other
}

// kafkaRequest is what a request's header tells. head are the frame's bytes
// after its length.
func kafkaRequest(head []byte) (key int16, correlation int32, client string, ok bool) {
	const fixed = 10 // key, version, correlation id, the client id's length
	if len(head) < fixed {
		return 0, 0, "", false
	}
	key = int16(binary.BigEndian.Uint16(head))
	correlation = int32(binary.BigEndian.Uint32(head[4:]))
	if n := int(int16(binary.BigEndian.Uint16(head[8:]))); n > 0 && len(head) >= fixed+n {
		client = string(head[fixed : fixed+n])
	}
	return key, correlation, client, true
}

// httpKind names the request that bytes from a client belong to, "" when they
// hold no request's first line. The driver puts an INSERT's text into the URL.
func httpKind(b []byte) string {
	if !bytes.HasPrefix(b, []byte("POST ")) && !bytes.HasPrefix(b, []byte("GET ")) {
		return ""
	}
	line, _, _ := bytes.Cut(b, []byte("\r\n"))
	switch {
	case bytes.Contains(line, []byte("/api/events")):
		return Post
	case bytes.Contains(line, []byte("query=INSERT")) && bytes.Contains(line, []byte("event_log")):
		return Rows
	case bytes.Contains(line, []byte("query=INSERT")) && bytes.Contains(line, []byte("journal")):
		return Journal
	}
	return Other
}
