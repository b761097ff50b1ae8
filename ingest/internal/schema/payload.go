package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"sluice/schemas/event"
)

// Numbers are compared as exact fractions, whose cost grows with the exponent:
// 1e999999 would be a number of a million digits.
const (
	maxNumberBytes = 512
	maxExponent    = 400 // beyond what a double can hold
)

const tooLong = "is a number that is not compared: more than 512 characters, or an exponent beyond ±400"

// inBounds tells whether a JSON number is within those bounds.
func inBounds(number string) bool {
	if len(number) > maxNumberBytes {
		return false
	}
	i := strings.IndexAny(number, "eE")
	if i < 0 {
		return true
	}
	exp, err := strconv.Atoi(number[i+1:])
	return err == nil && -maxExponent <= exp && exp <= maxExponent
}

// parsePayload reads the payload's text as the library wants it, numbers as they
// were written.
func parsePayload(text []byte) (any, *event.Fault) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(text))
	value, err := readValue(dec)
	if err != nil {
		pointer := "/" + event.MemberPayload + string(dec.StackPointer())
		return nil, &event.Fault{Kind: event.FaultSchema, Pointer: pointer, Detail: err.Error()}
	}
	return value, nil
}

func readValue(dec *jsontext.Decoder) (any, error) {
	tok, err := dec.ReadToken()
	if err != nil {
		return nil, err
	}
	switch tok.Kind() {
	case '{':
		obj := map[string]any{}
		for dec.PeekKind() != '}' {
			name, err := dec.ReadToken()
			if err != nil {
				return nil, err
			}
			key := name.String()
			if obj[key], err = readValue(dec); err != nil {
				return nil, err
			}
		}
		_, err := dec.ReadToken()
		return obj, err
	case '[':
		list := []any{}
		for dec.PeekKind() != ']' {
			v, err := readValue(dec)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := dec.ReadToken()
		return list, err
	case '0':
		s := tok.String()
		if !inBounds(s) {
			return nil, fmt.Errorf("%s", tooLong)
		}
		return json.Number(s), nil
	case '"':
		return tok.String(), nil
	case 't', 'f':
		return tok.Bool(), nil
	}
	return nil, nil //nolint:nilnil // JSON's null
}
