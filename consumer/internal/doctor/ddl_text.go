package doctor

import (
	"strings"
)

// scan calls see for every byte outside quotes with the depth of brackets
// there, until it returns false.
func scan(s string, see func(i, depth int) bool) {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '\'', '`', '"':
			for i++; i < len(s) && s[i] != c; i++ {
				if s[i] == '\\' {
					i++
				}
			}
			continue
		case ')', ']':
			depth--
		}
		if !see(i, depth) {
			return
		}
		if s[i] == '(' || s[i] == '[' {
			depth++
		}
	}
}

// flat makes every run of white space outside quotes one space.
func flat(s string) string {
	var b strings.Builder
	last, space := 0, -2 // where what is not yet copied begins, and the last space
	scan(s, func(i, _ int) bool {
		if strings.IndexByte(" \t\r\n", s[i]) < 0 {
			return true
		}
		b.WriteString(s[last:i])
		if space != i-1 {
			b.WriteByte(' ')
		}
		last, space = i+1, i
		return true
	})
	b.WriteString(s[last:])
	return strings.TrimSpace(b.String())
}

// plain takes out white space and backticks outside string literals.
func plain(s string) string {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\' && i+1 < len(s):
			b.WriteByte(c)
			i++
		case c == '\'':
			quoted = !quoted
		case !quoted && strings.IndexByte(" \t\r\n`", c) >= 0:
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// bare is plain without brackets around the whole.
func bare(s string) string {
	s = plain(s)
	if before, inside, after, ok := brackets(s); ok && before == "" && after == "" {
		return inside
	}
	return s
}

// brackets cuts s at its first pair of round brackets.
func brackets(s string) (before, inside, after string, ok bool) {
	open, end := -1, -1
	scan(s, func(i, depth int) bool {
		switch {
		case s[i] == '(' && open < 0:
			open = i
		case s[i] == ')' && open >= 0 && depth == 0:
			end = i
		}
		return end < 0
	})
	if end < 0 {
		return s, "", "", false
	}
	return s[:open], strings.TrimSpace(s[open+1 : end]), strings.TrimSpace(s[end+1:]), true
}

// split cuts s at sep outside quotes and brackets, and trims the pieces.
func split(s string, sep byte) []string {
	if strings.TrimSpace(s) == "" {
		return nil
	}
	var out []string
	last := 0
	scan(s, func(i, depth int) bool {
		if s[i] == sep && depth == 0 {
			out = append(out, strings.TrimSpace(s[last:i]))
			last = i + 1
		}
		return true
	})
	return append(out, strings.TrimSpace(s[last:]))
}

// clauses cuts s at keywords that stand outside quotes and brackets: what is
// before the first under "", what follows each under it.
func clauses(s string, keywords []string) map[string]string {
	out := map[string]string{}
	key, last, skip := "", 0, 0
	scan(s, func(i, depth int) bool {
		if depth != 0 || i < skip || i > 0 && isWord(s[i-1]) {
			return true
		}
		for _, k := range keywords {
			end := i + len(k)
			if hasPrefixFold(s[i:], k) && (end == len(s) || !isWord(s[end])) {
				out[key] = strings.TrimSpace(s[last:i])
				key, last, skip = k, end, end
				break
			}
		}
		return true
	})
	out[key] = strings.TrimSpace(s[last:])
	return out
}

func isWord(c byte) bool {
	return c == '_' || c == '`' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
