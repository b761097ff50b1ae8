//go:build unix && !linux && !race

package known

func hugePages([]byte) {}
