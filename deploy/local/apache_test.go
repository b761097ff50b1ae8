//go:build apachekafka

package main

import "testing"

// The same on Apache Kafka itself, which says nothing when it stops in order.
func TestSluiceOnApache(t *testing.T) {
	t.Setenv("BROKER", apacheBroker)
	throughAndBack(t, "ingest", "consumer", "engine", "sluice")
}
