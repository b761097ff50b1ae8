package auth

import (
	"bytes"
	"encoding/hex"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/ingest/internal/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var clock = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// fixture is a file of keys and its store.
type fixture struct {
	file   string
	pepper Pepper
	log    bytes.Buffer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{file: filepath.Join(t.TempDir(), "keys.yaml")}
	var err error
	f.pepper, err = EnsurePepper(Config{KeysFile: f.file}.Pepper())
	require.NoError(t, err)
	return f
}

// add makes a key.
func (f *fixture) add(t *testing.T, change func(*Entry)) (id, key string) {
	t.Helper()
	id, key = NewKey()
	sum := f.pepper.Hash(key)
	e := Entry{ID: id, Hash: hex.EncodeToString(sum[:]), Sources: []string{"shop"}}
	if change != nil {
		change(&e)
	}
	require.NoError(t, Update(f.file, func(all []Entry) ([]Entry, error) { return append(all, e), nil }))
	return id, key
}

func (f *fixture) open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(Config{KeysFile: f.file}, logtest.New(&f.log), prometheus.NewRegistry())
	require.NoError(t, err)
	return s
}

func TestAuthenticate(t *testing.T) {
	f := newFixture(t)
	id, key := f.add(t, nil)
	_, disabled := f.add(t, func(e *Entry) { e.Disabled = true })
	_, expired := f.add(t, func(e *Entry) { e.Expires = clock })
	_, valid := f.add(t, func(e *Entry) { e.Expires = clock.Add(time.Second) })
	_, other := NewKey()
	s := f.open(t)
	mixed := key[:len(key)-1] + "A" // the right id, another secret
	if mixed == key {
		mixed = key[:len(key)-1] + "B"
	}
	bearer := func(v string) http.Header { return http.Header{"Authorization": {v}} }
	plain := func(v string) http.Header { return http.Header{"X-Api-Key": {v}} }
	rows := []struct {
		name   string
		header http.Header
		want   error
	}{
		{"bearer", bearer("Bearer " + key), nil},
		{"bearer in lower case", bearer("bearer  " + key), nil},
		{"plain", plain(key), nil},
		{"not expired yet", plain(valid), nil},
		{"none", http.Header{}, ErrNoKey},
		{"another scheme", bearer("Basic " + key), ErrNoKey},
		{"two", http.Header{"Authorization": {"Bearer " + key}, "X-Api-Key": {key}}, ErrSeveralKeys},
		{"twice", http.Header{"X-Api-Key": {key, key}}, ErrSeveralKeys},
		{"expired", plain(expired), ErrWrongKey},
		{"disabled", plain(disabled), ErrWrongKey},
		{"of nobody", plain(other), ErrWrongKey},
		{"another secret", plain(mixed), ErrWrongKey},
		{"cut off", plain(key[:len(key)-1]), ErrWrongKey},
		{"longer", plain(key + "A"), ErrWrongKey},
		{"empty", plain(""), ErrWrongKey},
		{"of another prefix", plain("Sluice_" + key[len(Prefix):]), ErrWrongKey},
		{"long", plain(strings.Repeat("x", 30_000)), ErrWrongKey},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			c, err := s.Authenticate(r.header, clock)
			require.ErrorIs(t, err, r.want)
			require.Equal(t, r.want == nil, c != nil)
		})
	}
	c, err := s.Authenticate(plain(key), clock)
	require.NoError(t, err)
	require.Equal(t, id, c.ID)
	for _, secret := range []string{key, disabled, expired} {
		require.NotContains(t, f.log.String(), secret)
	}
	text, err := os.ReadFile(f.file)
	require.NoError(t, err)
	require.NotContains(t, string(text), key)
}

// TestPepper: the hashes of one pepper mean nothing under another.
func TestPepper(t *testing.T) {
	f := newFixture(t)
	_, key := f.add(t, nil)
	require.NoError(t, os.WriteFile(f.file+".pepper", bytes.Repeat([]byte("x"), 32), 0o600))
	_, err := f.open(t).Authenticate(http.Header{"X-Api-Key": {key}}, clock)
	require.ErrorIs(t, err, ErrWrongKey)

	require.NoError(t, os.WriteFile(f.file+".pepper", []byte("short"), 0o600))
	_, err = Open(Config{KeysFile: f.file}, logtest.New(io.Discard), nil)
	require.ErrorContains(t, err, "32 or more")
	info, err := os.Stat(f.file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestMay(t *testing.T) {
	f := newFixture(t)
	_, key := f.add(t, func(e *Entry) { e.Sources = []string{"shop", "app-*"} })
	_, all := f.add(t, func(e *Entry) { e.Sources = []string{"*"} })
	s := f.open(t)
	c, err := s.Authenticate(http.Header{"X-Api-Key": {key}}, clock)
	require.NoError(t, err)
	for source, want := range map[string]bool{"shop": true, "shop2": false, "Shop": false, "app-": true, "app-1": true, "app": false, "": false, "app-*": true} {
		require.Equal(t, want, c.May(source), source)
	}
	c, err = s.Authenticate(http.Header{"X-Api-Key": {all}}, clock)
	require.NoError(t, err)
	require.True(t, c.May("anything"))
}

// TestReload: a wrong file leaves the keys in force; what a key has used is not
// given back by a reload that does not concern it.
func TestReload(t *testing.T) {
	f := newFixture(t)
	_, key := f.add(t, func(e *Entry) { e.Rate, e.Burst = 1, 10 })
	s := f.open(t)
	header := http.Header{"X-Api-Key": {key}}
	c, err := s.Authenticate(header, clock)
	require.NoError(t, err)
	ok, _ := c.Bucket.Take(clock, 10)
	require.True(t, ok)

	_, second := f.add(t, nil)
	require.NoError(t, s.Reload())
	_, err = s.Authenticate(http.Header{"X-Api-Key": {second}}, clock)
	require.NoError(t, err)
	c, err = s.Authenticate(header, clock)
	require.NoError(t, err)
	ok, _ = c.Bucket.Take(clock, 1)
	require.False(t, ok, "the bucket was filled by a reload")

	require.NoError(t, os.WriteFile(f.file, []byte("keys: [{id: x}]"), 0o600))
	require.Error(t, s.Reload())
	require.Contains(t, s.Error(), "key 1")
	_, err = s.Authenticate(header, clock)
	require.NoError(t, err)
	require.Contains(t, f.log.String(), "stay in force")
}

func TestWrongFiles(t *testing.T) {
	hash := strings.Repeat("0", 64)
	id := strings.Repeat("a", idChars)
	rows := []struct{ name, text, want string }{
		{"not YAML", "keys: [", "keys.yaml"},
		{"a member that there is not", "keys:\n- {id: " + id + ", hash: '" + hash + "', sources: [a], ratee: 1}", "ratee"},
		{"no source", "keys:\n- {id: " + id + ", hash: '" + hash + "'}", "sources"},
		{"an asterisk inside", "keys:\n- {id: " + id + ", hash: '" + hash + "', sources: ['a*b']}", "at its end"},
		{"no hash", "keys:\n- {id: " + id + ", hash: 'zz', sources: [a]}", "64 hexadecimal digits"},
		{"negative", "keys:\n- {id: " + id + ", hash: '" + hash + "', sources: [a], rate: -1}", "negative"},
		{"twice", "keys:\n- &k {id: " + id + ", hash: '" + hash + "', sources: [a]}\n- *k", "there twice"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "keys.yaml")
			require.NoError(t, os.WriteFile(file, []byte(r.text), 0o600))
			_, err := ReadFile(file)
			require.ErrorContains(t, err, r.want)
		})
	}
}

// TestRateIsANumber: YAML has .nan and .inf, and no comparison refuses the first:
// a key with such a rate was let in with no limit that anyone had meant.
func TestRateIsANumber(t *testing.T) {
	good := "keys:\n- id: " + strings.Repeat("a", idChars) + "\n  hash: " + strings.Repeat("0", 64) + "\n  sources: [\"*\"]\n  rate: "
	for rate, wants := range map[string]string{".nan": "rate is NaN", ".inf": "rate is +Inf", "-.inf": "rate is -Inf", "-1": "negative", "0.5": ""} {
		file := filepath.Join(t.TempDir(), "keys.yaml")
		require.NoError(t, os.WriteFile(file, []byte(good+rate+"\n"), 0o600))
		_, err := ReadFile(file)
		if wants == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, wants, rate)
	}
}

// FuzzReadFile: whatever stands in a file of keys, it is refused, or each of its
// entries can be used: a finite rate, at least one source, one id each.
func FuzzReadFile(f *testing.F) {
	f.Add("keys:\n- id: " + strings.Repeat("a", idChars) + "\n  hash: " + strings.Repeat("0", 64) + "\n  sources: [\"*\"]\n  rate: .nan\n")
	f.Add("keys: [{}]")
	f.Add("")
	file := filepath.Join(f.TempDir(), "keys.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		entries, err := ReadFile(file)
		if err != nil {
			return
		}
		ids := map[string]bool{}
		for _, e := range entries {
			require.False(t, ids[e.ID])
			ids[e.ID] = true
			require.NotEmpty(t, e.Sources)
			require.True(t, e.Rate >= 0 && e.Rate < math.Inf(1))
		}
	})
}

// TestUpdatesAtOnce: two people add keys at the same time; none is lost, and no
// one ever reads half a file.
func TestUpdatesAtOnce(t *testing.T) {
	f := newFixture(t)
	f.add(t, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { f.add(t, nil) })
	}
	for range 20 {
		_, err := ReadFile(f.file)
		require.NoError(t, err)
	}
	wg.Wait()
	all, err := ReadFile(f.file)
	require.NoError(t, err)
	require.Len(t, all, 9)
	left, err := filepath.Glob(f.file + ".new-*")
	require.NoError(t, err)
	require.Empty(t, left)
}

func BenchmarkAuthenticate(b *testing.B) {
	pepper := Pepper(bytes.Repeat([]byte("p"), 32))
	id, key := NewKey()
	sum := pepper.Hash(key)
	s := &Store{pepper: pepper}
	clients := map[string]*Client{id: client(Entry{ID: id, Hash: hex.EncodeToString(sum[:]), Sources: []string{"*"}}, nil)}
	s.clients.Store(&clients)
	h := http.Header{"Authorization": {"Bearer " + key}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Authenticate(h, clock); err != nil {
			b.Fatal(err)
		}
	}
}
