package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sluice/consumer/internal/doctor"
)

// doctored runs the command as a process would, and returns what it printed and
// its exit status.
func (s *stack) doctored(args ...string) (string, int) {
	s.t.Helper()
	cmd := command()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append([]string{"doctor", "--kafka.brokers", strings.Join(s.cfg.Kafka.Brokers, ","), "--clickhouse.dsn", s.cfg.ClickHouse.DSN}, args...))
	err := cmd.ExecuteContext(s.t.Context())
	if err == nil {
		return out.String(), 0
	}
	var exit exitError
	require.ErrorAs(s.t, err, &exit)
	return out.String() + exit.Error(), exit.status
}

func TestDoctorCommand(t *testing.T) {
	s := newStack(t)
	out, status := s.doctored()
	require.Zero(t, status, out)
	require.Regexp(t, `(?m)^ok +clickhouse\.event_log\.engine`, out)
	require.Regexp(t, `(?m)^unknown +clickhouse\.row_policies +cannot be checked here: `, out)
	require.Contains(t, out, "0 must be mended, 0 warnings")

	// Only a warning: the status stays 0.
	s.exec("ALTER TABLE event_log DROP PROJECTION by_hour")
	out, status = s.doctored()
	require.Zero(t, status, out)
	require.Contains(t, out, "mend: ALTER TABLE event_log ADD PROJECTION by_hour (SELECT")

	s.exec("ALTER TABLE event_log MODIFY SETTING deduplicate_merge_projection_mode = 'ignore'")
	out, status = s.doctored("--json")
	require.Equal(t, 1, status)
	var report struct {
		OK      bool
		Results []struct {
			Check, Severity, What, Breaks string
			Mend                          []string
		}
		Summary string
	}
	require.NoError(t, json.Unmarshal([]byte(out), &report), out)
	require.False(t, report.OK)
	found := 0
	for _, r := range report.Results {
		if r.Severity == "refuse" {
			found++
			require.Equal(t, "clickhouse.event_log.deduplicate_merge_projection_mode", r.Check)
			require.Equal(t, "ALTER TABLE event_log MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';", r.Mend[0])
		}
	}
	require.Equal(t, 1, found)
	require.Contains(t, report.Summary, "1 must be mended")

	// A claim that one machine cannot keep, and one that nobody knows.
	out, status = s.doctored("--doctor.durability", "cluster")
	require.Equal(t, 1, status)
	require.Contains(t, out, "kafka-configs.sh --bootstrap-server "+s.cfg.Kafka.Brokers[0])
	cmd := command()
	cmd.SetArgs([]string{"doctor", "--doctor.durability", "eternal"})
	err := cmd.ExecuteContext(t.Context())
	require.ErrorContains(t, err, "process, machine or cluster")

	s.exec("ALTER TABLE event_log MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild'")
	s.engine.Kill()
	out, status = s.doctored()
	require.Equal(t, 2, status)
	require.Contains(t, out, "ClickHouse could not be asked")
	require.Regexp(t, `(?m)^ok +kafka\.events\.cleanup_policy`, out, "the side that answers is judged all the same")
	s.engine.Restart()
}

// A second group on the same topic and database ("--group.id", mistyped) decided every
// record beside the first: ranges overlapped, and the balance never added up again.
func TestASecondGroupIsRefused(t *testing.T) {
	s := newStack(t)
	stop := s.consuming()
	s.produce(record(1, `{}`))
	require.Equal(t, 1, s.verified().Rows)
	other := s.cfg
	other.Group.ID = "mistyped"
	err := consume(t.Context(), other, s.log, unregistered())
	require.ErrorIs(t, err, doctor.ErrRefused)
	require.ErrorContains(t, err, `the group "`+s.cfg.Group.ID+`" writes the topic`)
	_, said, status := s.says("doctor", "--group.id", "mistyped")
	require.Equal(t, 1, status, said)
	stop()
	s.cfg = other // renamed on purpose: the old group has no members any more
	stop = s.consuming()
	defer stop()
	s.produce(record(2, `{}`))
	require.Equal(t, 2, s.verified().Rows)
	require.Zero(t, s.wrong())
}
