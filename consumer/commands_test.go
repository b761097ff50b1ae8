package main

import (
	"bytes"
	"errors"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// leaves are the commands that do something.
func leaves(cmd *cobra.Command) (out []*cobra.Command) {
	if !cmd.HasSubCommands() {
		return []*cobra.Command{cmd}
	}
	for _, sub := range cmd.Commands() {
		out = append(out, leaves(sub)...)
	}
	return out
}

func TestEveryCommandTellsItsExitStatusAndShowsAnExample(t *testing.T) {
	for _, cmd := range append(leaves(command()), command()) {
		require.Contains(t, cmd.Long, "Exit status:", cmd.CommandPath())
		require.Contains(t, cmd.Example, cmd.CommandPath(), cmd.CommandPath())
	}
}

// "consumer dlq redrvie --yes" showed a help text and exited 0: a timer that ran it
// did nothing, and nobody was told.
func TestACommandThatIsNotThereIsAnError(t *testing.T) {
	for _, cmd := range command().Commands() {
		if !cmd.HasSubCommands() || cmd.Name() == "replay" { // which does something by itself
			continue
		}
		c := command()
		c.SetArgs([]string{cmd.Name(), "redrvie", "--help=false"})
		var out bytes.Buffer
		c.SetOut(&out)
		c.SetErr(&out)
		err := c.ExecuteContext(t.Context())
		require.ErrorContains(t, err, `"redrvie"`, cmd.Name())
		require.False(t, errors.As(err, new(exitError)), "any other error exits with 2")
	}
}

// Some sixty flags of the configuration stood below each command's own.
func TestACommandsHelpIsItsOwn(t *testing.T) {
	c := command()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetArgs([]string{"lag", "--help"})
	require.NoError(t, c.ExecuteContext(t.Context()))
	require.Contains(t, out.String(), "--watch")
	require.Contains(t, out.String(), `"consumer --help" lists them`)
	require.NotContains(t, out.String(), "--index.bytes")
	out.Reset()
	c = command()
	c.SetOut(&out)
	c.SetArgs([]string{"--help"})
	require.NoError(t, c.ExecuteContext(t.Context()))
	require.Contains(t, out.String(), "--index.bytes")
}
