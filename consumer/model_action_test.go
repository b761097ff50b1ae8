package main

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// sending is a record to be produced: an event by the number of its key and of
// its payload, or garbage, or a tombstone.
type sending struct {
	key, payload int
	value        string // instead of an event, "garbage" or "tombstone"
	astray       int32  // how many partitions from its home it is put
}

func (s sending) String() string {
	out := fmt.Sprintf("%c%d", 'a'+s.key, s.payload)
	if s.value != "" {
		out = s.value
	}
	if s.astray > 0 {
		out += fmt.Sprintf("(astray by %d)", s.astray)
	}
	return out
}

// years are those of the keys: an index in memory knows the last, hardly the
// second and never the first.
var years = []int{1970, 2026, 2099}

func (w *world) record(s sending) *kgo.Record {
	e := event.Event{
		Source: "model", EventType: "t", ActorID: fmt.Sprint("actor-", s.key),
		OccurredAt: time.Date(years[s.key%len(years)], 11, 2, 3, 4, 5, s.key, time.UTC), Payload: fmt.Appendf(nil, `{"n":%d}`, s.payload),
	}
	r := &kgo.Record{Topic: w.cfg.Kafka.Topic, Key: e.AppendKey(nil), Value: e.AppendJSON(nil)}
	switch s.value {
	case "garbage":
		r.Value = []byte("garbage")
	case "tombstone":
		r.Value = nil
	}
	r.Partition = (event.Partition(r.Key, w.count()) + s.astray) % w.count()
	return r
}

func (w *world) produce(sendings ...sending) {
	w.t.Helper()
	w.note("produced %v", sendings)
	records := make([]*kgo.Record, len(sendings))
	for i, s := range sendings {
		records[i] = w.record(s)
	}
	require.NoError(w.t, w.rig.producer.ProduceSync(w.ctx, records...).FirstErr())
}

// transact produces in a transaction of another producer: its marker, or all of
// it, is a gap in the offsets.
func (w *world) transact(commit bool, sendings ...sending) {
	w.t.Helper()
	w.note("a transaction (committed %v) of %v", commit, sendings)
	c := w.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("model-"+w.cfg.Kafka.Topic))
	defer c.Close()
	require.NoError(w.t, c.BeginTransaction())
	for _, s := range sendings {
		require.NoError(w.t, c.ProduceSync(w.ctx, w.record(s)).FirstErr())
	}
	require.NoError(w.t, c.EndTransaction(w.ctx, kgo.TransactionEndTry(commit)))
}

// run lets the owners move, each with the fault given for its partition, until
// all have come to the log's end or the world pauses. Where a partition has no
// owner, or a frozen one, others may wait for it for ever, so this gives up then.
func (w *world) run(faults map[int32]*fault) {
	w.t.Helper()
	w.note("run with %s", faultList(faults))
	for p, f := range faults {
		if inc := w.owners[p]; inc != nil {
			inc.arm(f)
		}
	}
	bound, whole := 2*time.Second, len(w.owners) == int(w.count()) && w.told.Load() == w.count()
	for p := range faults {
		whole = whole && (faults[p].then == fails || faults[p].then == stalls)
	}
	for _, inc := range w.owners {
		whole = whole && !inc.asleep.Load()
	}
	if whole {
		bound = time.Minute // of a machine that may be busy with other tests
	}
	w.open()
	defer func() { w.still(); w.bury() }()
	for deadline := time.Now().Add(bound); !w.quiet(); time.Sleep(5 * time.Millisecond) {
		if w.isShut() {
			w.note("paused")
			return
		}
		if time.Now().After(deadline) {
			if whole {
				require.FailNow(w.t, "the owners do not come to the log's end", w.where())
			}
			w.note("gave up waiting: %s", w.where())
			return
		}
	}
}

// bury takes the owners that crashed out of the list.
func (w *world) bury() {
	for p, inc := range w.owners {
		if inc.dead.Load() {
			w.ended(inc)
			delete(w.owners, p)
			w.note("%s of partition %d crashed", inc.name, p)
		}
	}
}

// quiet tells whether every owner that can move has come to the log's end. An owner
// that has recovered may have the journal's lost beginning yet to write, of which the
// ranges that are there tell nothing.
func (w *world) quiet() bool {
	for range 2 { // what was forwarded comes in while we look
		for p, end := range w.read() {
			inc := w.owners[int32(p)]
			if inc == nil || inc.asleep.Load() || inc.dead.Load() {
				continue
			}
			seen, err := w.store.Seen(w.ctx, topic.Origin{TopicID: w.id, Partition: int32(p)})
			require.NoError(w.t, err)
			if (seen.End < end || seen.First > w.start[p]) && w.retains(p) || len(seen.Islands) > 0 || inc.busy() {
				return false
			}
		}
	}
	return true
}

// retains tells whether the log still has a record of the partition.
func (w *world) retains(p int) bool {
	n := len(w.records[p])
	return n > 0 && w.records[p][n-1].Offset >= w.start[p]
}

// busy tells that an owner recovers yet.
func (inc *incarnation) busy() bool {
	h, _ := inc.halted.Load().(string)
	return h != "<nil>"
}

func (w *world) where() string {
	var b strings.Builder
	for p, end := range w.read() {
		seen, err := w.store.Seen(w.ctx, topic.Origin{TopicID: w.id, Partition: int32(p)})
		fmt.Fprintf(&b, "partition %d ends at %d, journaled %+v %v", p, end, seen, err)
		if inc := w.owners[int32(p)]; inc != nil {
			fmt.Fprintf(&b, ", %s halted: %v", inc.name, inc.halted.Load())
		}
		b.WriteString("; ")
	}
	return b.String()
}

func faultList(faults map[int32]*fault) string {
	var out []string
	for p, f := range faults {
		out = append(out, fmt.Sprintf("partition %d: %s", p, f))
	}
	sort.Strings(out)
	if len(out) == 0 {
		return "no fault"
	}
	return strings.Join(out, "; ")
}

// staff gives every partition that has no owner one.
func (w *world) staff(s settings) {
	for p := range w.count() {
		if w.owners[p] == nil {
			inc := w.assign(p, s)
			w.note("%s has partition %d: %+v", inc.name, p, s)
		}
	}
}

// revoke takes a partition away in order.
func (w *world) revoke(p int32) {
	w.t.Helper()
	inc := w.owners[p]
	if inc == nil || inc.asleep.Load() {
		return
	}
	w.note("partition %d is revoked from %s", p, inc.name)
	inc.arm(nil)
	close(inc.stop)
	w.open()
	w.ended(inc)
	w.still()
	delete(w.owners, p)
}

// settle gives every partition an owner that can move, waits until all is
// decided, and checks all there is to check.
func (w *world) settle() {
	w.t.Helper()
	for p, inc := range w.owners {
		if inc.asleep.Load() {
			w.crash(p)
		}
		inc.arm(nil)
	}
	w.told.Store(w.count())
	w.bury()
	for whole := false; !whole; whole = len(w.owners) == int(w.count()) { // one may have been crashing just then
		w.staff(usual)
		w.run(nil)
	}
	w.check()
	w.owed = false
	w.rig.stats.count("settled")
}

// endAll ends every process and lets everything late arrive: what an operator
// waits for before touching offsets or data, since no consumer may run then.
func (w *world) endAll() {
	w.t.Helper()
	w.crashAll()
	for _, inc := range w.sleepers() {
		inc.thaw(true)
	}
	for len(w.late) > 0 {
		w.release(0)
	}
	w.mu.Lock()
	clear(w.holder) // the group is empty: its commits are anyone's
	w.mu.Unlock()
}

// setOffsets commits as Kafka's own tool does, without metadata of ours, or with
// some that can't be read. Where what was deleted is owed it is 0 again: who set them
// forward would call off what brings it back.
func (w *world) setOffsets(at int64, metadata string) {
	w.t.Helper()
	w.endAll()
	if w.owed {
		at = 0
	}
	w.note("offsets set to %d, metadata %q", at, metadata)
	for p := range w.count() {
		require.NoError(w.t, w.commit(w.ctx, p, max(at, w.start[p]), metadata))
	}
}

func (w *world) deleteGroup() {
	w.t.Helper()
	w.endAll()
	w.note("the group deleted")
	_, err := w.rig.admin.DeleteGroups(w.ctx, w.cfg.Group.ID)
	require.NoError(w.t, err)
}

// grow adds n partitions. Owners hear of it unless they are deaf to it.
func (w *world) grow(n int32, deaf bool) {
	w.t.Helper()
	w.note("%d partitions added (owners deaf %v)", n, deaf)
	resp, err := w.rig.admin.CreatePartitions(w.ctx, int(n), w.cfg.Kafka.Topic)
	require.NoError(w.t, err)
	require.NoError(w.t, resp.Error())
	old := w.told.Load()
	w.counted(w.count() + n)
	if deaf {
		w.told.Store(old)
	}
	w.rig.producer.ForceMetadataRefresh()
	require.Eventually(w.t, func() bool {
		return w.rig.producer.ProduceSync(w.ctx, &kgo.Record{Topic: w.cfg.Kafka.Topic, Partition: w.count() - 1}).FirstErr() == nil
	}, 20*time.Second, 20*time.Millisecond)
	w.connect()
}

// cutHead deletes a partition's records before an offset, as retention does.
func (w *world) cutHead(p int32, before int64) {
	w.t.Helper()
	w.read()
	w.note("partition %d: the log's head cut to offset %d", p, before)
	var offsets kadm.Offsets
	offsets.AddOffset(w.cfg.Kafka.Topic, p, before, -1)
	resp, err := w.rig.admin.DeleteRecords(w.ctx, offsets)
	require.NoError(w.t, err)
	require.NoError(w.t, resp.Error())
	w.start[p] = before
}
