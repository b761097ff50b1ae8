package admission

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
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

// GiveBack gives free memory back to the system once after the use of it has fallen
// to a quarter of its peak, of at least 16 MiB, and has stayed there for ten seconds;
// until ctx ends. Used is what requests hold, as held tells, and what was allocated
// anew in the last second: of whoever has left, the connections and buffers, too. The
// runtime by itself would keep all that for minutes when few requests follow, since
// it collects by what is allocated.
func GiveBack(ctx context.Context, held func() int64) {
	var last int64
	giveBack(ctx, func() int64 {
		all := allocated()
		now := all - last
		last = all
		return held() + now
	}, func() {
		runtime.GC() // a sync.Pool lets go of what it holds at the second collection
		debug.FreeOSMemory()
	})
}

// allocated is how many bytes the process has allocated since it began.
func allocated() int64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
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
