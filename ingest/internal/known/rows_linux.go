//go:build linux && !race

package known

import "golang.org/x/sys/unix"

// hugePages asks for large pages; without them all is as right, and slower.
func hugePages(memory []byte) { _ = unix.Madvise(memory, unix.MADV_HUGEPAGE) }
