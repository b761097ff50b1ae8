// Package produce writes records to the log and says, for each of them, whether
// the log has acknowledged it. It bounds what it holds in bytes and how long
// anyone waits, and knows in the background whether the log can be reached.
package produce

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// BatchBytes is the most bytes a record batch may have before compression, and
// so the most a record may have. It is the max.message.bytes that the topic is
// made with.
const BatchBytes = 2 << 20

// Config says how records are produced.
type Config struct {
	// Topic is where they go.
	Topic string
	// AckTimeout is how long a request waits for the acknowledgement of its
	// records. At least 100ms. Default 5s.
	AckTimeout time.Duration
	// Linger is how long a partition waits for more records before its batch
	// is sent. Default 0: while a request is on its way others gather behind it,
	// which makes batches when there is load and costs nothing when there is none.
	// Waiting 1 ms took a third of the posts that 32 clients get through.
	Linger time.Duration
	// BufferBytes bounds what is held of records that are not acknowledged
	// yet: keys, values, headers, and [RecordOverheadBytes] each. One request
	// larger than that is taken when nothing else is held. Default 256 MiB.
	BufferBytes int64
	// Compression of the batches: none, snappy, lz4 or zstd. Default snappy.
	Compression string
	// ProbeInterval is how often the log is asked whether it is there.
	// Default 1s.
	ProbeInterval time.Duration
}

// DefaultConfig produces to topic with the defaults.
func DefaultConfig(topic string) Config {
	return Config{
		Topic:         topic,
		AckTimeout:    5 * time.Second,
		BufferBytes:   256 << 20,
		Compression:   "snappy",
		ProbeInterval: time.Second,
	}
}

// Validate tells what is wrong.
func (c Config) Validate() error {
	switch {
	case c.Topic == "":
		return errors.New("the topic to produce to must be set")
	case c.AckTimeout < 100*time.Millisecond:
		return fmt.Errorf("ack_timeout is %v, want at least 100ms", c.AckTimeout)
	case c.Linger < 0 || c.Linger > c.AckTimeout/2:
		return fmt.Errorf("linger is %v, want 0 to half of ack_timeout", c.Linger)
	case c.BufferBytes < BatchBytes:
		return fmt.Errorf("buffer_bytes is %d, want at least %d", c.BufferBytes, BatchBytes)
	case c.ProbeInterval <= 0:
		return fmt.Errorf("probe_interval is %v, want more than 0", c.ProbeInterval)
	}
	_, err := codec(c.Compression)
	return err
}

func codec(name string) (kgo.CompressionCodec, error) {
	switch name {
	case "none":
		return kgo.NoCompression(), nil
	case "snappy":
		return kgo.SnappyCompression(), nil
	case "lz4":
		return kgo.Lz4Compression(), nil
	case "zstd":
		return kgo.ZstdCompression(), nil
	}
	return kgo.CompressionCodec{}, fmt.Errorf("compression is %q, want none, snappy, lz4 or zstd", name)
}

// options are the client's, each with its reason.
func (c Config) options() ([]kgo.Opt, error) {
	compression, err := codec(c.Compression)
	if err != nil {
		return nil, err
	}
	return []kgo.Opt{
		kgo.DefaultProduceTopic(c.Topic),
		// A 202 is a promise: every in-sync replica has it. Idempotence is on
		// by default; it keeps the client's own retries from writing twice.
		kgo.RequiredAcks(kgo.AllISRAcks()),
		// Keyed records go where Java's default partitioner puts them.
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.ProducerBatchMaxBytes(BatchBytes),
		kgo.ProducerBatchCompression(compression),
		kgo.ProducerLinger(c.Linger),
		// A record once sent is tried on for as long as it takes: it may have
		// been written, and giving it up would not undo that. BufferBytes bounds
		// what gathers meanwhile. (kgo.RecordDeliveryTimeout would not do: it
		// counts from the record's timestamp, which is the edge's to set.)
		kgo.ProduceRequestTimeout(c.AckTimeout),
		// A broker that has stopped without closing its connections is given
		// up after this; the default of 10s is longer than anyone waits here.
		kgo.RequestTimeoutOverhead(max(c.AckTimeout, time.Second)),
		// What is held is bounded in bytes by the Producer. Were the client's
		// own bounds reached, Produce would block.
		kgo.MaxBufferedRecords(1 << 30),
		kgo.MaxBufferedBytes(0),
		// Partitions added to the topic are noticed within a minute; until
		// then the consumer forwards what lands in the wrong one.
		kgo.MetadataMaxAge(time.Minute),
		kgo.MetadataMinAge(250 * time.Millisecond),
	}, nil
}
