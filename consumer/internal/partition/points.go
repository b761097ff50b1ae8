package partition

// Point is a place between two effects on the outside, or just before or after
// one: where a crash must not matter.
type Point string

// The points in the order in which a batch passes them. Those of a re-read are
// the same.
const (
	PointRecovered Point = "recovered"         // nothing written yet
	PointFetched   Point = "fetched"           // a batch is formed
	PointDecided   Point = "decided"           // fates are known, in memory alone
	PointIntend    Point = "intent to send"    // before each commit of an intent
	PointIntended  Point = "intent answered"   // after it
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
		PointRecovered, PointFetched, PointDecided, PointIntend, PointIntended, PointLetters, PointLettered,
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
