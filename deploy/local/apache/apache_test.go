package apache

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// TestMain also is the parent that is killed in TestParentKilled, and the holder
// in TestLeftover.
func TestMain(m *testing.M) {
	if dir := os.Getenv("PARENT_OF"); dir != "" {
		parent(dir)
	}
	if path := os.Getenv("HOLDER_OF"); path != "" {
		holder(path)
	}
	goleak.VerifyTestMain(m)
}

func script(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755))
	return path
}

func TestJavaMajor(t *testing.T) {
	for text, want := range map[string]int{
		`openjdk version "17.0.15" 2025-04-15`: 17,
		`java version "1.8.0_412"`:             8,
		`openjdk version "25" 2025-09-16`:      25,
		"Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version \"21.0.2\" 2024-01-16\nOpenJDK": 21,
	} {
		got, err := javaMajor(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	_, err := javaMajor("command not found")
	require.Error(t, err)
}

// What is missing is named, with what installs it.
func TestFindJava(t *testing.T) {
	t.Setenv("JAVA_HOME", "")
	t.Setenv("PATH", t.TempDir())
	_, err := findJava(t.Context())
	require.ErrorContains(t, err, "apt-get install openjdk-17-jre-headless")

	old := script(t, "java", `echo 'openjdk version "11.0.2"' >&2`)
	t.Setenv("PATH", filepath.Dir(old))
	_, err = findJava(t.Context())
	require.ErrorContains(t, err, old+" is Java 11")
	require.ErrorContains(t, err, "openjdk-17-jre-headless")

	home := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(home, "bin"), 0o755))
	require.NoError(t, os.Rename(script(t, "java", `echo 'openjdk version "21"' >&2`), filepath.Join(home, "bin", "java")))
	t.Setenv("JAVA_HOME", home)
	got, err := findJava(t.Context())
	require.NoError(t, err)
	require.Equal(t, filepath.Join(home, "bin", "java"), got)
}

// fakeMaven writes what the real one would into -DoutputDirectory.
const fakeMaven = `for a; do case $a in -DoutputDirectory=*) d=${a#-DoutputDirectory=};; esac; done
mkdir -p "$d"; grep -q '<version>4.3.1</version>' pom.xml || exit 4
echo x >> ../calls; [ -e ../fail ] && { echo 'the reason'; exit 1; }
touch "$d/kafka_2.13-4.3.1.jar"; [ -e ../half ] || touch "$d/kafka-tools-4.3.1.jar"`

func TestEnsure(t *testing.T) {
	root := t.TempDir()
	var out bytes.Buffer
	i := installer{dir: filepath.Join(root, Version), mvn: script(t, "mvn", fakeMaven), out: &out}
	put := func(name string) { require.NoError(t, os.WriteFile(filepath.Join(root, name), nil, 0o644)) }
	remove := func(name string) { require.NoError(t, os.Remove(filepath.Join(root, name))) }
	calls := func() int {
		b, err := os.ReadFile(filepath.Join(root, "calls"))
		require.NoError(t, err)
		return bytes.Count(b, []byte("\n"))
	}
	put("fail")
	err := i.ensure(t.Context())
	require.ErrorContains(t, err, "the reason")
	remove("fail")
	put("half")
	require.ErrorContains(t, i.ensure(t.Context()), "kafka-tools-4.3.1.jar")
	remove("half")
	require.NoError(t, i.ensure(t.Context()))
	require.Contains(t, out.String(), "Apache Kafka is installed")
	require.Equal(t, 3, calls())

	// All there: nothing is done or said.
	out.Reset()
	require.NoError(t, i.ensure(t.Context()))
	require.Equal(t, 3, calls())
	require.Empty(t, out.String())

	// Of another pom, or cut off before the end: all anew.
	require.NoError(t, os.WriteFile(i.marker(), []byte("other"), 0o644))
	require.NoError(t, i.ensure(t.Context()))
	require.Equal(t, 4, calls())

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, os.Remove(i.marker()))
	require.ErrorContains(t, i.ensure(ctx), "interrupted")
	i.mvn = filepath.Join(root, "no-mvn")
	require.ErrorContains(t, i.ensure(t.Context()), "apt-get install maven")
}

// The version in the code is the one that the pom names.
func TestVersion(t *testing.T) {
	require.Equal(t, 2, strings.Count(string(pom), "<version>"+Version+"</version>"))
}

// fakeJava is a node that runs until it is told to stop, or a tool that writes
// down its arguments.
const fakeJava = `case "$*" in
*kafka.Kafka*deaf*) trap '' TERM; while :; do sleep 600 & wait; done;;
*kafka.Kafka*) exec sleep 600;;
*) echo "$@"; echo "$@" >> "$0.calls";; esac`

func fakeConfig(t *testing.T, nodes int) Config {
	t.Helper()
	ports, err := FreePorts(nodes)
	require.NoError(t, err)
	return Config{Library: Library{Java: script(t, "java", fakeJava), Jars: "/jars"}, Dir: t.TempDir(), Ports: ports}
}

func TestPrepare(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		cfg := fakeConfig(t, nodes)
		cfg.Settings = map[string]string{"num.partitions": "7"}
		cfg.SyncWrites = true
		c, err := New(cfg)
		require.NoError(t, err)
		require.NoError(t, c.Prepare(t.Context()))
		b, err := os.ReadFile(c.properties(nodes))
		require.NoError(t, err)
		for _, line := range []string{
			fmt.Sprintf("node.id=%d", nodes), "num.partitions=7", "log.flush.interval.messages=1",
			fmt.Sprintf("min.insync.replicas=%d", max(1, nodes-1)), fmt.Sprintf("offsets.topic.replication.factor=%d", nodes),
			fmt.Sprintf("listeners=BROKER://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", cfg.Ports[nodes-1], c.controllers[nodes-1]),
			"unclean.leader.election.enable=false",
		} {
			require.Contains(t, string(b), "\n"+line+"\n")
		}
		formatted := func() int {
			calls, err := os.ReadFile(cfg.Library.Java + ".calls")
			require.NoError(t, err)
			return bytes.Count(calls, []byte("StorageTool format"))
		}
		require.Equal(t, nodes, formatted())

		// Another start, on another port: the configuration is new, the data are not.
		id, err := c.clusterID()
		require.NoError(t, err)
		cfg.Ports, err = FreePorts(nodes)
		require.NoError(t, err)
		c, err = New(cfg)
		require.NoError(t, err)
		require.NoError(t, c.Prepare(t.Context()))
		require.Equal(t, nodes, formatted())
		again, err := c.clusterID()
		require.NoError(t, err)
		require.Equal(t, id, again)
		b, err = os.ReadFile(c.properties(1))
		require.NoError(t, err)
		require.Contains(t, string(b), c.Address(1))
	}
}

func started(t *testing.T, cfg Config) *Nodes {
	t.Helper()
	c, err := New(cfg)
	require.NoError(t, err)
	require.NoError(t, c.Prepare(t.Context()))
	n := newNodes(c)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	for _, node := range c.Nodes() {
		require.NoError(t, n.Start(node))
	}
	return n
}

// state is a process's state as the system has it: S sleeping, T stopped, Z dead;
// "" when there is none.
func state(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[0]
}

func TestNodes(t *testing.T) {
	n := started(t, fakeConfig(t, 3))
	pid := n.running[2].cmd.Process.Pid
	require.ErrorContains(t, n.Start(2), "runs already")
	require.NoError(t, n.Pause(2))
	require.Eventually(t, func() bool { return state(pid) == "T" }, 10*time.Second, time.Millisecond)
	require.NoError(t, n.Resume(2))
	require.Eventually(t, func() bool { return state(pid) == "S" }, 10*time.Second, time.Millisecond)
	require.NoError(t, n.Kill(2))
	require.Empty(t, state(pid))
	require.ErrorContains(t, n.Kill(2), "not running")
	require.NoError(t, n.Start(2))
	require.NoError(t, n.Stop(2))
	require.NoError(t, n.Start(2))
	require.NoError(t, n.StopAll())
	require.Empty(t, n.running)
}

// A node that ends by itself is told at once, not after two minutes.
func TestReadyNoticesDeath(t *testing.T) {
	n := started(t, fakeConfig(t, 1))
	require.NoError(t, syscall.Kill(n.running[1].cmd.Process.Pid, syscall.SIGKILL))
	require.ErrorContains(t, n.Ready(t.Context()), "node 1 ended by itself")
}

func parent(dir string) {
	java := filepath.Join(dir, "java")
	c, err := New(Config{Library: Library{Java: java, Jars: "/jars"}, Dir: filepath.Join(dir, "data"), Ports: []int{1}})
	if err == nil {
		err = c.Prepare(context.Background())
	}
	n := newNodes(c)
	if err == nil {
		err = n.Start(1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(n.running[1].cmd.Process.Pid)
	select {}
}

// Whatever ends the process that started a node, the node does not stay.
func TestParentKilled(t *testing.T) {
	java := script(t, "java", fakeJava)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PARENT_OF="+filepath.Dir(java))
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var pid int
	_, err = fmt.Fscan(out, &pid)
	require.NoError(t, err)
	require.NotEmpty(t, state(pid))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.Eventually(t, func() bool { s := state(pid); return s == "" || s == "Z" }, 10*time.Second, time.Millisecond)
}

func holder(path string) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	}
	fmt.Println(err)
	select {}
}

// A lock of another process is seen, and by whom, and that it is gone.
func TestLeftover(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, Leftover(dir), "the first run")
	path := filepath.Join(dir, "node-1", "data", ".lock")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, nil, 0o644))
	require.NoError(t, Leftover(dir), "there, and nobody holds it")

	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HOLDER_OF="+path)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var said string
	_, err = fmt.Fscan(out, &said)
	require.NoError(t, err)
	require.Equal(t, "<nil>", said)
	require.ErrorContains(t, Leftover(dir), fmt.Sprintf("process %d holds %s", cmd.Process.Pid, path))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.NoError(t, Leftover(dir))
}
