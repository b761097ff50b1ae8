package replay

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A lease keeps two commands of one kind from running at once. It is a courtesy
// between people: nothing would be doubled without it.

// Lease is a claim to be the only command of its kind, under its own key. The
// first claim in the topic's order stands; it is renewed while the command runs.
type Lease struct {
	Kind  string    `json:"kind"`
	Run   uuid.UUID `json:"run"`
	By    string    `json:"by"`
	Since time.Time `json:"since"`
	// Renewed is when it was last written; past [LeaseBound] it has lapsed.
	Renewed time.Time `json:"renewed"`

	offset int64
}

// LeaseBound is how long a lease stands without being renewed: its holder is gone.
const LeaseBound = 20 * time.Second

const (
	leasePrefix = "lease/"
	leaseRenew  = 5 * time.Second
	claimBound  = 15 * time.Second // a person waits: a broker that is away is not waited for
)

func (l Lease) key() string { return leasePrefix + l.Kind + "/" + l.Run.String() }

// Stands tells whether the lease's holder has been heard of lately.
func (l Lease) Stands(now time.Time) bool { return now.Sub(l.Renewed) < LeaseBound }

// HeldError says who has the lease.
type HeldError struct{ Lease }

func (e HeldError) Error() string {
	return fmt.Sprintf("another %s runs: %s began it at %s (run %s) and was heard of at %s; wait until it is done, or %s after it has ended without a word",
		e.Kind, e.By, e.Since.UTC().Format(time.RFC3339), e.Run, e.Renewed.UTC().Format(time.RFC3339), LeaseBound)
}

func readLease(into map[string]Lease, r *kgo.Record) error {
	key := string(r.Key)
	if !strings.HasPrefix(key, leasePrefix) {
		return nil
	}
	if len(r.Value) == 0 {
		delete(into, key)
		return nil
	}
	var l Lease
	if err := json.Unmarshal(r.Value, &l); err != nil {
		return fmt.Errorf("control record %q: %w", key, err)
	}
	l.offset = r.Offset
	if before, ok := into[key]; ok {
		l.offset = before.offset
	}
	into[key] = l
	return nil
}

// Take claims the lease of kind for a run until release is called or ctx ends. It
// returns a [HeldError] when another run has it.
func Take(ctx context.Context, opts []kgo.Opt, topic string, l Lease) (release func(), err error) {
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("control topic: %w", err)
	}
	write := func(ctx context.Context, value []byte) error {
		return client.ProduceSync(ctx, &kgo.Record{Topic: topic, Key: []byte(l.key()), Value: value}).FirstErr()
	}
	claim := func(ctx context.Context) error {
		l.Renewed = time.Now().UTC()
		value, err := json.Marshal(l)
		if err != nil {
			return err
		}
		return write(ctx, value)
	}
	bound, cancelBound := context.WithTimeoutCause(ctx, claimBound, fmt.Errorf("no answer from Kafka for %s", claimBound))
	defer cancelBound()
	if err := claim(bound); err != nil {
		client.Close()
		return nil, fmt.Errorf("claiming the lease in %s: %w", topic, cmp.Or(context.Cause(bound), err))
	}
	drop := func() {
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		write(bound, nil) //nolint:errcheck // it lapses then
		client.Close()
	}
	all := map[string]Lease{}
	err = scan(bound, opts, topic, func(r *kgo.Record) { err = errors.Join(err, readLease(all, r)) })
	if err != nil {
		drop()
		return nil, fmt.Errorf("reading leases: %w", cmp.Or(context.Cause(bound), err))
	}
	mine := all[l.key()]
	for _, other := range all {
		if other.Kind == l.Kind && other.Run != l.Run && other.Stands(time.Now()) && other.offset < mine.offset {
			drop()
			return nil, HeldError{other}
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(leaseRenew):
				claim(ctx) //nolint:errcheck // the next may succeed; else it lapses
			}
		}
	}()
	return func() { cancel(); <-done; drop() }, nil
}

// scan reads the control topic from its start to where it ends now.
func scan(ctx context.Context, opts []kgo.Opt, topic string, each func(*kgo.Record)) error {
	client, err := kgo.NewClient(append(opts[:len(opts):len(opts)],
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}), kgo.FetchMaxWait(100*time.Millisecond))...)
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return err
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	end, ok := ends.Lookup(topic, 0)
	start, _ := starts.Lookup(topic, 0)
	switch {
	case !ok:
		return errors.New("the broker does not say where it ends (\"consumer topics ensure\" creates it)")
	case end.Err != nil:
		return fmt.Errorf("%w (\"consumer topics ensure\" creates it)", end.Err)
	}
	for next := start.Offset; next < end.Offset; {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errs := fetches.Errors(); len(errs) > 0 {
			return errs[0].Err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset < end.Offset {
				each(r)
			}
			next = r.Offset + 1
		})
	}
	return nil
}
