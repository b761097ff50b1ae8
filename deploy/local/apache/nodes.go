package apache

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"sluice/deploy/local/supervise"
)

//go:embed log4j2.xml
var log4j []byte

const (
	// stopBound is how long a node may take to stop before it is killed.
	stopBound = 30 * time.Second
	// readyBound is how long nodes may take to answer.
	readyBound = 2 * time.Minute
)

// Nodes are the running nodes of a cluster. When this process ends, however it
// ends, the system kills them. The methods are for one goroutine at a time.
type Nodes struct {
	*Cluster
	spawner *supervise.Spawner
	running map[int]*process
}

type process struct {
	cmd    *exec.Cmd
	out    *os.File
	exited chan struct{}
}

// Run prepares the cluster, starts all of its nodes and waits until they answer.
// Close ends them.
func Run(ctx context.Context, cfg Config) (*Nodes, error) {
	c, err := New(cfg)
	if err != nil {
		return nil, err
	}
	if err := c.Prepare(ctx); err != nil {
		return nil, err
	}
	n := newNodes(c)
	for _, node := range c.Nodes() {
		err = errors.Join(err, n.Start(node))
	}
	if err == nil {
		err = n.Ready(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func newNodes(c *Cluster) *Nodes {
	return &Nodes{Cluster: c, spawner: supervise.NewSpawner(), running: map[int]*process{}}
}

// Start starts a node that is not running, on its data and ports, and does not
// wait for it.
func (n *Nodes) Start(node int) error {
	if n.running[node] != nil {
		return fmt.Errorf("kafka's node %d runs already", node)
	}
	out, err := os.OpenFile(filepath.Join(n.dir(node), "output.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("kafka's node %d: %w", node, err)
	}
	path, args := n.Command(node)
	// No context: what ends it is Stop, which asks first and kills later.
	cmd := exec.CommandContext(context.Background(), path, args...)
	cmd.Stdout, cmd.Stderr = out, out
	// A group of its own: a terminal's Ctrl-C is for us alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := n.spawner.Start(cmd); err != nil {
		out.Close()
		return fmt.Errorf("kafka's node %d: %w", node, err)
	}
	p := &process{cmd: cmd, out: out, exited: make(chan struct{})}
	go func() {
		defer close(p.exited)
		_ = cmd.Wait() // a JVM that was told to stop says 143, one that was killed -1
	}()
	n.running[node] = p
	return nil
}

// Ready waits until every broker answers and knows all others. It gives up after
// two minutes, or at once when a node that was started has ended.
func (n *Nodes) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyBound, errors.New("no answer within "+readyBound.String()))
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	return supervise.Await(ctx, func(ctx context.Context) error {
		for node, p := range n.running {
			select {
			case <-p.exited:
				fail(fmt.Errorf("kafka's node %d ended by itself (%s): its log is %s", node, p.cmd.ProcessState, n.Log(node)))
			default:
			}
		}
		return n.Answers(ctx)
	})
}

// Stop asks a node to stop (SIGTERM) and kills it when it takes longer than 30 s:
// a broker that finds no controller cannot hand its partitions over.
func (n *Nodes) Stop(node int) error {
	if err := n.signal(node, syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-n.running[node].exited:
	case <-time.After(stopBound):
	}
	return n.Kill(node)
}

// Kill ends a node as a crash would (SIGKILL), and returns when it is gone.
func (n *Nodes) Kill(node int) error {
	if err := n.signal(node, syscall.SIGKILL); err != nil {
		return err
	}
	p := n.running[node]
	<-p.exited
	delete(n.running, node)
	return p.out.Close()
}

// Pause freezes a node (SIGSTOP) until Resume.
func (n *Nodes) Pause(node int) error { return n.signal(node, syscall.SIGSTOP) }

// Resume lets a frozen node go on (SIGCONT).
func (n *Nodes) Resume(node int) error { return n.signal(node, syscall.SIGCONT) }

func (n *Nodes) signal(node int, s syscall.Signal) error {
	p := n.running[node]
	if p == nil {
		return fmt.Errorf("kafka's node %d is not running", node)
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kafka's node %d: %w", node, err)
	}
	return nil
}

// StopAll stops all nodes at the same time, as Stop does.
func (n *Nodes) StopAll() error {
	var wg sync.WaitGroup
	for node := range n.running {
		if err := n.signal(node, syscall.SIGTERM); err != nil {
			return err
		}
	}
	bound := time.After(stopBound)
	done := make(chan struct{})
	for _, p := range n.running {
		wg.Go(func() { <-p.exited })
	}
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-bound:
	}
	err := n.killAll()
	<-done
	return err
}

// Close kills what still runs. What was acknowledged stays in the data
// directories.
func (n *Nodes) Close() error {
	err := n.killAll()
	n.spawner.Close()
	return err
}

func (n *Nodes) killAll() (err error) {
	for node := range n.running {
		err = errors.Join(err, n.Kill(node))
	}
	return err
}
