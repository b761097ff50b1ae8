// Package index knows which keys of one partition have rows, so that live traffic
// costs no query. ClickHouse is the truth; the index knows a part of it, and which
// part, for certain.
package index

import (
	"context"
	"hash/maphash"
	"slices"
	"time"

	"github.com/google/uuid"

	"sluice/consumer/internal/batch"
	"sluice/consumer/internal/dedup"
	"sluice/consumer/internal/mutant"
	"sluice/schemas/topic"
)

// Source reads from ClickHouse: it calls add for every row of the partition
// whose occurred_at is from or later and before to, in any order, and returns an
// error when that may not have been all. It sees every row whose INSERT was
// acknowledged before it was called.
type Source func(ctx context.Context, from, to time.Time, add func(minute int32, id uuid.UUID)) error

// Config configures a [Index].
type Config struct {
	Source Source
	// Budget is the process's, shared by its indexes.
	Budget *Budget
	// Now and Live say what is loaded first: keys from Now - Live on. The clock
	// only chooses what is in memory, it decides nothing. Live is 2 hours if
	// it is 0.
	Now  time.Time
	Live time.Duration
}

// Answer is what an index can say of a key.
type Answer int

// The answers.
const (
	// Ask: only ClickHouse can tell. The key's time is not in memory, or it is
	// and the key's fingerprint is there, which may be another's.
	Ask Answer = iota
	// Free: the key has no row, for certain.
	Free
	// Taken: the key has the row that is returned with this answer.
	Taken
)

// Index knows which keys of one partition have rows, for as much of
// occurred_at as fits in memory, and knows which that is. A key's occurred_at is
// part of it, so it can only ever be in one page; a page not in memory is asked
// of ClickHouse until the index has loaded it, which it does in the background
// where keys are asked for. Nothing is too late to be found, and nothing has to
// wait for a load.
//
// A page holds every key of its minutes that has a row, and those that were claimed,
// as a fingerprint of 64 bits: it can say for certain that a key is free, and not
// quite that it is taken. Fingerprints are keyed by a secret of the process: nobody
// can make events whose fingerprints meet. The rows of the last keys are held exactly,
// so that a retry costs no query either.
//
// Why a page that was loaded while its owner went on writing is complete: the
// owner alone writes rows of the partition's keys, and calls Look, Claim, Add, Written and Take
// from one goroutine. A load begins in Take, and sees the rows whose INSERT was
// acknowledged before; of every other the owner hears the acknowledgement while
// the load is under way or later, and calls Add. What is added while it is
// under way is kept and merged when it arrives. A load that fails completes
// nothing. So an index must be opened after the statements of earlier owners
// have ended, and closed, not used on, after an INSERT whose outcome is unknown.
//
// It is for one goroutine. [Index.Close] must be called.
type Index struct {
	cfg    Config
	seed   maphash.Seed
	pages  pages
	recent recent
	batch  uint64
	demand demand
	flight *flight       // the load under way, nil when there is none
	round  int           // grows whenever pages come or go
	probed fingerprint   // what probe has read, so that it is read
	gone   map[int32]int // by block, keys it holds of which ClickHouse has no row
	said   int64         // what the budget was told
	stats  Stats
}

// Stats says how an index fares. The counts are since it was opened.
type Stats struct {
	// Keys and Pages are in memory, Bytes is what they take, the exactly known
	// rows included.
	Keys, Pages, Bytes int
	// Loading: a load is under way.
	Loading bool
	// Loads were begun, Failed of them failed, LoadedKeys were read by the
	// others.
	Loads, Failed, LoadedKeys int
	// Evicted pages were dropped for lack of memory. Stale is how often what was
	// known of a time was dropped since rows were gone from the table.
	Evicted, Stale int
	// Free, Taken and Asked are the answers given.
	Free, Taken, Asked int
}

// New opens an index that knows nothing yet. The first [Index.Take] begins
// to load the live keys.
func New(cfg Config) *Index {
	if cfg.Live <= 0 {
		cfg.Live = 2 * time.Hour
	}
	x := &Index{cfg: cfg, seed: maphash.MakeSeed(), batch: 1, gone: map[int32]int{}}
	x.demand.open(minuteOf(cfg.Now.Add(-cfg.Live)), minuteOf(cfg.Now))
	cfg.Budget.live.Add(1)
	x.fit()
	return x
}

func (x *Index) hash(id uuid.UUID) uint64 { return maphash.Bytes(x.seed, id[:]) }

// Look tells, record by record, what is known of its key; first is of a key that is
// taken. Asked often enough for keys of a time that is not in memory, the index loads
// it.
func (x *Index) Look(records []*batch.Record, tell func(r *batch.Record, first dedup.First, answer Answer)) {
	var probes [together]probe
	for some := range slices.Chunk(records, together) {
		x.probe(&probes, some)
		for i, r := range some {
			p := &probes[i]
			if p.page != nil {
				p.page.used = x.batch
			}
			free := p.page != nil && !p.page.keys.has(p.fp)
			first, answer := x.answer(p, p.page != nil, free, r.ID)
			tell(r, first, answer)
		}
	}
}

// Claim is Look for records that are about to be written: a key that it tells to be
// free is held from then on as if it had its row, and told to be free once. A claim whose
// row is not written costs a question to ClickHouse when the key comes again, and counts
// as [Index.Gone] then. Claims end with the index, so one whose owner failed to write must
// be closed, as ever.
func (x *Index) Claim(records []*batch.Record, tell func(r *batch.Record, first dedup.First, answer Answer)) {
	var probes [together]probe
	for some := range slices.Chunk(records, together) {
		x.probe(&probes, some)
		for i, r := range some {
			p := &probes[i]
			at := x.pages.find(p.minute) // a claim before may have divided the page
			if at >= 0 {
				x.pages.page[at].used = x.batch
			}
			free := at >= 0 && x.pages.add(at, p.minute, p.fp)
			first, answer := x.answer(p, at >= 0, free, r.ID)
			tell(r, first, answer)
		}
	}
}

// Round is the same as long as no page comes or goes.
func (x *Index) Round() int { return x.round }

func (x *Index) answer(p *probe, paged, free bool, id uuid.UUID) (dedup.First, Answer) {
	if free {
		x.stats.Free++
		return dedup.First{}, Free
	}
	if first, ok := x.recent.get(p.hash, id); ok {
		x.stats.Taken++
		return first, Taken
	}
	if !paged {
		x.demand.note(p.minute, x.batch)
	}
	x.stats.Asked++
	return dedup.First{}, Ask
}

// Add notes rows of the log's partition that are stored. Called before they are, a
// crash of the INSERT would make the next attempt duplicates of nothing.
func (x *Index) Add(records []*batch.Record, log topic.Origin) {
	var probes [together]probe
	for some := range slices.Chunk(records, together) {
		x.probe(&probes, some)
		for i, r := range some {
			p := &probes[i]
			log.Offset = r.Offset
			x.recent.put(p.hash, r.ID, dedup.First{Origin: log, Hash: r.Hash})
			if at := x.pages.find(p.minute); at >= 0 { // an Add before may have divided the page
				x.pages.page[at].used = x.batch
				x.pages.add(at, p.minute, p.fp)
			} else {
				x.fly(p.minute, p.fp)
			}
		}
	}
}

// Written is Add of rows whose keys were all claimed since the round was the one given:
// if it still is, the pages hold them already.
func (x *Index) Written(records []*batch.Record, log topic.Origin, round int) {
	if round != x.round && !mutant.On("claims-outlive-their-pages") {
		x.Add(records, log)
		return
	}
	for _, r := range records {
		log.Offset = r.Offset
		hash, minute := x.hash(r.ID), minuteOf(r.Event.OccurredAt)
		x.recent.put(hash, r.ID, dedup.First{Origin: log, Hash: r.Hash})
		if x.pages.find(minute) < 0 {
			x.fly(minute, fingerprintOf(hash, minute))
		}
	}
}

// fly keeps a key for the load under way, if it is of its time.
func (x *Index) fly(minute int32, fp fingerprint) {
	if x.flight != nil && x.flight.covers(minute) {
		x.flight.added = append(x.flight.added, arrival{minute, fp})
	}
}

// Note remembers the row that ClickHouse answered for a key, so that the next
// repeat of it need not be asked for.
func (x *Index) Note(id uuid.UUID, first dedup.First) { x.recent.put(x.hash(id), id, first) }

// Gone notes that ClickHouse has no row of a key of which it was asked. Where the
// index holds the key all the same, rows were taken out of the table: once they are
// many, what is known of their time is dropped, to be loaded as it is now, or every
// key that comes again would be asked for. It tells whether that was done.
func (x *Index) Gone(occurredAt time.Time, id uuid.UUID) (dropped bool) {
	minute := minuteOf(occurredAt)
	i := x.pages.find(minute)
	if i < 0 || !x.pages.page[i].keys.has(fingerprintOf(x.hash(id), minute)) {
		return false
	}
	block := blockOf(minute)
	if x.gone[block]++; x.gone[block] < goneKeys {
		return false
	}
	delete(x.gone, block)
	x.stats.Stale++
	x.pages.drop(block)
	x.round++
	x.demand.wanted(minute, x.batch)
	return true
}

// Take is to be called between batches, and when there are none from time to
// time: it takes in what has been loaded, keeps to the budget, and begins the
// load that is wanted most. It never waits. A load that it begins lives until
// it is done, ctx ends or the index is closed.
//
// The error is that of a load that failed, for the log. Nothing is lost by it:
// its keys are asked for, and loaded later.
func (x *Index) Take(ctx context.Context) error {
	x.batch++
	var err error
	if x.flight != nil {
		select {
		case l := <-x.flight.arrived:
			err = x.land(l)
		default:
		}
	}
	x.fit()
	if x.flight == nil {
		x.load(ctx)
	}
	return err
}

// Wait waits until the load under way is done, or ctx is, and takes it in. It
// returns the load's error, or ctx's. With no load under way it returns at once.
func (x *Index) Wait(ctx context.Context) error {
	if x.flight == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case l := <-x.flight.arrived:
		err := x.land(l)
		x.fit()
		return err
	}
}

// Stats returns how the index fares.
func (x *Index) Stats() Stats {
	s := x.stats
	s.Keys, s.Pages, s.Bytes, s.Loading = x.pages.keys, len(x.pages.page), x.bytes(), x.flight != nil
	return s
}

// Close ends the load under way, waits for it, and gives the memory back to the
// budget. The index must not be used any more.
func (x *Index) Close() {
	if x.flight != nil {
		x.flight.cancel()
		<-x.flight.arrived
		x.flight = nil
	}
	x.pages, x.recent = pages{}, recent{}
	x.cfg.Budget.used.Add(-x.said)
	x.cfg.Budget.live.Add(-1)
	x.said = 0
}

func (x *Index) bytes() int { return x.pages.bytes + x.recent.bytes() }

// fit keeps to the share of the budget: an eighth is the exactly known rows'.
func (x *Index) fit() {
	share := x.cfg.Budget.Share()
	x.recent.fit(share/8, x.hash)
	if most := share - int64(x.recent.bytes()); int64(x.pages.bytes) > most {
		n := len(x.pages.page)
		x.pages.evict(int(most * 7 / 8))
		x.round++
		x.stats.Evicted += n - len(x.pages.page)
	}
	now := int64(x.bytes())
	x.cfg.Budget.used.Add(now - x.said)
	x.said = now
}
