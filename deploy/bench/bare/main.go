// Command bare serves what the edge is measured beside: a gin handler that does
// nothing ("noop"), and one of gin, encoding/json and franz-go's ProduceSync with
// nothing of ours ("produce"). It prints its address and serves until SIGTERM.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/twmb/franz-go/pkg/kgo"
)

// body is an event as a handler would declare it that thinks of nothing else.
type body struct {
	Source     string          `json:"source" binding:"required"`
	EventType  string          `json:"event_type" binding:"required"`
	ActorID    string          `json:"actor_id" binding:"required"`
	OccurredAt time.Time       `json:"occurred_at" binding:"required"`
	Payload    json.RawMessage `json:"payload,omitempty"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	switch {
	case len(args) == 2 && args[0] == "noop":
		e.POST("/api/events", func(c *gin.Context) { c.Status(http.StatusAccepted) })
	case len(args) == 4 && args[0] == "produce":
		client, err := kgo.NewClient(kgo.SeedBrokers(args[2]), kgo.DefaultProduceTopic(args[3]), kgo.ProducerLinger(0))
		if err != nil {
			return err
		}
		defer client.Close()
		e.POST("/api/events", func(c *gin.Context) { produce(c, client) })
	default:
		return fmt.Errorf("usage: bare noop ADDRESS | bare produce ADDRESS BROKER TOPIC")
	}
	e.GET("/readyz", func(c *gin.Context) { c.Status(http.StatusOK) })
	l, err := net.Listen("tcp", args[1]) //nolint:noctx // there is nothing that would end it
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	srv := &http.Server{Handler: e, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func produce(c *gin.Context, client *kgo.Client) {
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
}
