package partition

import (
	"context"

	"sluice/consumer/internal/store"
	"sluice/schemas/topic"
)

// Point is a place between two effects on the outside, or just before or after
// one: where a crash must not matter.
type Point string

// The points in the order in which a batch passes them. Those of a re-read are
// the same.
const (
	PointClaim     Point = "claim to send"     // before a barrier: the commit that stands is committed again
	PointClaimed   Point = "claim answered"    // after it
	PointNote      Point = "note to send"      // before the journal is told of no batch: a barrier, what is lost, cut or empty
	PointNoted     Point = "note answered"     // after it
	PointRecovered Point = "recovered"         // nothing of a batch is written yet
	PointFetched   Point = "fetched"           // a batch is formed
	PointDecided   Point = "decided"           // fates are known, in memory alone
	PointIntend    Point = "intent to send"    // before each commit of an intent
	PointIntended  Point = "intent answered"   // after it
	PointRenew     Point = "renewal to send"   // before an intent that is no longer fresh is sent again
	PointRenewed   Point = "renewal answered"  // after it
	PointLetters   Point = "letters to send"   // before dead letters are produced
	PointLettered  Point = "letters answered"  // after they are acknowledged
	PointForward   Point = "forwards to send"  // before misplaced records are produced
	PointForwarded Point = "forwards answered" // after they are acknowledged
	PointInsert    Point = "rows to send"      // before each INSERT of rows
	PointInserted  Point = "rows answered"     // after it
	PointJournal   Point = "journal to send"   // before the batch's fates and range
	PointJournaled Point = "journal answered"  // after them
	PointIndexed   Point = "index changed"     // the batch's keys are known
	PointClose     Point = "close to send"     // before the closing commit
	PointClosed    Point = "close answered"    // after it
)

// Points are all of them.
func Points() []Point {
	return []Point{
		PointClaim, PointClaimed, PointNote, PointNoted, PointRecovered,
		PointFetched, PointDecided, PointIntend, PointIntended, PointRenew, PointRenewed, PointLetters, PointLettered,
		PointForward, PointForwarded, PointInsert, PointInserted, PointJournal, PointJournaled, PointIndexed,
		PointClose, PointClosed,
	}
}

// at tells the test, if there is one, that the owner has come to p. An error
// ends the run like one of Kafka or ClickHouse.
func (o *Owner) at(p Point) error {
	if o.cfg.At == nil {
		return nil
	}
	return o.cfg.At(p)
}

// note writes entries that no batch makes.
func (o *Owner) note(ctx context.Context, token string, self topic.Origin, entries []store.Entry) error {
	if err := o.at(PointNote); err != nil {
		return err
	}
	if err := o.store.Journal(ctx, token, o.cfg.Topic, self, entries); err != nil {
		return err
	}
	return o.at(PointNoted)
}
