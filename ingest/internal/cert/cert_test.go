package cert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/logtest"
)

// pair is a certificate of its own for name, and its key, as PEM.
func pair(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, &k.PublicKey, k)
	require.NoError(t, err)
	private, err := x509.MarshalECPrivateKey(k)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, b, 0o600))
}

// inUse is the name in the certificate that the next handshake gets.
func inUse(t *testing.T, s *Store) string {
	t.Helper()
	c, err := s.Config().GetConfigForClient(nil)
	require.NoError(t, err)
	return c.Certificates[0].Leaf.Subject.CommonName
}

// TestReload: what can't be used is refused, named, and changes nothing; what can
// is what the next handshake gets.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), ClientCAFile: filepath.Join(dir, "ca.pem")}
	first, firstKey := pair(t, "first")
	second, secondKey := pair(t, "second")
	put(t, cfg.CertFile, first)
	put(t, cfg.KeyFile, firstKey)
	put(t, cfg.ClientCAFile, first)
	s, err := Open(cfg, logtest.New(io.Discard), prometheus.NewRegistry())
	require.NoError(t, err)
	require.Equal(t, "first", inUse(t, s))

	for name, change := range map[string]func(){
		"the key is another's":   func() { put(t, cfg.CertFile, second) },
		"no certificate":         func() { put(t, cfg.CertFile, []byte("none")) },
		"cut off":                func() { put(t, cfg.CertFile, first[:len(first)/2]) },
		"no file":                func() { require.NoError(t, os.Remove(cfg.KeyFile)) },
		"no authorities in file": func() { put(t, cfg.ClientCAFile, []byte("none")) },
	} {
		change()
		require.Error(t, s.Reload(), name)
		require.Contains(t, s.Error(), "certificate: ", name)
		require.Equal(t, "first", inUse(t, s), name)
		put(t, cfg.CertFile, first)
		put(t, cfg.KeyFile, firstKey)
		put(t, cfg.ClientCAFile, first)
		require.NoError(t, s.Reload(), name)
		require.Empty(t, s.Error(), name)
	}
	put(t, cfg.CertFile, second)
	put(t, cfg.KeyFile, secondKey)
	require.NoError(t, s.Reload())
	require.Equal(t, "second", inUse(t, s))
	c, err := s.Config().GetConfigForClient(nil)
	require.NoError(t, err)
	require.Equal(t, tls.RequireAndVerifyClientCert, c.ClientAuth)
}

// TestValidate: half of a configuration is none.
func TestValidate(t *testing.T) {
	for _, c := range []Config{{CertFile: "c"}, {KeyFile: "k"}, {ClientCAFile: "a"}} {
		require.Error(t, c.Validate())
	}
	require.NoError(t, Config{}.Validate())
	require.NoError(t, Config{CertFile: "c", KeyFile: "k", ClientCAFile: "a"}.Validate())
}
