package server

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/deploy/local/engine/chdb"
	"sluice/deploy/local/engine/statement"
)

// config is the engine's configuration. Without one of its own it would read
// ./config.xml and the user's ~/.clickhouse-local.
//
//go:embed config.xml
var config []byte

const (
	// calls is how many statements the engine works on at a time; further ones
	// wait. Each holds a thread of the operating system.
	calls = 32
	// killCalls are held back for KILL QUERY: it must pass when all others wait.
	killCalls = 4
	// killEvery is how often the query of a client that left is killed anew,
	// for the engine may not have begun it when the client left.
	killEvery = 50 * time.Millisecond
	// idSetting carries a client's query id into the engine, which takes none:
	// a label of the query cache's entries, otherwise without effect, that
	// system.processes shows among a query's settings.
	idSetting = "query_cache_tag"
	idColumn  = statement.IDColumn("Settings['" + idSetting + "']")
)

// engine opens sessions, bounds them, and knows which queries run.
type engine struct {
	lib  *chdb.Library
	args []string
	keep *chdb.Session // keeps the engine open between requests

	slots, killSlots chan struct{}

	mu      sync.Mutex
	running map[string]bool // query ids
}

func openEngine(library, data string) (*engine, error) {
	if err := os.MkdirAll(data, 0o755); err != nil {
		return nil, fmt.Errorf("data directory of the engine: %w", err)
	}
	file := filepath.Join(data, "config.xml")
	text := config
	// Without users.xml in the data directory the one user may do everything. It is
	// the only source of rights that the engine has: no statement adds to them.
	users := filepath.Join(data, "users.xml")
	if _, err := os.Stat(users); err == nil {
		var path bytes.Buffer
		if err := xml.EscapeText(&path, []byte(users)); err != nil {
			return nil, fmt.Errorf("configuration of the engine: %w", err)
		}
		text = fmt.Appendf(nil, "<clickhouse>\n    <users_config>%s</users_config>\n</clickhouse>\n", &path)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return nil, fmt.Errorf("configuration of the engine: %w", err)
	}
	lib, err := chdb.Load(library)
	if err != nil {
		return nil, err
	}
	e := &engine{
		lib: lib,
		// Without implicit_select=0 a mistyped keyword becomes an expression,
		// and its error another one.
		args:      []string{"--path=" + filepath.Join(data, "clickhouse"), "--config-file=" + file, "--implicit_select=0"},
		slots:     make(chan struct{}, calls),
		killSlots: make(chan struct{}, killCalls),
		running:   map[string]bool{},
	}
	e.keep, err = lib.Connect(e.args...)
	return e, err
}

func (e *engine) close() {
	e.keep.Close()
	e.lib.Shutdown()
}

// enter waits for a slot and claims id; leave gives both back.
func (e *engine) enter(ctx context.Context, id string, kill bool) (leave func(), err error) {
	slots := e.slots
	if kill {
		slots = e.killSlots
	}
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running[id] {
		<-slots
		return nil, &exception{codeSameID, fmt.Sprintf("DB::Exception: Query with id = %s is already running. (QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING)", id)}
	}
	e.running[id] = true
	return func() {
		e.mu.Lock()
		delete(e.running, id)
		e.mu.Unlock()
		<-slots
	}, nil
}

// session opens a session for q alone: its settings end with it.
func (e *engine) session(q *request) (*chdb.Session, error) {
	c, err := e.lib.Connect(e.args...)
	if err != nil {
		return nil, err
	}
	if err := prepare(c, q); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func prepare(c *chdb.Session, q *request) error {
	if q.database != "" && q.database != "default" {
		if err := c.Exec("USE "+quoteName(q.database), nil); err != nil {
			return err
		}
	}
	for _, t := range q.external {
		if err := create(c, t); err != nil {
			return err
		}
	}
	set := []string{idSetting + " = " + quote(q.id)}
	for _, name := range slices.Sorted(maps.Keys(q.settings)) {
		if name != idSetting {
			set = append(set, quoteName(name)+" = "+quote(q.settings[name]))
		}
	}
	return c.Exec("SET "+strings.Join(set, ", "), nil)
}

// create makes an external table of the session.
func create(c *chdb.Session, t externalTable) error {
	if err := c.Exec(fmt.Sprintf("CREATE TEMPORARY TABLE %s (%s) ENGINE = Memory", quoteName(t.name), t.structure), nil); err != nil {
		return err
	}
	ins, err := c.Insert("INSERT INTO "+quoteName(t.name), t.format, nil)
	if err != nil {
		return err
	}
	defer ins.Close()
	ins.Append(t.data) // if it is refused, Done says why
	r, err := ins.Done()
	if err != nil {
		return err
	}
	r.Free()
	return nil
}

// killWhen kills the query of the given id when ctx ends before stop is called;
// stop returns when no kill can be under way any more.
func (e *engine) killWhen(ctx context.Context, id string) (stop func()) {
	over, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-over:
			return
		case <-ctx.Done():
		}
		for tick := time.NewTicker(killEvery); ; {
			e.kill(id)
			select {
			case <-over:
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	}()
	return func() { close(over); <-stopped }
}

func (e *engine) kill(id string) {
	c, err := e.lib.Connect(e.args...)
	if err != nil {
		return // the next tick tries again
	}
	defer c.Close()
	_ = c.Exec("KILL QUERY WHERE "+string(idColumn)+" = "+quote(id)+" ASYNC", nil) // likewise
}

func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

func quoteName(s string) string {
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(s) + "`"
}
