package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/schemas/event"
)

// blocks are the fenced blocks of a guide, in order: the words after the fence, and
// the lines.
func blocks(t testing.TB, name string) (kinds []string, texts []string) {
	t.Helper()
	raw, err := os.ReadFile(name)
	require.NoError(t, err)
	parts := strings.Split("\n"+string(raw), "\n```")
	require.Equal(t, 1, len(parts)%2, "every fence is closed")
	for i := 1; i < len(parts); i += 2 {
		kind, text, _ := strings.Cut(parts[i], "\n")
		kinds, texts = append(kinds, kind), append(texts, text)
	}
	require.NotEmpty(t, kinds)
	return kinds, texts
}

// Every command and query of the operators' guide is run by a shell, in its order,
// on a stack with rows missing, dead letters, and a record to be skipped.
func TestTheOperatorsGuide(t *testing.T) {
	t.Parallel()
	s, _ := seeded(t)
	s.exec("ALTER TABLE event_log DELETE WHERE actor_id = 'actor-5' SETTINGS mutations_sync = 2")
	address, stop := s.consumingWithStatus()
	bin := t.TempDir()
	script := "#!/bin/sh\n" + asCommand + "=1 exec " + strconv.Quote(os.Args[0]) + " \"$@\"\n"
	require.NoError(t, os.WriteFile(filepath.Join(bin, "consumer"), []byte(script), 0o755))
	schemas, err := filepath.Abs(filepath.Join("..", "schemas", "jsonschema"))
	require.NoError(t, err)
	env := append(os.Environ(), "SLUICE_SCHEMAS_DIR="+schemas, "PATH="+bin+":"+os.Getenv("PATH"), "KEY="+string(record(1, "{}").Key),
		"SLUICE_KAFKA_BROKERS="+strings.Join(s.cfg.Kafka.Brokers, ","), "SLUICE_CLICKHOUSE_DSN="+s.cfg.ClickHouse.DSN)
	s.produce(&kgo.Record{Value: []byte(`{"source":"web"}`)})
	var dead []letter
	require.Eventually(t, func() bool {
		out, _, _ := s.says("dlq", "list", "--json")
		dead = lines[letter](t, out)
		return len(dead) > 0
	}, 20*time.Second, 100*time.Millisecond)
	env = append(env, "DEAD="+dead[len(dead)-1].Origin)

	kinds, texts := blocks(t, filepath.Join("..", "deploy", "docs", "operators.md"))
	for i, kind := range kinds {
		if kind == "sql" {
			rows, err := s.store.Conn().Query(t.Context(), texts[i])
			require.NoError(t, err, texts[i])
			for rows.Next() {
			}
			require.NoError(t, rows.Err(), texts[i])
			require.NoError(t, rows.Close())
			continue
		}
		require.True(t, kind == "sh" || strings.HasPrefix(kind, "sh "), kind)
		mode := strings.TrimPrefix(kind, "sh")
		if mode != "" {
			stop()
		}
		if mode == " lag" { // records that a stopped consumer has not read
			ranges := s.ends()
			for n := 50_000; ; n++ {
				if r := record(n, `{}`); event.Partition(r.Key, 3) == 0 {
					s.produce(r)
					break
				}
			}
			env = append(env, "FROM="+strconv.FormatInt(ranges, 10), "TO="+strconv.FormatInt(ranges+1, 10))
		}
		for l := range strings.SplitSeq(strings.TrimSpace(texts[i]), "\n") {
			sh := exec.CommandContext(t.Context(), "sh", "-c", l)
			sh.Env, sh.Dir = append(env, "SLUICE_ADMIN_ADDRESS="+address), t.TempDir()
			out, err := sh.CombinedOutput()
			if err != nil { // 1 is what a command found
				require.Equal(t, 1, sh.ProcessState.ExitCode(), "%s\n%s", l, out)
			}
		}
		if mode != "" {
			address, stop = s.consumingWithStatus()
		}
	}
	defer stop()
	require.Eventually(t, func() bool { return s.verified().OK }, 60*time.Second, 200*time.Millisecond)
	require.EqualValues(t, 500, s.scalar("SELECT count() FROM event_log"))
	require.EqualValues(t, 1, s.scalar("SELECT toUInt64(sum(skipped)) FROM balance"))
}

// ends is the end of partition 0.
func (s *stack) ends() int64 {
	s.t.Helper()
	_, end, err := s.bounds()
	require.NoError(s.t, err)
	return end
}
