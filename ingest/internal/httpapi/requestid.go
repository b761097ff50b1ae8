package httpapi

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strconv"
	"sync/atomic"
)

// headerRequestID names a request in its answer, in a problem's instance and in
// the log.
const headerRequestID = "X-Request-Id"

// requestIDs makes names of requests: a prefix of this process, and a count.
type requestIDs struct {
	prefix string
	count  atomic.Uint64
}

func newRequestIDs() *requestIDs {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return &requestIDs{prefix: hex.EncodeToString(b[:]) + "-"}
}

// set names the request: as the sender did, if that can stand in a log line and
// in a URN, else by a new name.
func (r *requestIDs) set(answer, request http.Header) {
	if given := request[headerRequestID]; len(given) == 1 && saneID(given[0]) {
		answer[headerRequestID] = given
		return
	}
	var buf [32]byte
	id := strconv.AppendUint(append(buf[:0], r.prefix...), r.count.Add(1), 36)
	answer[headerRequestID] = []string{string(id)}
}

func saneID(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}
