package main

import (
	"os"
	"strconv"
	"syscall"
)

// niceness is how far a command that reads much steps back.
const niceness = 10

// stepBack lets other programs of this machine go before this one: a command that
// compares a whole topic must not slow down the consumers and edges beside it. Where
// that is not possible, nothing changes. Linux keeps a priority for each thread; those
// made later have their maker's.
func stepBack() {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			syscall.Setpriority(syscall.PRIO_PROCESS, id, niceness) //nolint:errcheck // as above
		}
	}
}
