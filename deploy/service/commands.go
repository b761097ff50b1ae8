package service

import (
	"fmt"

	"github.com/spf13/cobra"
)

// RefuseUnknown gives those commands of root that only hold others an error for what
// is none of these: cobra would show their help, and the program exit with 0. It is
// to be called when all commands have been added.
func RefuseUnknown(root *cobra.Command) {
	for _, sub := range root.Commands() {
		if sub.HasSubCommands() && !sub.Runnable() {
			sub.Args = cobra.ArbitraryArgs
			sub.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) == 0 {
					return cmd.Help()
				}
				return fmt.Errorf("unknown command %q for %q: \"%s --help\" lists those there are", args[0], cmd.CommandPath(), cmd.CommandPath())
			}
		}
		RefuseUnknown(sub)
	}
}
