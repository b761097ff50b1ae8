// Package spool keeps accepted events on this edge's disk while the log does not
// acknowledge them, and brings them to the log, oldest first, when it does.
//
// A [Store] is the folder: a queue of records in segment files, appended to by
// group commit, read from the front, from which a record leaves only when the
// log has acknowledged it. A [Spool] stands before the producer, decides for each
// delivery which way it takes, and drains the store.
package spool
