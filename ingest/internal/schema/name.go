package schema

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// FileName is the name of the file that holds version number of eventType:
// order.v2.json. Whatever is not a letter or digit of ASCII, a dot, a hyphen or
// an underscore is percent-encoded, as are a dot or an underscore in front:
// "shop/order" is in shop%2Forder.v1.json.
func FileName(eventType string, number int) string {
	return stem(eventType, number) + ".json"
}

func stem(eventType string, number int) string {
	var b strings.Builder
	for i := range len(eventType) {
		c := eventType[i]
		plain := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-'
		if plain || i > 0 && (c == '.' || c == '_') {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	b.WriteString(".v" + strconv.Itoa(number))
	return b.String()
}

// ParseFileName reads what [FileName] wrote. Each pair has one name, so that
// two files are never the same version.
func ParseFileName(name string) (eventType string, number int, err error) {
	bad := func() (string, int, error) {
		return "", 0, fmt.Errorf("%s: want <event type>.v<number>.json, such as order.v1.json, or _<name>.json for definitions that others refer to", name)
	}
	base, ok := strings.CutSuffix(name, ".json")
	i := strings.LastIndex(base, ".v")
	if !ok || i < 1 {
		return bad()
	}
	number, err = strconv.Atoi(base[i+2:])
	if err != nil || number < 1 || number > 1_000_000 {
		return bad()
	}
	eventType, err = url.PathUnescape(base[:i])
	if err != nil {
		return bad()
	}
	if want := FileName(eventType, number); want != name {
		return "", 0, fmt.Errorf("%s: name it %s", name, want)
	}
	return eventType, number, nil
}
