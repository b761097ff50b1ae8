// Package crash is a proof by enumeration, made of tests alone: an owner of a
// partition dies, is frozen, or loses an answer at every point of its protocol,
// and what the next owner leaves is compared with what the log says must be
// there. The log and the group are a model in memory, so that a commit can arrive
// late, or in another generation, exactly when a case asks for it; ClickHouse is a
// model too, for every case, or the engine, for a sample or all.
// deploy/docs/proof.md tells what was counted.
package crash
