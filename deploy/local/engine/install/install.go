// Package install fetches the ClickHouse engine, libchdb, from the npm registry
// and checks that it is the one this project was written for.
package install

import "path/filepath"

// Dir is where the engine of a working copy is installed.
func Dir(root string) string { return filepath.Join(root, ".local", "engine-lib") }

// Library is the shared library in an installed dir.
func Library(dir string) string {
	return filepath.Join(dir, "node_modules", "@chdb", "lib-linux-x64-gnu", "libchdb.so")
}
