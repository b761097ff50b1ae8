package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// edgeHealth is what an edge says of itself, at one of the addresses of
// status.edges. What it could not be asked is the zero value.
type edgeHealth struct {
	Address string `json:"address"`
	// Status is /health's: up, degraded, down or stopping; "" when it did not
	// answer, and then Error says why.
	Status string `json:"status"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	// Checks are those that are not up, with what was found.
	Checks []string `json:"checks,omitempty"`
	// Spooled are the records on its disk, in SpooledBytes.
	Spooled      int    `json:"spooled"`
	SpooledBytes int64  `json:"spooled_bytes"`
	Error        string `json:"error,omitempty"`
}

// edgeBound is how long an edge may take to answer. It asks nobody for it.
const edgeBound = 2 * time.Second

// askEdges asks every edge at once.
func askEdges(ctx context.Context, addresses []string) []edgeHealth {
	out := make([]edgeHealth, len(addresses))
	var all sync.WaitGroup
	for i, address := range addresses {
		all.Go(func() { out[i] = askEdge(ctx, address) })
	}
	all.Wait()
	return out
}

func askEdge(ctx context.Context, address string) edgeHealth {
	e := edgeHealth{Address: address}
	ctx, cancel := context.WithTimeout(ctx, edgeBound)
	defer cancel()
	var health struct {
		Status, Reason string
		Ready          bool
		Checks         []struct{ Name, Status, Error string }
	}
	if _, err := ask(ctx, address, "/health", &health); err != nil {
		e.Error = err.Error()
		return e
	}
	e.Status, e.Ready, e.Reason = health.Status, health.Ready, health.Reason
	for _, c := range health.Checks {
		if c.Status != "up" {
			e.Checks = append(e.Checks, strings.TrimSuffix(fmt.Sprintf("%s is %s: %s", c.Name, c.Status, c.Error), ": "))
		}
	}
	var spool struct {
		Records int
		Bytes   int64
	}
	status, err := ask(ctx, address, "/spool", &spool)
	if err != nil && status != http.StatusNotFound { // an edge may have no spool
		e.Error = err.Error()
	}
	e.Spooled, e.SpooledBytes = spool.Records, spool.Bytes
	return e
}

// ask reads what an admin port of ours answers to a path.
func ask(ctx context.Context, address, path string, into any) (status int, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return 0, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return res.StatusCode, fmt.Errorf("%s answers %s", path, res.Status)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 8<<20)).Decode(into); err != nil {
		return res.StatusCode, fmt.Errorf("what %s answers can't be read: %w", path, err)
	}
	return res.StatusCode, nil
}

// judgeEdges lists what of the edges needs attention.
func (s *status) judgeEdges() {
	for _, e := range s.Edges {
		name := "the edge at " + e.Address
		switch {
		case e.Error != "":
			s.Problems = append(s.Problems, fmt.Sprintf("%s does not answer: %s", name, e.Error))
		case !e.Ready:
			s.Problems = append(s.Problems, fmt.Sprintf("%s takes no events: %s", name, e.Reason))
		case len(e.Checks) > 0:
			s.Problems = append(s.Problems, fmt.Sprintf("%s is %s: %s", name, e.Status, strings.Join(e.Checks, "; ")))
		}
		if e.Spooled > 0 {
			s.Notes = append(s.Notes, fmt.Sprintf("%s has %d records (%d bytes) in its spool; they go to the log when it takes them", name, e.Spooled, e.SpooledBytes))
		}
	}
}

// writeEdges shows each edge in a line.
func (s status) writeEdges(w io.Writer) {
	for _, e := range s.Edges {
		said := e.Status
		if e.Error != "" {
			said = "?"
		}
		fmt.Fprintf(w, "edge %s: %s, %d records spooled\n", e.Address, said, e.Spooled)
	}
}
