package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/schemas/event"
	"sluice/schemas/topic"
)

// forgetful has an edge remember so few keys that no repeat is known by the time
// it comes: the samples are posted in turn.
func forgetful(c *config) { c.Known.Bytes = 32 << 10 }

// BenchmarkPost is a single post until its answer, 32 clients in a closed loop,
// beside what it stands on:
//
//   - noop: a gin handler that does nothing;
//   - bind: gin and encoding/json;
//   - bare: gin, encoding/json and franz-go's ProduceSync;
//   - sluice: the edge, whole.
func BenchmarkPost(b *testing.B) {
	broker := brokerProcess(b)
	requests := make([][]byte, samples)
	for i := range requests {
		requests[i] = requestBytes("/api/events", "application/json", sample(i))
	}
	const workers = 32
	seen := ratios{}
	type body struct {
		Source        string          `json:"source" binding:"required"`
		EventType     string          `json:"event_type" binding:"required"`
		ActorID       string          `json:"actor_id" binding:"required"`
		OccurredAt    time.Time       `json:"occurred_at" binding:"required"`
		Payload       json.RawMessage `json:"payload,omitempty"`
		ClientEventID string          `json:"client_event_id,omitempty"`
	}
	b.Run("noop", func(b *testing.B) {
		address := serveGin(b, func(e *gin.Engine) { e.POST("/api/events", func(c *gin.Context) { c.Status(202) }) })
		hammer(b, address, workers, 202, requests, "post", 1)
		seen.note(b, "noop", "posts/s", 1)
	})
	b.Run("bind", func(b *testing.B) {
		address := serveGin(b, func(e *gin.Engine) {
			e.POST("/api/events", func(c *gin.Context) {
				var v body
				if err := c.ShouldBindJSON(&v); err != nil {
					c.JSON(http.StatusBadRequest, gin.H{"error": err.Error()})
					return
				}
				c.JSON(http.StatusAccepted, gin.H{"accepted": true})
			})
		})
		hammer(b, address, workers, 202, requests, "post", 1)
		seen.note(b, "bind", "posts/s", 1)
	})
	b.Run("bare", func(b *testing.B) {
		client := bareClient(b, broker)
		address := serveGin(b, func(e *gin.Engine) {
			e.POST("/api/events", func(c *gin.Context) {
				var v body
				if err := c.ShouldBindJSON(&v); err != nil {
					c.JSON(http.StatusBadRequest, gin.H{"error": err.Error()})
					return
				}
				value, err := json.Marshal(v)
				if err == nil {
					key := v.Source + ":" + v.EventType + ":" + v.ActorID + ":" + v.OccurredAt.UTC().Format(time.RFC3339Nano)
					err = client.ProduceSync(c, &kgo.Record{Key: []byte(key), Value: value}).FirstErr()
				}
				if err != nil {
					c.JSON(http.StatusServiceUnavailable, gin.H{"error": err.Error()})
					return
				}
				c.JSON(http.StatusAccepted, gin.H{"accepted": true, "status": "queued"})
			})
		})
		hammer(b, address, workers, 202, requests, "post", 1)
		seen.note(b, "bare", "posts/s", 1)
	})
	b.Run("sluice", func(b *testing.B) {
		e := launchEdge(b, []string{broker}, forgetful)
		e.waitReady(b)
		hammer(b, e.address, workers, 202, requests, "post", 1)
		seen.note(b, "sluice", "posts/s", 1)
		seen.against(b, "sluice", "noop", "bind", "bare")
	})
}

// BenchmarkBatch is a batch of 1,000 events until its answer, 4 clients in a
// closed loop, beside a bare franz-go producer of the same records (keys, values
// and headers made beforehand) in batches of the same size from as many
// goroutines.
func BenchmarkBatch(b *testing.B) {
	broker := brokerProcess(b)
	const size, workers = 1000, 4
	seen := ratios{}
	batches := make([][][]byte, samples/size)
	for i := range batches {
		for j := range size {
			batches[i] = append(batches[i], sample(i*size+j))
		}
	}
	b.Run("producer", func(b *testing.B) {
		client := bareClient(b, broker)
		type kv struct {
			key, value []byte
			headers    []kgo.RecordHeader
		}
		decoder := event.NewDecoder(event.DefaultLimits())
		encoded := make([][]kv, len(batches))
		for i, lines := range batches {
			for _, line := range lines {
				e, faults := decoder.Decode(line, time.Time{})
				require.Empty(b, faults)
				hash := event.PayloadHash(e.Payload)
				encoded[i] = append(encoded[i], kv{e.AppendKey(nil), e.AppendJSON(nil), []kgo.RecordHeader{
					{Key: topic.HeaderEventID, Value: []byte(e.ID().String())},
					{Key: topic.HeaderContentHash, Value: hex.AppendEncode(nil, hash[:])},
					{Key: topic.HeaderEdge, Value: []byte("0123456789ab")},
				}})
			}
		}
		var next atomic.Int64
		b.SetParallelism(max(1, workers/runtime.GOMAXPROCS(0)))
		b.ReportAllocs()
		b.ResetTimer()
		began := cpuTime(b)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				records := make([]*kgo.Record, size)
				for i, r := range encoded[int(next.Add(1))%len(encoded)] {
					records[i] = &kgo.Record{Key: r.key, Value: r.value, Headers: r.headers}
				}
				if err := client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
					b.Error(err)
					return
				}
			}
		})
		reportCPU(b, began, "event", size)
		seen.note(b, "producer", "events/s", size)
	})
	e := launchEdge(b, []string{broker}, forgetful)
	e.waitReady(b)
	for _, form := range []string{"ndjson", "array"} {
		b.Run(form, func(b *testing.B) {
			requests := make([][]byte, len(batches))
			for i, lines := range batches {
				if form == "ndjson" {
					requests[i] = requestBytes("/api/events/batch", "application/x-ndjson", bytes.Join(lines, []byte("\n")))
				} else {
					requests[i] = requestBytes("/api/events/batch", "application/json",
						append(append([]byte("["), bytes.Join(lines, []byte(","))...), ']'))
				}
			}
			hammer(b, e.address, workers, 202, requests, "event", size)
			seen.note(b, form, "events/s", size)
			seen.against(b, form, "producer")
		})
	}
}
