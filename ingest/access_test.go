package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/ingest/internal/problem"
	"sluice/schemas/topic"
)

// addKey makes a key by the command.
func addKey(t *testing.T, file string, args ...string) (id, key string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	args = append([]string{"keys", "add", "--json", "--auth.keys_file", file}, args...)
	require.Zero(t, run(t.Context(), args, nil, &stdout, &stderr), "%s", &stderr)
	var made struct{ ID, Key string }
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &made))
	return made.ID, made.Key
}

func bearer(key string) []string { return []string{"Authorization", "Bearer " + key} }

// TestKeys: who may send what, and that keys come and go without a restart.
func TestKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	id, key := addKey(t, file, "--source", "app", "--name", "the app")
	_, other := addKey(t, file, "--source", "shop-*")
	_, narrow := addKey(t, file, "--source", "*", "--body-bytes", "200")
	e := startEdge(t, newCluster(t), func(c *config) { c.Auth.KeysFile = file })

	a := e.post(t, "/api/events", []byte(good))
	require.Equal(t, http.StatusUnauthorized, a.status)
	require.Equal(t, `Bearer realm="sluice"`, a.header.Get("WWW-Authenticate"))
	require.Equal(t, problem.TypePrefix+"unauthorized", a.problem(t).Type)
	a = e.post(t, "/api/events", []byte(good), bearer(key+"x")...)
	require.Equal(t, http.StatusUnauthorized, a.status)
	require.Contains(t, a.header.Get("WWW-Authenticate"), "invalid_token")

	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(good), bearer(key)...).status)
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(good), "X-Api-Key", key).status)

	a = e.post(t, "/api/events", []byte(good), bearer(other)...)
	require.Equal(t, http.StatusForbidden, a.status)
	require.Equal(t, "/source", a.problem(t).Error[0].Pointer)
	a = e.post(t, "/api/events/batch", array(good, with("source", `"shop-1"`)), bearer(other)...)
	require.Equal(t, http.StatusMultiStatus, a.status)
	b := a.batch(t)
	require.Equal(t, []int{1, 1}, []int{b.Accepted, b.Rejected})
	require.Contains(t, b.Items[0].Error[0].Detail, "is not among the sources")

	big := with("payload", `{"a":"`+strings.Repeat("x", 300)+`"}`)
	require.Equal(t, http.StatusRequestEntityTooLarge, e.post(t, "/api/events", []byte(big), bearer(narrow)...).status)
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(good), bearer(narrow)...).status)

	var stderr bytes.Buffer
	require.Zero(t, run(t.Context(), []string{"keys", "revoke", "--auth.keys_file", file, id}, nil, &stderr, &stderr))
	require.Eventually(t, func() bool {
		return e.post(t, "/api/events", []byte(good), bearer(key)...).status == http.StatusUnauthorized
	}, 20*time.Second, 50*time.Millisecond, "a revoked key is still let in")
	_, late := addKey(t, file, "--source", "app")
	require.Eventually(t, func() bool {
		return e.post(t, "/api/events", []byte(good), bearer(late)...).status == http.StatusAccepted
	}, 20*time.Second, 50*time.Millisecond, "a new key is not let in")

	// Health and metrics ask for none.
	status, _ := e.get(t, e.url+"/readyz")
	require.Equal(t, http.StatusOK, status)

	// A file that is wrong leaves the keys in force, and /health says so.
	require.NoError(t, os.WriteFile(file, []byte("keys: ["), 0o600))
	require.Eventually(t, func() bool {
		_, body := e.get(t, e.url+"/health")
		return strings.Contains(body, "what was read before is in force")
	}, 20*time.Second, 50*time.Millisecond)
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(good), bearer(late)...).status)
	for _, k := range []string{key, other, narrow, late} {
		require.NotContains(t, e.log.String(), k)
	}
}

// TestRates: the events of a batch count, refused ones too, and what the headers
// say is so.
func TestRates(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	_, key := addKey(t, file, "--source", "app", "--rate", "0.2", "--burst", "10")
	_, free := addKey(t, file, "--source", "app")
	e := startEdge(t, newCluster(t), func(c *config) { c.Auth.KeysFile = file })

	a := e.post(t, "/api/events/batch", array(manyEvents(7)...), bearer(key)...)
	require.Equal(t, http.StatusAccepted, a.status)
	require.Equal(t, `"events";q=10;w=50`, a.header.Get("RateLimit-Policy"))
	require.Regexp(t, `^"events";r=3;t=[1-5]$`, a.header.Get("RateLimit"))
	require.Equal(t, http.StatusBadRequest, e.post(t, "/api/events", []byte("{}"), bearer(key)...).status)
	// More than is there is taken whole, and owed.
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events/batch", array(manyEvents(20)...), bearer(key)...).status)
	a = e.post(t, "/api/events", []byte(good), bearer(key)...)
	require.Equal(t, http.StatusTooManyRequests, a.status)
	require.Equal(t, problem.TypePrefix+"rate-limited", a.problem(t).Type)
	wait, err := strconv.Atoi(a.header.Get("Retry-After"))
	require.NoError(t, err)
	require.InDelta(t, 95, wait, 5, "18 owed and one more, at one in five seconds")
	require.Contains(t, a.header.Get("RateLimit"), "r=0;")

	a = e.post(t, "/api/events", []byte(good), bearer(free)...)
	require.Equal(t, http.StatusAccepted, a.status, "one key is held up by another")
	require.Empty(t, a.header.Get("RateLimit"))
}

// TestGuesses: keys guessed fast from one address are answered less and less, one
// line in the log tells of them, and whoever has a key is let in all the while.
func TestGuesses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	_, key := addKey(t, file, "--source", "app")
	e := startEdge(t, newCluster(t), func(c *config) { c.Auth.KeysFile = file })
	counts := map[int]int{}
	for i := range 1000 {
		guess := key[:len(key)-4] + strconv.Itoa(1000+i)
		a := e.post(t, "/api/events", []byte(good), bearer(guess)...)
		counts[a.status]++
		if a.status == http.StatusTooManyRequests {
			require.NotEmpty(t, a.header.Get("Retry-After"))
		}
		if i%100 == 0 {
			require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(good), bearer(key)...).status)
		}
	}
	require.Equal(t, 1000, counts[http.StatusUnauthorized]+counts[http.StatusTooManyRequests])
	require.Greater(t, counts[http.StatusTooManyRequests], 900)
	require.Equal(t, 1, strings.Count(e.log.String(), "a wrong key"))
	require.NotContains(t, e.log.String(), key[:len(key)-4])
}

// TestAccessConfig: what an edge is not started with.
func TestAccessConfig(t *testing.T) {
	rows := []struct {
		name string
		args []string
		want string
	}{
		{"all addresses", []string{"--http.address", ":0"}, "ingest keys add"},
		{"another address", []string{"--http.address", "192.0.2.1:80"}, "--insecure lets everyone in"},
		{"a name", []string{"--http.address", "edge.example:80"}, "ingest keys add"},
		{"both", []string{"--insecure", "--auth.keys_file", "k"}, "set one of them"},
		{"a pepper for nothing", []string{"--auth.pepper_file", "p"}, "auth.pepper_file without"},
		{"half a certificate", []string{"--http.tls.cert_file", "c"}, "set both"},
		{"clients' certificates without ours", []string{"--http.tls.client_ca_file", "c"}, "needs cert_file"},
		{"every origin", []string{"--http.cors_origins", "*"}, "each in full"},
		{"schemas: neither", []string{"--schemas.unregistered", "drop"}, "pass or refuse"},
		{"schemas: all refused", []string{"--schemas.unregistered", "refuse"}, "every event would be refused"},
		{"keys without a file", []string{"keys", "list"}, "auth.keys_file is not set"},
		{"a key for nothing", []string{"keys", "add", "--auth.keys_file", "k"}, "sources: want at least one"},
		{"a key of the past", []string{"keys", "add", "--auth.keys_file", "k", "--source", "a", "--expires", "2020-01-01T00:00:00Z"}, "is past"},
		{"schemas without a directory", []string{"schemas", "list"}, "schemas.dir is not set"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			require.Equal(t, exitUsage, run(t.Context(), r.args, nil, &stdout, &stderr), "%s", &stderr)
			require.Contains(t, stderr.String(), r.want)
		})
	}
	for address, want := range map[string]bool{"127.0.0.1:1": true, "127.8.0.1:1": true, "[::1]:1": true, "localhost:1": true, ":1": false, "0.0.0.0:1": false, "[::]:1": false, "10.0.0.1:1": false} {
		require.Equal(t, want, loopback(address), address)
	}
	cfg := defaults()
	cfg.HTTP.Address, cfg.Insecure = ":8080", true
	require.NoError(t, cfg.validate())
}

// TestSchemas: a payload is held against its type's schema, the record says which,
// and schemas change without a restart.
func TestSchemas(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	write("click.v1.json", `{"properties":{"a":{"type":"integer"}}}`)
	e := startEdge(t, newCluster(t), func(c *config) { c.Schemas.Dir = dir })
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(good)).status)
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(with("event_type", `"free"`))).status)
	bad := with("payload", `{"a":"x"}`)
	a := e.post(t, "/api/events", []byte(bad))
	require.Equal(t, http.StatusBadRequest, a.status)
	require.Equal(t, faultBody{"/payload/a", "is of type string", "integer"}, a.problem(t).Error[0])
	a = e.post(t, "/api/events/batch", array(bad, numbered(2)))
	require.Equal(t, http.StatusMultiStatus, a.status)
	require.Equal(t, "/payload/a", a.batch(t).Items[0].Error[0].Pointer)

	named := 0
	for _, r := range records(t, e.cluster, 3) {
		for _, h := range r.Headers {
			if h.Key == topic.HeaderSchema {
				require.Equal(t, "click.v1", string(h.Value))
				named++
			}
		}
	}
	require.Equal(t, 2, named, "records that name their schema")

	// By itself, once a file has changed.
	write("click.v2.json", `{"properties":{"a":{"type":"string"}}}`)
	require.Eventually(t, func() bool { return e.post(t, "/api/events", []byte(bad)).status == http.StatusAccepted },
		20*time.Second, 50*time.Millisecond)

	// By the admin port; a broken file changes nothing and is told of.
	reload := func() (int, string) {
		resp, err := e.client.Post(e.admin+"/schemas/reload", "", nil)
		require.NoError(t, err)
		defer resp.Body.Close()
		var b bytes.Buffer
		_, err = b.ReadFrom(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, b.String()
	}
	write("click.v2.json", `{"type":`)
	status, body := reload()
	require.Equal(t, http.StatusConflict, status)
	require.Contains(t, body, "click.v2.json")
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(bad)).status)
	require.Eventually(t, func() bool {
		_, body := e.get(t, e.url+"/health")
		return strings.Contains(body, "click.v2.json")
	}, 20*time.Second, 50*time.Millisecond)
	_, metrics := e.get(t, e.admin+"/metrics")
	require.Equal(t, "1", metric(metrics, "sluice_ingest_schemas_broken"))
	require.NoError(t, os.Remove(filepath.Join(dir, "click.v2.json")))
	status, body = reload()
	require.Equal(t, http.StatusOK, status, body)
	require.Equal(t, http.StatusBadRequest, e.post(t, "/api/events", []byte(bad)).status)
}

// TestSchemasUnregistered: by a switch, types without a schema are refused.
func TestSchemasUnregistered(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "click.v1.json"), []byte(`{}`), 0o600))
	e := startEdge(t, newCluster(t), func(c *config) { c.Schemas.Dir, c.Schemas.Unregistered = dir, refuseUnregistered })
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(good)).status)
	a := e.post(t, "/api/events", []byte(with("event_type", `"clock"`)))
	require.Equal(t, http.StatusBadRequest, a.status)
	require.Equal(t, `is not a registered event type; did you mean "click"?`, a.problem(t).Error[0].Detail)
}

// TestSchemasAgainstLog: versions that would refuse what is in the log already are
// pointed out, within bounds.
func TestSchemasAgainstLog(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events/batch", array(manyEvents(300)...)).status)
	require.Equal(t, http.StatusAccepted, e.post(t, "/api/events", []byte(with("event_type", `"free"`))).status)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "click.v1.json"), []byte(`{"required":["a"]}`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "click.v2.json"), []byte(`{"required":["b"]}`), 0o600))
	check := func(args ...string) (int, map[string]any) {
		var stdout, stderr bytes.Buffer
		args = append([]string{"schemas", "check", "--json", "--against-log", "--kafka.brokers", strings.Join(e.cluster.ListenAddrs(), ","), dir}, args...)
		code := run(t.Context(), args, nil, &stdout, &stderr)
		var got map[string]any
		require.NoError(t, json.Unmarshal(stdout.Bytes(), &got), "%s", &stderr)
		return code, got["log"].(map[string]any)
	}
	code, log := check()
	require.Zero(t, code)
	require.EqualValues(t, 301, log["records"])
	require.EqualValues(t, 1, log["unregistered"])
	require.EqualValues(t, 0, log["refused"])
	versions := log["versions"].([]any)
	require.EqualValues(t, 300, versions[0].(map[string]any)["accepts"])
	second := versions[1].(map[string]any)
	require.EqualValues(t, 300, second["refuses"])
	require.Equal(t, `lacks "b"`, second["example"].(map[string]any)["error"].([]any)[0].(map[string]any)["detail"])

	require.NoError(t, os.Remove(filepath.Join(dir, "click.v1.json")))
	code, log = check("--records", "30")
	require.Equal(t, exitFailed, code)
	require.EqualValues(t, log["refused"], log["records"].(float64)-log["unregistered"].(float64))
	require.LessOrEqual(t, log["records"], 30.0)
	_, log = check("--bytes", "1")
	require.Equal(t, "bytes", log["ended"])
	require.EqualValues(t, 1, log["records"])
}

// TestSchemasCommands: what operators type.
func TestSchemasCommands(t *testing.T) {
	const dir = "../schemas/jsonschema"
	file := filepath.Join(t.TempDir(), "events.json")
	require.NoError(t, os.WriteFile(file, []byte(with("event_type", `"page_view"`)+"\n"+good), 0o600))
	rows := []struct {
		args   []string
		code   int
		stdout string
	}{
		{[]string{"schemas", "check", dir}, 0, "versions are right"},
		{[]string{"schemas", "check", dir, "--json"}, 0, `"order.v2"`},
		{[]string{"schemas", "list", dir}, 0, "order.v1.json"},
		{[]string{"schemas", "list", "--schemas.dir", dir, "--json"}, 0, `"event_type": "page_view"`},
		{[]string{"schemas", "test", "--schemas.dir", dir, file}, 1, "/payload lacks \"path\"\nevent 1: its type has no schema"},
		{[]string{"schemas", "test", "--schemas.dir", dir, "--json", file}, 1, `"pointer": "/payload"`},
		{[]string{"schemas", "test", "--schemas.dir", dir, "--schemas.unregistered", "refuse", file}, 1, "is not a registered event type"},
		{[]string{"schemas", "test", "--schemas.dir", dir, "/nowhere"}, 1, ""},
		{[]string{"schemas", "check", "/nowhere"}, 1, ""},
	}
	for _, r := range rows {
		var stdout, stderr bytes.Buffer
		require.Equal(t, r.code, run(t.Context(), r.args, nil, &stdout, &stderr), "%v: %s", r.args, &stderr)
		require.Contains(t, stdout.String(), r.stdout, "%v", r.args)
	}
}

// TestRequestIDs: a sane name is taken over, any other replaced; a problem names
// its request.
func TestRequestIDs(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	a := e.post(t, "/api/events", []byte(good), "X-Request-Id", "abc.DEF_1-2")
	require.Equal(t, "abc.DEF_1-2", a.header.Get("X-Request-Id"))
	seen := map[string]bool{}
	for _, given := range []string{"", "with space", "a/b", strings.Repeat("x", 65), "é", `"`} {
		a := e.post(t, "/api/events", []byte("{}"), "X-Request-Id", given)
		id := a.header.Get("X-Request-Id")
		require.NotEqual(t, given, id)
		require.NotEmpty(t, id)
		require.False(t, seen[id])
		seen[id] = true
		require.Contains(t, string(a.body), `"instance":"urn:sluice:request:`+id+`"`)
	}
}

// TestCrossOrigin: browsers' pages may not post, unless their origin is listed.
func TestCrossOrigin(t *testing.T) {
	preflight := func(e *edge, origin string) *http.Response {
		req, err := http.NewRequest(http.MethodOptions, e.url+"/api/events", nil)
		require.NoError(t, err)
		req.Header.Set("Origin", origin)
		req.Header.Set("Access-Control-Request-Method", "POST")
		req.Header.Set("Access-Control-Request-Headers", "authorization,content-type")
		resp, err := http.DefaultTransport.RoundTrip(req)
		require.NoError(t, err)
		resp.Body.Close()
		return resp
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	closed := startEdge(t, newCluster(t), nil)
	resp := preflight(closed, "https://shop.example")
	require.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode)
	require.Empty(t, resp.Header.Get("Access-Control-Allow-Origin"))

	open := startEdge(t, newCluster(t), func(c *config) { c.HTTP.CORSOrigins = []string{"https://shop.example"} })
	resp = preflight(open, "https://shop.example")
	require.Less(t, resp.StatusCode, 300)
	require.Equal(t, "https://shop.example", resp.Header.Get("Access-Control-Allow-Origin"))
	require.Empty(t, resp.Header.Get("Access-Control-Allow-Credentials"))
	require.Empty(t, preflight(open, "https://shop.example.evil").Header.Get("Access-Control-Allow-Origin"))

	// Nor may they turn the admin port's switches.
	req, err := http.NewRequest(http.MethodPost, open.admin+"/schemas/reload", nil)
	require.NoError(t, err)
	req.Header.Set("Origin", "https://shop.example")
	resp, err = http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusForbidden, resp.StatusCode)
}

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	form := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, form, form, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{cert, key}
}

// issue returns a certificate and its key, PEM.
func (a *authority) issue(t *testing.T, serial int64) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	form := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, form, a.cert, &k.PublicKey, a.key)
	require.NoError(t, err)
	kder, err := x509.MarshalPKCS8PrivateKey(k)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kder})
}

// TestTLS: HTTP/2 and clients' certificates, and a certificate that is replaced
// while the edge runs.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	put := func(name string, b []byte) { require.NoError(t, os.WriteFile(path(name), b, 0o600)) }
	ca := newAuthority(t)
	cert, key := ca.issue(t, 2)
	put("cert.pem", cert)
	put("key.pem", key)
	put("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}))
	e := launchEdge(t, newCluster(t).ListenAddrs(), func(c *config) {
		c.HTTP.TLS = tlsConfig{CertFile: path("cert.pem"), KeyFile: path("key.pem"), ClientCAFile: path("ca.pem")}
	})
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	get := func(certs ...tls.Certificate) (*http.Response, error) {
		tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certs}}
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr}).Get("https://" + e.address + "/healthz")
		if err == nil {
			resp.Body.Close()
		}
		return resp, err
	}
	mine, err := tls.X509KeyPair(ca.issue(t, 3))
	require.NoError(t, err)
	resp, err := get(mine)
	require.NoError(t, err)
	require.Equal(t, 2, resp.ProtoMajor)
	require.EqualValues(t, 2, resp.TLS.PeerCertificates[0].SerialNumber.Int64())
	_, err = get()
	require.Error(t, err, "a client without a certificate was let in")
	stranger, err := tls.X509KeyPair(newAuthority(t).issue(t, 4))
	require.NoError(t, err)
	_, err = get(stranger)
	require.Error(t, err, "a client of another authority was let in")

	// While only one of the two files is new they do not fit: the old stay.
	cert, key = ca.issue(t, 5)
	put("cert.pem", cert)
	require.Eventually(t, func() bool { return strings.Contains(e.log.String(), "the one read before stays in use") }, 20*time.Second, 20*time.Millisecond)
	resp, err = get(mine)
	require.NoError(t, err)
	require.EqualValues(t, 2, resp.TLS.PeerCertificates[0].SerialNumber.Int64())
	put("key.pem", key)
	require.Eventually(t, func() bool {
		resp, err := get(mine)
		return err == nil && resp.TLS.PeerCertificates[0].SerialNumber.Int64() == 5
	}, 20*time.Second, 50*time.Millisecond)
}
