//go:build mutant

package mutant

import "os"

// On tells whether the program runs as this mutant: the environment's MUTANT.
func On(name string) bool { return os.Getenv("MUTANT") == name }
