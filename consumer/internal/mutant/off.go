//go:build !mutant

// Package mutant breaks the protocol on purpose: each name leaves one step of it
// out, and the tests must fail for each (make mutants). Without the
// build tag "mutant" nothing of it is compiled.
package mutant

// On tells whether the program runs as this mutant.
func On(string) bool { return false }
