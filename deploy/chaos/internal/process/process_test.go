package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"sluice/deploy/local/supervise"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// pid reads the id that the program wrote of its newest life.
func pid(t *testing.T, file string, not int) (id int) {
	t.Helper()
	require.Eventually(t, func() bool {
		b, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		_, err = fmt.Sscan(string(b), &id)
		return err == nil && id != not
	}, patience, 5*time.Millisecond)
	return id
}

func state(id int) byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	if err != nil {
		return 0
	}
	return b[bytes.LastIndexByte(b, ')')+2]
}

func TestLives(t *testing.T) {
	t.Setenv("SLUICE_STRAY", "must not arrive")
	dir := t.TempDir()
	file, log := filepath.Join(dir, "pid"), filepath.Join(dir, "log")
	spawner := supervise.NewSpawner()
	defer spawner.Close()
	ended := make(chan string, 10)
	p := New(spawner, Spec{
		Name: "victim", Path: "/bin/sh", Env: []string{"FILE=" + file}, Log: log,
		Args: []string{"-c", `echo "stray=$SLUICE_STRAY"; echo $$ > $FILE.new; mv $FILE.new $FILE; exec sleep 600`},
	}, func(name string, state *os.ProcessState) { ended <- name + " " + state.String() })
	require.NoError(t, p.Start())
	require.Error(t, p.Start(), "it runs already")
	one := pid(t, file, 0)

	p.Freeze()
	require.Eventually(t, func() bool { return state(one) == 'T' }, patience, time.Millisecond)
	p.Thaw()
	require.Eventually(t, func() bool { return state(one) == 'S' }, patience, time.Millisecond)

	p.Kill()
	require.Zero(t, state(one), "gone when Kill returns")
	require.NoError(t, p.Start())
	two := pid(t, file, one)

	// What ends without us is reported and comes back.
	victim, err := os.FindProcess(two)
	require.NoError(t, err)
	require.NoError(t, victim.Kill())
	require.Equal(t, "victim signal: killed", <-ended)
	three := pid(t, file, two)

	p.Freeze()
	p.Stop(patience)
	require.Zero(t, state(three), "a frozen program stops too")
	require.Empty(t, ended)

	b, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Equal(t, 3, bytes.Count(b, []byte("stray=\n")), "%s", b)
}

func TestRun(t *testing.T) {
	spawner := supervise.NewSpawner()
	defer spawner.Close()
	out, err := Run(spawner, Spec{Name: "x", Path: "/bin/sh", Args: []string{"-c", "echo out"}}, patience)
	require.NoError(t, err)
	require.Equal(t, "out\n", out)

	out, err = Run(spawner, Spec{Name: "x", Path: "/bin/sh", Args: []string{"-c", "echo out; echo why >&2; exit 3"}}, patience)
	var failed *RunError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, 3, failed.ExitCode())
	require.Equal(t, "why", failed.Words)
	require.Equal(t, "out\n", out)
}
