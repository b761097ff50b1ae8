// Package admission refuses posts while more come than are got through in time,
// before their bodies are read, so that those accepted stay fast.
//
// What is inside is counted in bytes of bodies, with something for each request,
// from the moment a body is there until its events are in the log or the spool.
// The bound on it is the rate at which requests leave, times the time that a
// request must take and [Config].Slack: so much is inside when each waits for
// others as long as Slack. Both are measured all the time, as BBR measures a
// connection's: the rate is the highest seen, lowered only while some are refused
// (else it tells what came, not what could have been done); the time is the least
// seen lately. Time that the log takes for everyone is thus part of what a request
// must take and no reason to refuse any; time that grows with what is inside is a
// queue, wherever it stands: for a processor, in the producer, at the broker or
// before the disk.
//
// There is no queue of our own and no one waits to be let in: a refusal costs no
// more than the reading of a header. That is a third of what a post costs, so that at
// several times the capacity refusals would take the machine; those beyond a part of
// it are spaced ([Limiter.Turn]).
package admission
