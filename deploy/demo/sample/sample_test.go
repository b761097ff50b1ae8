package sample

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheSampleIsWhatItsTextSays(t *testing.T) {
	text, err := Text()
	require.NoError(t, err)
	require.Equal(t, 3000, bytes.Count(text, []byte("\n")))
	events, err := Events("")
	require.NoError(t, err)
	require.Len(t, events, 3000)
	payloads := map[string]string{}
	var again int
	for _, e := range events {
		key := string(e.AppendKey(nil))
		if first, ok := payloads[key]; !ok {
			payloads[key] = string(e.Payload)
		} else if first != string(e.Payload) {
			again++
		}
	}
	require.Equal(t, 111, again)
}

func TestEventsOfAFile(t *testing.T) {
	text, err := Text()
	require.NoError(t, err)
	want, err := Events("")
	require.NoError(t, err)
	for name, c := range map[string]struct {
		content []byte
		fault   string
	}{
		"plain":          {content: text},
		"in gzip":        {content: Packed()},
		"with blanks":    {content: append([]byte("\n \r\n"), bytes.TrimRight(text, "\n")...)},
		"cut short":      {content: Packed()[:1000], fault: "unexpected EOF"},
		"empty":          {fault: "holds no event"},
		"not all events": {content: append(bytes.Clone(text), "{}\n"...), fault: "line 3001: "},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "events")
			require.NoError(t, os.WriteFile(path, c.content, 0o600))
			got, err := Events(path)
			if c.fault != "" {
				require.ErrorContains(t, err, path)
				require.ErrorContains(t, err, c.fault)
				return
			}
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
	_, err = Events(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
