// Package supervise runs other programs: it starts them so that none outlives
// its starter, passes on what they log under their name, starts them again when
// they die, and stops them within a bound.
package supervise

import (
	"os/exec"
	"runtime"
	"sync"
)

// Spawner starts processes from one thread of the operating system.
//
// The kernel's parent-death signal is sent when the thread that forked ends,
// not the process; and Go ends threads as it likes. So one goroutine that keeps
// its thread does all the forking.
type Spawner struct {
	requests chan func()
	once     sync.Once
}

// NewSpawner returns a Spawner that lives until Close.
func NewSpawner() *Spawner {
	s := &Spawner{requests: make(chan func())}
	go func() {
		// Locked for good: unlocked, the thread could end with the goroutine's
		// while children are left, and they would be killed.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for f := range s.requests {
			f()
		}
	}()
	return s
}

// Start is cmd.Start, from the spawner's thread.
func (s *Spawner) Start(cmd *exec.Cmd) error {
	done := make(chan error)
	s.requests <- func() { done <- cmd.Start() }
	return <-done
}

// Close lets the thread go. Every process started must have ended.
func (s *Spawner) Close() { s.once.Do(func() { close(s.requests) }) }
