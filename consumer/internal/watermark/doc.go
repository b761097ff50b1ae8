// Package watermark proves up to when ClickHouse is whole.
//
// Each edge says, in the control topic, that whatever it accepted before its
// low-water mark had been acknowledged by the log when it said so
// ([topic.Watermark]). The least of those marks is a bound. Where the log ends
// after the marks were read, everything accepted before the bound lies below: so
// once the journal has passed these ends, all of it is a row or has a fate, and
// the bound is written down as the moment up to which the data is whole.
//
// A bound is never taken past the clocks of the consumer and of ClickHouse: an edge
// speaks by its own clock, and one that is ahead would make moments whole that other
// edges still add to.
//
// One more thing can lie beyond: a record in the wrong partition is forwarded
// when it is decided, and its copy may come after the ends that were seen. The
// copy is acknowledged before the journal says that it was sent, so a bound
// holds only if nothing that was passed on the way was journaled as forwarded
// after the ends were asked for. If something was, a later bound will do, or the same
// one once the journal has passed the ends as they are then.
package watermark
