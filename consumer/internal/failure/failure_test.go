package failure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
)

func TestOf(t *testing.T) {
	exception := func(code int32) error {
		return fmt.Errorf("writing: %w", &clickhouse.HTTPError{StatusCode: 500, Err: &clickhouse.Exception{Code: code}})
	}
	for _, c := range []struct {
		name string
		err  error
		want Class
	}{
		{"an unknown error", errors.New("what is this"), Away},
		{"the process stops", context.Canceled, Away},
		{"no answer in time", fmt.Errorf("x: %w", context.DeadlineExceeded), Away},
		{"the connection broke after the INSERT was sent", fmt.Errorf("x: %w", io.ErrUnexpectedEOF), Away},
		{"nothing listens", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, Away},
		{"TOO_MANY_PARTS", exception(252), Away},
		{"MEMORY_LIMIT_EXCEEDED", exception(241), Away},
		{"TIMEOUT_EXCEEDED", exception(159), Away},
		{"SOCKET_TIMEOUT", exception(209), Away},
		{"READONLY", exception(164), Away},
		{"TABLE_IS_READ_ONLY", exception(242), Away},
		{"NOT_ENOUGH_SPACE", exception(243), Away},
		{"CANNOT_WRITE_TO_FILE_DESCRIPTOR, as a full disk gives", exception(75), Away},
		{"TOO_MANY_SIMULTANEOUS_QUERIES", exception(202), Away},
		{"QUERY_WAS_CANCELLED", exception(394), Away},
		{"LOGICAL_ERROR", exception(49), Away},
		{"a code of tomorrow", exception(99_999), Away},
		{"VIOLATED_CONSTRAINT", exception(469), Refused},
		{"INCORRECT_DATA", exception(117), Refused},
		{"UNKNOWN_TABLE", exception(60), Halt},
		{"ACCESS_DENIED", exception(497), Halt},
		{"told to wait for a person", fmt.Errorf("newer: %w", ErrMend), Halt},
		{"a broker that moves a leader", kerr.NotLeaderForPartition, Away},
		{"a topic that is gone", kerr.UnknownTopicOrPartition, Away},
		{"a group we may not join", fmt.Errorf("x: %w", kerr.GroupAuthorizationFailed), Halt},
		{"a dead letter larger than its topic allows", kerr.MessageTooLarge, Halt},
		{"an ended incarnation", fmt.Errorf("x: %w", ErrOver), Over},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, Of(c.err), c.want.String()) })
	}
}

func TestRegrouping(t *testing.T) {
	require.True(t, Regrouping(fmt.Errorf("x: %w", kerr.IllegalGeneration)))
	require.True(t, Regrouping(kerr.StaleMemberEpoch))
	require.False(t, Regrouping(kerr.UnknownMemberID), "the member was thrown out: another may own the partition")
	require.False(t, Regrouping(kerr.FencedInstanceID))
}
