package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

func TestEveryCommandTellsItsExitStatusAndShowsAnExample(t *testing.T) {
	var look func(cmd *cobra.Command, above string)
	look = func(cmd *cobra.Command, above string) {
		long := cmd.Long + above // some tell it for all they hold
		if !cmd.HasSubCommands() || !cmd.HasParent() {
			require.Contains(t, long, "Exit status:", cmd.CommandPath())
			require.Contains(t, cmd.Example, cmd.CommandPath(), cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			if cmd.HasParent() {
				look(sub, long)
			} else {
				look(sub, "")
			}
		}
	}
	look(rootCommand(nil), "")
}

// "ingest spool dorain" showed a help text and exited 0.
func TestACommandThatIsNotThereIsAnError(t *testing.T) {
	for _, group := range []string{"keys", "schemas", "spool"} {
		var out, err bytes.Buffer
		require.Equal(t, exitUsage, run(t.Context(), []string{group, "dorain"}, nil, &out, &err), group)
		require.True(t, strings.Contains(err.String(), `"dorain"`), err.String())
	}
}

// "schemas check --against-log --records -1" read nothing, and found all well.
func TestSchemasCheckReadsSomething(t *testing.T) {
	for _, bound := range []string{"--records=0", "--records=-1", "--bytes=0", "--time=-1s"} {
		var out, err bytes.Buffer
		require.Equal(t, exitUsage, run(t.Context(), []string{"schemas", "check", "--schemas.dir", "../schemas/jsonschema", "--against-log", bound}, nil, &out, &err), bound)
		require.Contains(t, err.String(), "want more than 0")
	}
}
