package decode

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

// reference splits an array with the JSON library alone.
func reference(body []byte) (items []string, ok bool) {
	d := jsontext.NewDecoder(bytes.NewBuffer(body), lax...)
	if t, err := d.ReadToken(); err != nil || t.Kind() != '[' {
		return nil, false
	}
	for d.PeekKind() != ']' {
		v, err := d.ReadValue()
		if err != nil {
			return nil, false
		}
		items = append(items, string(v))
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, false
	}
	_, err := d.ReadToken()
	return items, errors.Is(err, io.EOF) && len(items) > 0
}

var arrays = []string{
	`[]`, `[1]`, ` [ 1 , {"a":[1,2,{}]} ,"x,]\"" ] `, `[1,]`, `[,1]`, `[1 2]`, `[{"a":1}{"b":2}]`, `[1]]`, `[1}`, `[{]`, `[[}]`,
	`["\\"]`, `["\\\""]`, `["\"]`, `["`, `[`, `{`, ``, ` `, `1`, `"[1]"`, `[1]x`, `[1] [2]`, `[{"a":1,"a":2}]`, "[\"\xff\"]", `["\ud800"]`,
	`[NaN]`, `[/*x*/1]`, `[1,"a]`, `[{"a":"}"},{"b":"]"}]`, "[\v1]", `[[[[]]]]`, `[tru]`, `["a"b"c"]`, "\xef\xbb\xbf[1]",
	`[{"a":1]}`, `[}]`, `[]]`, `[ ]`, `[1,,2]`,
}

// FuzzArray: whichever answer yield gives about values that are JSON, Array finds
// the same elements as the JSON library, or refuses the whole as it does.
func FuzzArray(f *testing.F) {
	for _, s := range arrays {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		want, ok := reference(body)
		for _, sure := range []bool{false, true} {
			var got []string
			err := Array(body, 1<<30, func(item []byte) bool {
				got = append(got, string(item))
				// An event decoder is sure of what it accepts, of nothing else.
				return sure && jsontext.Value(item).IsValid()
			})
			if !ok {
				var not *NotBatch
				require.ErrorAs(t, err, &not, "%q", body)
				require.NotEmpty(t, not.Fault.Detail)
				require.NotEmpty(t, not.Fault.Kind)
				continue
			}
			require.NoError(t, err, "%q", body)
			require.Equal(t, want, got)
		}
	})
}

// FuzzLines: the lines are those of strings.Split, without the blank ones.
func FuzzLines(f *testing.F) {
	for _, s := range []string{"", "\n", "a", "a\nb", "a\r\n\r\n \t\nb\r", "a\rb\n", "\n\na\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var want, got []string
		for line := range strings.SplitSeq(string(body), "\n") {
			if strings.Trim(line, " \t\r") != "" {
				want = append(want, strings.TrimRight(line, " \t\r"))
			}
		}
		err := Lines(body, 1<<30, func(item []byte) bool {
			got = append(got, string(item))
			return true
		})
		if len(want) == 0 {
			var not *NotBatch
			require.ErrorAs(t, err, &not)
			return
		}
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

func TestTooMany(t *testing.T) {
	ok := func([]byte) bool { return true }
	require.NoError(t, Array([]byte(`[1,2,3]`), 3, ok))
	require.ErrorIs(t, Array([]byte(`[1,2,3,4]`), 3, ok), ErrTooMany)
	require.NoError(t, Lines([]byte("1\n2\n3\n\n"), 3, ok))
	require.ErrorIs(t, Lines([]byte("1\n2\n3\n4"), 3, ok), ErrTooMany)
}

// TestDeepArray: a hundred thousand brackets are neither a crash nor a hang.
// Closed, they are an item, which the event's decoder then refuses by its depth.
func TestDeepArray(t *testing.T) {
	var not *NotBatch
	require.ErrorAs(t, Array([]byte(strings.Repeat("[", 100_000)), 10, func([]byte) bool { return false }), &not)
	for _, item := range []string{
		strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000),
		strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000),
	} {
		var items []string
		require.NoError(t, Array([]byte("[1,"+item+",2]"), 10, func(b []byte) bool { items = append(items, string(b)); return false }))
		require.Equal(t, []string{"1", item, "2"}, items)
	}
}
