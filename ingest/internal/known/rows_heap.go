//go:build !unix || race

package known

// newRows returns n empty rows, and what gives them back (nil: the collector does).
func newRows(n int) (rows []row, free func()) { return make([]row, n), nil }
