package event

import (
	"crypto/sha256"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// Hash is the first half of a SHA-256: of a payload's canonical form. Equal
// hashes count as equal payloads.
type Hash [16]byte

// Canonical appends the canonical form of a payload to dst: no white space,
// members ordered by name, each string in its shortest spelling, numbers as
// they were written. Two payloads are equal when their canonical forms are:
// {"a":1,"b":2} and {"b":2,"a":1} are, {"a":1} and {"a":1.0} are not.
//
// It fails only on text that [Decoder.Decode] would refuse.
func Canonical(dst, payload []byte) ([]byte, error) {
	out, err := jsontext.AppendFormat(dst, payload,
		jsontext.ReorderRawObjects(true),
		jsontext.CanonicalizeRawInts(false),
		jsontext.CanonicalizeRawFloats(false))
	if err != nil {
		return dst, fmt.Errorf("payload: %w", err)
	}
	return out, nil
}

// PayloadHash is the hash of a payload's canonical form. The payload must have
// come from [Decoder.Decode]; any other text is hashed as it stands.
func PayloadHash(payload []byte) Hash {
	if sum, ok := canonicalHash(payload); ok {
		return Hash(sum[:16])
	}
	var buf [1024]byte
	text, err := Canonical(buf[:0], payload)
	if err != nil {
		text = payload
	}
	sum := sha256.Sum256(text)
	return Hash(sum[:16])
}

func appendString(dst []byte, s string) []byte {
	// The only error is invalid UTF-8, which decoding has refused already;
	// were there any, it would be written as U+FFFD.
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}
