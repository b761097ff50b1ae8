package doctor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func setup() Setup {
	return Setup{
		Config: DefaultConfig(), Topic: "events", DeadLetters: "events.dlq", Control: "events.control", Group: "sluice",
		Brokers: []string{"localhost:9092"}, TablePartitions: 60, RecordBytes: 2 << 20, ProduceBytes: 16 << 20,
	}
}

// result is what a check found; the test fails where there is no such check.
func (r Report) result(t *testing.T, check string) *Finding {
	t.Helper()
	for _, x := range r.Results {
		if x.Check == check {
			return x.Finding
		}
	}
	require.Fail(t, "no such check", check)
	return nil
}

func TestValidate(t *testing.T) {
	require.NoError(t, DefaultConfig().Validate())
	for _, wrong := range []Config{
		{Durability: "forever", LongestOutage: time.Hour, Every: time.Hour, Timeout: time.Hour},
		{Durability: Process, LongestOutage: 0, Every: time.Hour, Timeout: time.Hour},
		{Durability: Process, LongestOutage: time.Hour, Every: 0, Timeout: time.Hour},
		{Durability: Process, LongestOutage: time.Hour, Every: time.Hour, Timeout: -1},
	} {
		require.Error(t, wrong.Validate())
	}
}
