package admission

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

const (
	// lookEvery is how often memory is looked at.
	lookEvery = time.Second
	// idleFor is how long little must have been in use.
	idleFor = 10 * time.Second
	// muchBytes is what is worth giving back.
	muchBytes = 16 << 20
)

// GiveBack gives free memory back to the system once after used has fallen to a
// quarter of its peak, of at least 16 MiB, and has stayed there for ten seconds;
// until ctx ends. The runtime by itself would keep the buffers of a burst for
// minutes when few requests follow, since it collects by what is allocated.
func GiveBack(ctx context.Context, used func() int64) {
	giveBack(ctx, used, func() {
		runtime.GC() // a sync.Pool lets go of what it holds at the second collection
		debug.FreeOSMemory()
	})
}

func giveBack(ctx context.Context, used func() int64, free func()) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	peak, idle := int64(0), time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := used()
		peak = max(peak, now)
		if peak < muchBytes || now > peak/4 {
			idle = 0
			continue
		}
		if idle += lookEvery; idle >= idleFor {
			free()
			peak, idle = now, 0
		}
	}
}
