package schema

import "github.com/santhosh-tekuri/jsonschema/v6"

// bytesPerStep is how many times an instruction of a regular expression meets a
// byte in about the time that a schema takes to be applied.
const bytesPerStep = 32

// meter counts what one validation costs. The library has no way to be told to
// stop, so a meter that has run out leaves it by a panic, which check catches.
type meter struct{ left int64 }

type exhausted struct{}

func (m *meter) spend(n int64) {
	if m.left -= n; m.left < 0 {
		panic(exhausted{})
	}
}

// step counts one application of one schema.
type step struct {
	meter  *meter
	weight int64
}

func (s step) Validate(_ *jsonschema.ValidatorContext, v any) {
	n := s.weight
	switch v := v.(type) {
	case map[string]any:
		n += int64(len(v) / 8)
	case []any:
		n += int64(len(v) / 8)
	}
	s.meter.spend(n)
}
