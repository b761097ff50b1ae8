package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"unicode"
	"unicode/utf16"

	"github.com/stretchr/testify/require"
)

// The case names of this test, and what the first letter of each demands, are
// those of Nicolas Seriot's JSON Parsing Test Suite (github.com/nst/JSONTestSuite,
// MIT License; testdata/jsontestsuite/README.md). So are the texts in cases.json:
// a few bytes each, which follow from their names. All other texts are made here,
// from what their names say: they are not the suite's own.

// made are the texts that are not valid UTF-8, or longer than a few bytes.
func made() map[string]string {
	const stray = "\xfe" // in no UTF-8
	const text = `["ä"]`
	return map[string]string{
		"i_string_UTF-16LE_with_BOM":                                inUTF16(binary.LittleEndian, "\ufeff"+text),
		"i_string_UTF-8_invalid_sequence":                           quoted("\xc3("),
		"i_string_UTF8_surrogate_U+D800":                            quoted(inBytes(3, 0xD800)),
		"i_string_invalid_utf-8":                                    quoted(stray),
		"i_string_iso_latin_1":                                      quoted(inLatin1('ä')),
		"i_string_lone_utf8_continuation_byte":                      quoted("\x80"),
		"i_string_not_in_unicode_range":                             quoted(inBytes(4, unicode.MaxRune+1)),
		"i_string_overlong_sequence_2_bytes":                        quoted(inBytes(2, '/')),
		"i_string_overlong_sequence_6_bytes":                        quoted(inBytes(6, '/')),
		"i_string_overlong_sequence_6_bytes_null":                   quoted(inBytes(6, 0)),
		"i_string_truncated-utf-8":                                  quoted("€"[:2]),
		"i_string_utf16BE_no_BOM":                                   inUTF16(binary.BigEndian, text),
		"i_string_utf16LE_no_BOM":                                   inUTF16(binary.LittleEndian, text),
		"n_array_a_invalid_utf8":                                    "[a" + stray + "]",
		"n_array_invalid_utf8":                                      "[" + stray + "]",
		"n_number_invalid-utf-8-in-bigger-int":                      "[987" + stray + "]",
		"n_number_invalid-utf-8-in-exponent":                        "[2e3" + stray + "]",
		"n_number_invalid-utf-8-in-int":                             "[7" + stray + "]",
		"n_number_real_with_invalid_utf8_after_e":                   "[2e" + stray + "]",
		"n_object_lone_continuation_byte_in_key_and_trailing_comma": "{" + quotes("\x80") + ":1,}",
		"n_string_invalid-utf-8-in-escape":                          quoted(`\u` + stray),
		"n_string_invalid_utf8_after_escape":                        quoted(`\` + stray),
		"n_structure_incomplete_UTF8_BOM":                           "\ufeff"[:2] + "{}",
		"n_structure_lone-invalid-utf-8":                            stray,
		"n_structure_single_eacute":                                 inLatin1('é'),

		"i_number_huge_exp":                 "[3e" + strings.Repeat("9", 120) + "]",
		"i_number_too_big_neg_int":          "[-" + strings.Repeat("7", 30) + "]",
		"i_number_very_big_negative_int":    "[-" + strings.Repeat("3", 60) + "]",
		"i_structure_500_nested_arrays":     strings.Repeat("[", 500) + strings.Repeat("]", 500),
		"n_number_with_alpha_char":          "[2.5H-12]",
		"n_structure_100000_opening_arrays": strings.Repeat("[", 100_000),
		"n_structure_open_array_object":     strings.Repeat(`[{"":`, 50_000),
		"y_number_double_close_to_zero":     "[-0." + strings.Repeat("0", 75) + "1]",
		"y_object":                          `{"one":1,"two":2}`,
		"y_object_extreme_numbers":          `{"least":-1.7e308,"most":1.7e308}`,
		"y_object_long_strings":             "{" + quotes(strings.Repeat("k", 100)) + ":" + quotes(strings.Repeat("v", 100)) + "}",
		"y_object_string_unicode":           `{"word":` + quotes(escaped("слово")) + "}",
		"y_string_accepted_surrogate_pairs": quoted(escaped("🌊🌍")),
		"y_string_uEscape":                  quoted(escaped("aé海")),
	}
}

func quotes(s string) string { return `"` + s + `"` }

// quoted is an array of one string.
func quoted(s string) string { return "[" + quotes(s) + "]" }

// escaped is s with each of its UTF-16 units as \uXXXX.
func escaped(s string) string {
	var b strings.Builder
	for _, unit := range utf16.Encode([]rune(s)) {
		fmt.Fprintf(&b, `\u%04x`, unit)
	}
	return b.String()
}

func inUTF16(order binary.AppendByteOrder, s string) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune(s)) {
		b = order.AppendUint16(b, unit)
	}
	return string(b)
}

func inLatin1(r rune) string { return string([]byte{byte(r)}) }

// inBytes is r in UTF-8's scheme for n bytes, allowed or not: up to six, as the
// scheme once went, longer than it need be, and for what is no character.
func inBytes(n int, r rune) string {
	b := make([]byte, n)
	for i := n - 1; i > 0; i-- {
		b[i] = 0x80 | byte(r&0x3f)
		r >>= 6
	}
	b[0] = ^(byte(0xff) >> n) | byte(r)
	return string(b)
}

// acceptedByChoice are the texts of the suite's "either" that the edge accepts in a
// payload: numbers, which are kept as they were written, however large. It refuses
// the others: what is not UTF-8 or begins with a byte order mark, lone surrogates
// (RFC 7493, section 2.1), and 500 arrays in each other (limits.depth).
var acceptedByChoice = []string{
	"i_number_double_huge_neg_exp", "i_number_huge_exp", "i_number_neg_int_huge_exp",
	"i_number_pos_double_huge_exp", "i_number_real_neg_overflow", "i_number_real_pos_overflow",
	"i_number_real_underflow", "i_number_too_big_neg_int", "i_number_too_big_pos_int",
	"i_number_very_big_negative_int",
}

// refusedByIJSON are texts that a JSON parser must accept and the edge refuses:
// names twice in an object (RFC 7493, section 2.3).
var refusedByIJSON = []string{"y_object_duplicated_key", "y_object_duplicated_key_and_value"}

// suite is a text for each case of the suite, by name.
func suite(t *testing.T) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/jsontestsuite/cases.json")
	require.NoError(t, err)
	var pairs [][2]string
	require.NoError(t, json.Unmarshal(text, &pairs))
	cases := map[string][]byte{}
	for name, s := range made() {
		cases[name] = []byte(s)
	}
	for _, p := range pairs {
		// Which is what encoding/json makes of what it cannot read.
		require.NotContains(t, p[1], "\uFFFD", p[0])
		require.NotContains(t, cases, p[0])
		cases[p[0]] = []byte(p[1])
	}
	require.Len(t, cases, 318)
	return cases
}

// TestJSONTestSuite posts the text of each case as a whole body, as a payload, and
// inside a payload, as one event and in a batch.
func TestJSONTestSuite(t *testing.T) {
	e := startEdge(t, newCluster(t), nil)
	in := func(list []string, name string) bool {
		for _, n := range list {
			if n == name {
				return true
			}
		}
		return false
	}
	counts := map[string]int{}
	for name, text := range suite(t) {
		accept := strings.HasPrefix(name, "y_") && !in(refusedByIJSON, name) || in(acceptedByChoice, name)

		// No text is an event; those that are JSON are told so, not that they are
		// none.
		a := e.post(t, "/api/events", text)
		require.Equal(t, http.StatusBadRequest, a.status, "%s: %s", name, a.body)
		a = e.post(t, "/api/events/batch", text)
		require.Equal(t, http.StatusBadRequest, a.status, "%s: %s", name, a.body)

		head := `{"source":"app","event_type":"click","actor_id":"u1","occurred_at":"2026-01-02T03:04:05Z","payload":`
		object := bytes.HasPrefix(bytes.TrimSpace(text), []byte("{"))
		for _, wrap := range []struct {
			where, before, after string
			accept               bool
		}{
			{"as a payload", "", "", accept && object},
			{"inside a payload", `{"v":`, `}`, accept},
			{"in an array inside a payload", `{"v":[0,`, `,{}]}`, accept},
		} {
			body := bytes.Join([][]byte{[]byte(head + wrap.before), text, []byte(wrap.after + "}")}, nil)
			want := http.StatusBadRequest
			if wrap.accept {
				want = http.StatusAccepted
			}
			a := e.post(t, "/api/events", body)
			require.Equal(t, want, a.status, "%s %s: %s", name, wrap.where, a.body)
			a = e.post(t, "/api/events/batch", bytes.Join([][]byte{[]byte("["), body, []byte("]")}, nil))
			require.Equal(t, want, a.status, "%s %s, in a batch: %s", name, wrap.where, a.body)
			counts[name[:2]+map[bool]string{true: "accepted", false: "refused"}[wrap.accept]]++
		}
	}
	t.Logf("of 318 texts in 3 places each: %v", counts)
	require.Zero(t, counts["n_accepted"])
}
