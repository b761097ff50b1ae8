package replay

import (
	"slices"

	"sluice/consumer/internal/batch"
)

// Filter says which events are meant. All records of one key are meant or none,
// since it looks at nothing but the key. The zero value means every record, those
// that are no events too.
type Filter struct {
	Sources []string `json:"sources,omitempty"`
	Types   []string `json:"types,omitempty"`
	Actor   string   `json:"actor,omitempty"`
}

// Empty tells that every record is meant.
func (f Filter) Empty() bool { return len(f.Sources) == 0 && len(f.Types) == 0 && f.Actor == "" }

// Only is the filter as a partition's owner takes it: nil when every record is
// meant.
func (f Filter) Only() func(*batch.Record) bool {
	if f.Empty() {
		return nil
	}
	return f.Meant
}

// Meant tells whether r is meant. What is no event has no source, and is not.
func (f Filter) Meant(r *batch.Record) bool {
	if f.Empty() {
		return true
	}
	return r.Reason == "" &&
		(len(f.Sources) == 0 || slices.Contains(f.Sources, r.Event.Source)) &&
		(len(f.Types) == 0 || slices.Contains(f.Types, r.Event.EventType)) &&
		(f.Actor == "" || f.Actor == r.Event.ActorID)
}
