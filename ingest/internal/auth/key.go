// Package auth says who may send events: API keys, kept in a file as keyed
// hashes, and what each may do.
//
// A key is 256 random bits, so no one finds one by trying, however fast the hash
// is: HMAC-SHA256 with a pepper that is not in the file. A slow hash (argon2id)
// protects passwords, which people choose; here it would only let strangers burn
// the edge's time. The pepper keeps a copied file from telling whether a key
// found elsewhere is one of ours.
package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Prefix begins every key, so that people and secret scanners know one.
const Prefix = "sluice_"

const (
	idBytes     = 10 // 16 characters of base32
	secretBytes = 32 // 43 characters of base64
	idChars     = 16
	keyChars    = len(Prefix) + idChars + 1 + 43
)

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewKey makes a key: sluice_<id>_<secret>. The id is no secret; the edge's log,
// its metrics and the keys file name the key by it.
func NewKey() (id, key string) {
	var b [idBytes + secretBytes]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	id = idEncoding.EncodeToString(b[:idBytes])
	return id, Prefix + id + "_" + base64.RawURLEncoding.EncodeToString(b[idBytes:])
}

// idOf is the id in the text of a key, "" when it is none.
func idOf(key string) string {
	if len(key) != keyChars || !strings.HasPrefix(key, Prefix) || key[len(Prefix)+idChars] != '_' {
		return ""
	}
	return key[len(Prefix) : len(Prefix)+idChars]
}

// Pepper is the key of the hashes.
type Pepper []byte

// minPepperBytes is the least a pepper may have.
const minPepperBytes = 32

// Hash is what is kept of a key.
func (p Pepper) Hash(key string) [sha256.Size]byte {
	mac := hmac.New(sha256.New, p)
	mac.Write([]byte(key))
	var sum [sha256.Size]byte
	mac.Sum(sum[:0])
	return sum
}

// ReadPepper reads the file of a pepper: 32 bytes or more, of which the whole
// content counts.
func ReadPepper(path string) (Pepper, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the pepper of the keys: %w (\"ingest keys add\" makes it)", err)
	}
	if len(b) < minPepperBytes {
		return nil, fmt.Errorf("the pepper of the keys, %s, has %d bytes, want %d or more", path, len(b), minPepperBytes)
	}
	return b, nil
}

// EnsurePepper makes the file, readable by its owner alone, unless it is there.
func EnsurePepper(path string) (Pepper, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if os.IsExist(err) {
		return ReadPepper(path)
	}
	if err != nil {
		return nil, fmt.Errorf("making the pepper of the keys: %w", err)
	}
	var b [minPepperBytes]byte
	_, _ = rand.Read(b[:])
	_, err = f.Write(b[:])
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("making the pepper of the keys: %w", err)
	}
	return b[:], nil
}
