// Command run shows that the tests catch every mutant: each breaks one step of
// the protocol (see package mutant), and some test must fail for it.
//
// It finds the mutants in the sources, builds the test binaries once, and runs
// for each mutant the tests that may catch it until one fails. It writes a table
// in Markdown to standard output and fails when a mutant survives, or when a test
// fails without one.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// suite is tests of one package, those first that take the least time.
type suite struct{ pkg, tests string }

// bound is how long one suite may take with one mutant: one that hangs is caught.
const bound = 5 * time.Minute

var (
	histories = suite{"./consumer/internal/crash", "TestWhat|TestAn|TestOffsets|TestOther"}
	failures  = suite{"./consumer/internal/crash", "TestEveryFailure"}
	pairs     = suite{"./consumer/internal/crash", "TestEveryPairOfFailures"}
	model     = suite{"./consumer", "TestModelFound"}
	fencing   = suite{"./consumer/internal/group", "TestAnAssignmentThatIsOverCommitsNothing"}
	hashes    = suite{"./consumer/internal/batch", "TestAValueIsNotTakenForRecords"}
	claims    = suite{"./consumer/internal/index", "TestClaims|TestAClaim"}
	standing  = suite{"./consumer", "TestWhatIsErasedWhileAnOwnerStandsStill"}
	sealing   = suite{"./consumer", "TestALateInsertOfWhatWasTakenIsDropped"}
	counting  = suite{"./consumer", "TestWhatHasExpiredIsCountedOnce"}
)

// usual is what catches most mutants.
var usual = []suite{histories, failures, pairs}

// elsewhere are mutants that other tests are for.
var elsewhere = map[string][]suite{
	"ended-incarnation-commits":   {fencing},
	"open-intent-by-new-count":    {model},
	"hash-without-lengths":        {hashes},
	"claims-outlive-their-pages":  {claims},
	"taken-meanwhile-not-seen":    {standing},
	"open-intents-not-awaited":    {standing},
	"taken-not-sealed":            {sealing},
	"expired-counted-again":       {counting},
	"lost-rows-taken-for-counted": {counting},
}

// all are all suites, each once.
func all() []suite {
	out := slices.Clone(usual)
	for _, suites := range elsewhere {
		for _, s := range suites {
			if !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

// unneeded are mutants that survive, and why: what they leave out is a second
// lock on a door.
var unneeded = map[string]string{
	"token-without-hash": "not needed: two blocks of one range and one log can only meet where an intent is open, and there the table is compared and other records are a cut",
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	names, err := mutants("consumer")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	binaries := map[string]string{}
	for _, s := range all() {
		if binaries[s.pkg] != "" {
			continue
		}
		binaries[s.pkg] = filepath.Join(dir, strings.ReplaceAll(s.pkg, "/", "_")+".test")
		build := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "mutant", "-o", binaries[s.pkg], s.pkg)
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building the tests of %s: %w\n%s", s.pkg, err, out)
		}
	}
	for _, s := range all() {
		if caught, _, err := try(ctx, binaries[s.pkg], s, ""); err != nil || caught != "" {
			return errors.Join(fmt.Errorf("with no mutant %q of %s fails", caught, s.pkg), err)
		}
	}
	fmt.Println("| mutant | caught by | after |\n|---|---|---|")
	survived := 0
	for _, name := range names {
		began := time.Now()
		caught := ""
		for _, s := range suites(name) {
			test, how, err := try(ctx, binaries[s.pkg], s, name)
			if err != nil {
				return err
			}
			if caught = test; test != "" {
				caught = "`" + test + "`: " + how
				break
			}
		}
		took := time.Since(began).Round(10 * time.Millisecond).String()
		if why, ok := unneeded[name]; caught == "" && ok {
			caught, took = "none: "+why, "–"
		} else if caught == "" {
			caught = "**none: it survives**"
			survived++
		}
		fmt.Printf("| `%s` | %s | %s |\n", name, caught, took)
	}
	if survived > 0 {
		return fmt.Errorf("%d mutants survive: a test is missing, or what they leave out is not needed", survived)
	}
	return nil
}

func suites(name string) []suite {
	if s, ok := elsewhere[name]; ok {
		return s
	}
	return usual
}

var (
	call   = regexp.MustCompile(`mutant\.On\("([a-z-]+)"\)`)
	failed = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	fault  = regexp.MustCompile(`(?m)^\s+((?:offset \d+|the journal|balance|owner \d+)[^\n]*)`)
)

// mutants are the names in the sources, each once.
func mutants(root string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range call.FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
		return err
	})
	slices.Sort(names)
	return slices.Compact(names), err
}

// try runs a suite with a mutant and returns the first test that fails, "" if
// none does, and in a few words how.
func try(ctx context.Context, binary string, s suite, name string) (test, how string, err error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run", "^("+s.tests+")", "-test.failfast")
	cmd.Dir = strings.TrimPrefix(s.pkg, "./")
	cmd.Env = append(os.Environ(), "MUTANT="+name)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if err == nil {
		return "", "", nil
	}
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		return "", "", fmt.Errorf("running the tests of %s: %w", s.pkg, err)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return "", "", ctx.Err()
	}
	test, how = s.tests, "it fails"
	if m := failed.FindSubmatch(out.Bytes()); m != nil {
		test = string(m[1])
	}
	if m := fault.FindSubmatch(out.Bytes()); m != nil {
		how = string(m[1])
	} else if ctx.Err() != nil {
		how = "it does not end"
	}
	return test, how, nil
}
