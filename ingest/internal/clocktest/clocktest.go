// Package clocktest makes the wall clock jump, for tests.
package clocktest

import (
	"time"
	"unsafe"
)

// Shift returns t with its wall clock d later and its monotonic clock as it was:
// what [time.Now] would have returned if the wall clock had been set ahead by d.
// Seen from t, the clock has been set back. It panics when t has no monotonic
// clock, or the layout of [time.Time] is another than it knows.
//
// testing/synctest cannot do this: its two clocks are one.
func Shift(t time.Time, d time.Duration) time.Time {
	before := t
	// The first word: a flag, 33 bits of seconds, 30 bits of nanoseconds.
	wall := (*uint64)(unsafe.Pointer(&t)) //nolint:gosec // there is no other way in
	*wall += uint64(d/time.Second) << 30  //nolint:gosec // wraps around when d is negative, as it should
	d = d.Truncate(time.Second)
	if t.Sub(before) != 0 || t.Round(0).Sub(before.Round(0)) != d {
		panic("clocktest: a time without a monotonic clock, or of an unknown layout")
	}
	return t
}
