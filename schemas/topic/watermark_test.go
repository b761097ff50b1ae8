package topic

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWatermark(t *testing.T) {
	w := Watermark{Edge: "a/b", Instance: "i", LowWater: time.UnixMilli(5).UTC(), At: time.UnixMilli(6).UTC(), Spooled: 7, Retired: true}
	key, value, err := w.Record()
	require.NoError(t, err)
	require.Equal(t, "watermark/a/b", string(key))
	require.JSONEq(t, `{"edge":"a/b","instance":"i","low_water":"1970-01-01T00:00:00.005Z","at":"1970-01-01T00:00:00.006Z","spooled":7,"retired":true}`, string(value))
	got, ok, err := ParseWatermark(key, value)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, w, got)

	for _, other := range []struct{ key, value string }{{"replay/x", "{}"}, {"watermark/a/b", ""}} {
		_, ok, err := ParseWatermark([]byte(other.key), []byte(other.value))
		require.NoError(t, err)
		require.False(t, ok)
	}
	for _, bad := range []struct{ key, value string }{{"watermark/a", "{"}, {"watermark/a", `{"edge":"b"}`}} {
		_, ok, err := ParseWatermark([]byte(bad.key), []byte(bad.value))
		require.ErrorContains(t, err, `"watermark/a"`)
		require.False(t, ok)
	}
}

func TestCompleteness(t *testing.T) {
	c := Completeness{CompleteThrough: time.UnixMilli(5).UTC(), HeldBy: "a/b", Edges: 2, At: time.UnixMilli(6).UTC()}
	key, value, err := c.Record()
	require.NoError(t, err)
	require.Equal(t, "complete_through", string(key))
	require.JSONEq(t, `{"complete_through":"1970-01-01T00:00:00.005Z","held_by":"a/b","edges":2,"at":"1970-01-01T00:00:00.006Z"}`, string(value))
	got, ok, err := ParseCompleteness(key, value)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, c, got)
	for _, other := range []struct{ key, value string }{{"watermark/a", "{}"}, {CompleteKey, ""}} {
		_, ok, err := ParseCompleteness([]byte(other.key), []byte(other.value))
		require.NoError(t, err)
		require.False(t, ok)
	}
	_, ok, err = ParseCompleteness([]byte(CompleteKey), []byte("{"))
	require.ErrorContains(t, err, CompleteKey)
	require.False(t, ok)
}
