package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"sluice/schemas/event"
)

// maxFaults is how many faults of one event are told.
const maxFaults = 32

// check validates value, which was size bytes of text; nil when it is good.
func (v *Version) check(value any, size int) (faults []event.Fault) {
	c := v.take()
	defer func() { v.free <- c }()
	c.meter.left = v.limits.Steps + v.limits.StepsPerByte*int64(size)
	defer func() {
		r := recover()
		if _, ok := r.(exhausted); ok {
			faults = []event.Fault{{
				Kind: event.FaultSchema, Pointer: "/" + event.MemberPayload,
				Detail: "takes too many steps to validate by the schema " + v.String(),
			}}
		} else if r != nil {
			panic(r)
		}
	}()
	err := c.schema.Validate(value)
	if err == nil {
		return nil
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return []event.Fault{{Kind: event.FaultSchema, Pointer: "/" + event.MemberPayload, Detail: err.Error()}}
	}
	collect(invalid, &faults)
	return faults
}

// Exhausted tells whether faults say that a validation was given up.
func Exhausted(faults []event.Fault) bool {
	return len(faults) > 0 && strings.HasPrefix(faults[0].Detail, "takes too many steps")
}

// collect takes the errors that have no causes, which say what is wrong. Of
// alternatives only those of the nearest are told: the one that goes deepest into
// the value, and of these the one with the fewest.
func collect(e *jsonschema.ValidationError, out *[]event.Fault) {
	if len(*out) >= maxFaults {
		return
	}
	switch e.ErrorKind.(type) {
	case *kind.AnyOf, *kind.OneOf:
		if len(e.Causes) == 0 {
			break
		}
		*out = append(*out, fault(e, fmt.Sprintf("is none of the %d alternatives; what follows is about the nearest", len(e.Causes)), ""))
		collect(nearest(e.Causes), out)
		return
	}
	if len(e.Causes) == 0 {
		detail, allowed := words(e.ErrorKind)
		*out = append(*out, fault(e, detail, allowed))
		return
	}
	for _, cause := range e.Causes {
		collect(cause, out)
	}
}

func nearest(causes []*jsonschema.ValidationError) *jsonschema.ValidationError {
	best, bestDepth, bestCount := causes[0], -1, 0
	for _, c := range causes {
		depth, count := reach(c)
		if depth > bestDepth || depth == bestDepth && count < bestCount {
			best, bestDepth, bestCount = c, depth, count
		}
	}
	return best
}

// reach is the depth of the deepest place that e or its causes name, and how
// many have no causes.
func reach(e *jsonschema.ValidationError) (depth, count int) {
	if len(e.Causes) == 0 {
		return len(e.InstanceLocation), 1
	}
	for _, c := range e.Causes {
		d, n := reach(c)
		depth, count = max(depth, d), count+n
	}
	return depth, count
}

func fault(e *jsonschema.ValidationError, detail, allowed string) event.Fault {
	return event.Fault{Kind: event.FaultSchema, Pointer: pointer(e.InstanceLocation), Detail: detail, Allowed: allowed}
}

func pointer(path []string) string {
	var b strings.Builder
	b.WriteString("/" + event.MemberPayload)
	for _, name := range path {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
	}
	return b.String()
}

// words says what was wrong and what is allowed, in the manner of the contract's
// own faults. A sender's values are not repeated.
func words(k jsonschema.ErrorKind) (detail, allowed string) {
	switch k := k.(type) {
	case *kind.Type:
		return "is of type " + k.Got, strings.Join(k.Want, " or ")
	case *kind.Required:
		return "lacks " + names(k.Missing), ""
	case *kind.DependentRequired:
		return "lacks " + names(k.Missing), "wanted where there is " + names([]string{k.Prop})
	case *kind.AdditionalProperties:
		return "has members that are not allowed: " + names(k.Properties), ""
	case *kind.PropertyNames:
		return "has a member whose name is not allowed: " + names([]string{k.Property}), ""
	case *kind.FalseSchema:
		return "is not allowed here", ""
	case *kind.Not:
		return "is what the schema excludes", ""
	case *kind.OneOf:
		return "is several of the alternatives at once", "exactly one of them"
	case *kind.Enum:
		return "is not among the values allowed", values(k.Want)
	case *kind.Const:
		return "is not the value allowed", values([]any{k.Want})
	case *kind.Format:
		return "is not a valid " + k.Want, ""
	case *kind.Pattern:
		return "does not match the pattern", clip(k.Want)
	case *kind.MinLength:
		return length(k.Got, "character"), "at least " + strconv.Itoa(k.Want)
	case *kind.MaxLength:
		return length(k.Got, "character"), "at most " + strconv.Itoa(k.Want)
	case *kind.MinItems:
		return length(k.Got, "item"), "at least " + strconv.Itoa(k.Want)
	case *kind.MaxItems:
		return length(k.Got, "item"), "at most " + strconv.Itoa(k.Want)
	case *kind.MinProperties:
		return length(k.Got, "member"), "at least " + strconv.Itoa(k.Want)
	case *kind.MaxProperties:
		return length(k.Got, "member"), "at most " + strconv.Itoa(k.Want)
	case *kind.UniqueItems:
		return fmt.Sprintf("has the same item at %d and %d", k.Duplicates[0], k.Duplicates[1]), ""
	case *kind.Minimum:
		return "is too small", "at least " + number(k.Want)
	case *kind.Maximum:
		return "is too large", "at most " + number(k.Want)
	case *kind.ExclusiveMinimum:
		return "is too small", "more than " + number(k.Want)
	case *kind.ExclusiveMaximum:
		return "is too large", "less than " + number(k.Want)
	case *kind.MultipleOf:
		return "is not a multiple", "multiples of " + number(k.Want)
	case *kind.Contains:
		return "has no item of the kind wanted", ""
	case *kind.MinContains:
		return "has too few items of the kind wanted", "at least " + strconv.Itoa(k.Want)
	case *kind.MaxContains:
		return "has too many items of the kind wanted", "at most " + strconv.Itoa(k.Want)
	case *kind.RefCycle:
		return "cannot be validated: the schema refers to itself without end", ""
	}
	return clip(k.LocalizedString(message.NewPrinter(language.English))), ""
}

func length(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("has %d %s", n, what)
}

func number(r *big.Rat) string {
	if r.IsInt() {
		return clip(r.Num().String())
	}
	return clip(strings.TrimRight(r.FloatString(12), "0"))
}

func names(list []string) string {
	quoted := make([]string, 0, len(list))
	for i, n := range list {
		if i == 8 {
			quoted = append(quoted, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		quoted = append(quoted, strconv.Quote(clip(n)))
	}
	return strings.Join(quoted, ", ")
}

func values(list []any) string {
	out := make([]string, 0, len(list))
	for i, v := range list {
		if i == 16 {
			out = append(out, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		text, err := json.Marshal(v)
		if err != nil {
			text = []byte("?")
		}
		out = append(out, clip(string(text)))
	}
	return strings.Join(out, ", ")
}

func clip(s string) string {
	const most = 128
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
