package crash

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/partition"
)

// A live record that comes after a silence waited for a whole step of a replay, which
// had begun and not sent its intent yet: such a step is put off. It is taken later,
// and nothing of it is lost or doubled; and a step is put off once at most for each.
func TestALiveRecordGoesBeforeAStep(t *testing.T) {
	for _, tt := range []struct {
		point partition.Point
		first bool // the live record is written first
	}{{partition.PointDecided, true}, {partition.PointIntended, false}} {
		t.Run(string(tt.point), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				w := given{fresh: time.Minute, hidden: 39}.world(m)
				o := w.begin(t.Context(), 0, nil)
				time.Sleep(10 * time.Second) // longer than live records are expected
				synctest.Wait()
				m.mu.Lock()
				lost := len(m.rows)
				m.rows = nil
				clear(m.tokens)
				m.mu.Unlock()
				require.Positive(t, lost)
				w.putOff(&putOff{when: string(tt.point), after: -1, do: func() {
					w.reveal()
					synctest.Wait() // until it has been read
				}})
				var last partition.Progress
				require.NoError(t, o.owner.Request(t.Context(), partition.Reread{From: 0, To: 39, Report: func(p partition.Progress) { last = p }}))
				time.Sleep(20 * time.Second)
				synctest.Wait()
				require.True(t, last.Done)
				require.Equal(t, lost, last.Written)
				require.Equal(t, tt.first, m.rows[0].self.Offset == 40)
				o.finish()
				<-o.done
				require.True(t, w.compared(t, nil))
			})
		})
	}
}
