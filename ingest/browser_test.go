//go:build browser

package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// browse opens url in a headless Chromium and returns what the page has become,
// with what the browser had to say about it; with SCREENSHOTS= set, a picture is
// left there.
func browse(t *testing.T, name, url string) (dom, said string) {
	t.Helper()
	path := ""
	for _, known := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(known); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Fatal("no Chromium on the PATH: apt-get install chromium")
	}
	flags := []string{
		"--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--window-size=1280,900",
		"--virtual-time-budget=3000", "--user-data-dir=" + t.TempDir(),
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append(flags, "--dump-dom", url)...)
	log, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	require.NoError(t, err)
	defer log.Close()
	cmd.Stderr = log
	out, err := cmd.Output()
	require.NoError(t, err)
	text, err := os.ReadFile(log.Name())
	require.NoError(t, err)
	if dir := os.Getenv("SCREENSHOTS"); dir != "" {
		shot := exec.CommandContext(ctx, path, append(flags, "--screenshot="+filepath.Join(dir, name+".png"), url)...)
		require.NoError(t, shot.Run())
	}
	return string(out), string(text)
}

// TestPagesInABrowser: the live page shows what there is, with Kafka well and
// with Kafka frozen, and neither page makes the browser complain.
func TestPagesInABrowser(t *testing.T) {
	e := startEdge(t, newControlled(t), spooled(t.TempDir()))
	complaint := regexp.MustCompile(`CONSOLE.*`)
	stop := make(chan struct{})
	posting := make(chan struct{})
	go func() {
		defer close(posting)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				_, _ = e.tryPost("/api/events", []byte(numbered(i))) // spooled, when Kafka is frozen
			}
		}
	}()
	defer func() { close(stop); <-posting }()
	require.Eventually(t, func() bool { // it has a past
		_, body := e.get(t, e.admin+"/page.json")
		return regexp.MustCompile(`"accepted":[1-9]`).MatchString(body)
	}, 20*time.Second, 50*time.Millisecond)

	dom, said := browse(t, "well", e.admin+"/")
	require.NotRegexp(t, complaint, said)
	require.Contains(t, dom, "all is well")
	require.Regexp(t, `id="rate">[0-9.,]*[1-9]`, dom)
	require.Regexp(t, `id="p95">[0-9.,]*[1-9]`, dom)
	require.Regexp(t, `<svg id="rate-line"[^>]*><path`, dom)
	require.Contains(t, dom, "kafka")

	dom, said = browse(t, "docs", e.url+"/docs")
	require.NotRegexp(t, complaint, said)
	require.Contains(t, dom, "urn:sluice:problem:overloaded")

	_, release := freeze(e)
	defer release()
	require.Eventually(t, func() bool { return e.health(t, e.admin).Status != "up" && e.spoolState(t).Records > 0 }, 30*time.Second, 100*time.Millisecond)
	dom, said = browse(t, "frozen", e.admin+"/")
	require.NotRegexp(t, complaint, said)
	require.Regexp(t, `id="status" class="pill (degraded|down)"`, dom)
	require.Contains(t, dom, "a dependency is not well")
	require.Regexp(t, `id="spool">[0-9.,]*[1-9]`, dom)
	status, _ := e.get(t, e.admin+"/healthz")
	require.Equal(t, http.StatusOK, status)
}
