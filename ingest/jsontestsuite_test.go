package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// notUTF8 are the suite's texts that are not valid UTF-8.
var notUTF8 = map[string]string{
	"i_string_UTF-16LE_with_BOM":                                "\xff\xfe[\x00\"\x00\xe9\x00\"\x00]\x00",
	"i_string_UTF-8_invalid_sequence":                           "[\"\xe6\x97\xa5\xd1\x88\xfa\"]",
	"i_string_UTF8_surrogate_U+D800":                            "[\"\xed\xa0\x80\"]",
	"i_string_invalid_utf-8":                                    "[\"\xff\"]",
	"i_string_iso_latin_1":                                      "[\"\xe9\"]",
	"i_string_lone_utf8_continuation_byte":                      "[\"\x81\"]",
	"i_string_not_in_unicode_range":                             "[\"\xf4\xbf\xbf\xbf\"]",
	"i_string_overlong_sequence_2_bytes":                        "[\"\xc0\xaf\"]",
	"i_string_overlong_sequence_6_bytes":                        "[\"\xfc\x83\xbf\xbf\xbf\xbf\"]",
	"i_string_overlong_sequence_6_bytes_null":                   "[\"\xfc\x80\x80\x80\x80\x80\"]",
	"i_string_truncated-utf-8":                                  "[\"\xe0\xff\"]",
	"i_string_utf16BE_no_BOM":                                   "\x00[\x00\"\x00\xe9\x00\"\x00]",
	"i_string_utf16LE_no_BOM":                                   "[\x00\"\x00\xe9\x00\"\x00]\x00",
	"n_array_a_invalid_utf8":                                    "[a\xe5]",
	"n_array_invalid_utf8":                                      "[\xff]",
	"n_number_invalid-utf-8-in-bigger-int":                      "[123\xe5]",
	"n_number_invalid-utf-8-in-exponent":                        "[1e1\xe5]",
	"n_number_invalid-utf-8-in-int":                             "[0\xe5]\n",
	"n_number_real_with_invalid_utf8_after_e":                   "[1e\xe5]",
	"n_object_lone_continuation_byte_in_key_and_trailing_comma": "{\"\xb9\":\"0\",}",
	"n_string_invalid-utf-8-in-escape":                          "[\"\\u\xe5\"]",
	"n_string_invalid_utf8_after_escape":                        "[\"\\\xe5\"]",
	"n_structure_incomplete_UTF8_BOM":                           "\xef\xbb{}",
	"n_structure_lone-invalid-utf-8":                            "\xe5",
	"n_structure_single_eacute":                                 "\xe9",
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

// suite is the whole suite, by name.
func suite(t *testing.T) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/jsontestsuite/cases.json")
	require.NoError(t, err)
	var pairs [][2]string
	require.NoError(t, json.Unmarshal(text, &pairs))
	cases := map[string][]byte{
		"n_structure_100000_opening_arrays": bytes.Repeat([]byte("["), 100_000),
		"n_structure_open_array_object":     append(bytes.Repeat([]byte(`[{"":`), 50_000), '\n'),
	}
	for _, p := range pairs {
		// Which is what encoding/json makes of what it cannot read.
		require.NotContains(t, p[1], "\uFFFD", p[0])
		cases[p[0]] = []byte(p[1])
	}
	for name, s := range notUTF8 {
		cases[name] = []byte(s)
	}
	require.Len(t, cases, 318)
	return cases
}

// TestJSONTestSuite posts each text of the suite as a whole body, as a payload, and
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
