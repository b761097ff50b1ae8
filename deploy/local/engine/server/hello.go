package server

import (
	"encoding/binary"
	"errors"
	"net/http"

	"github.com/ClickHouse/ch-go/proto"
)

// helloQuery is what clickhouse-go asks first on every HTTP connection. It
// reads the answer in the newest revision of the Native format, and all later
// ones in the revision that the answer names. libchdb writes revision 0 alone:
// so that is what we name, and its bytes go through untouched.
const helloQuery = "SELECT displayName(), version(), revision(), timezone()"

// hello answers helloQuery: one block of one row, with the additions of a newer
// revision.
func (s *Server) hello(w http.ResponseWriter, q *request) error {
	var b proto.Buffer
	b.Buf = append(b.Buf, 1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0) // block info: not overflowed, no bucket, end
	b.PutUVarInt(4)                                           // columns
	b.PutUVarInt(1)                                           // rows
	column := func(name, typ string) {
		b.PutString(name)
		b.PutString(typ)
		b.PutBool(false) // no custom serialization
	}
	column("displayName()", "String")
	b.PutString(s.host)
	column("version()", "String")
	b.PutString(s.version)
	column("revision()", "UInt32")
	b.Buf = binary.LittleEndian.AppendUint32(b.Buf, 0)
	column("timezone()", "String")
	b.PutString(s.timezone)
	out := q.output(w)
	_, err := out.Write(b.Buf)
	_ = errors.Join(err, out.Close()) // a client that left is no one's loss
	return nil
}
