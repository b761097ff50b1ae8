package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/ingest/internal/auth"
)

// keysCommand manages the file of API keys.
func keysCommand(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Add, list and revoke the API keys that events are sent with",
		Long: `Manages the file of API keys, auth.keys_file. A running edge reads it again by
itself within a second or so; no restart is needed.

The file holds keyed hashes, not keys: a key is shown once, when it is made. The
secret of the hashes is in another file (auth.pepper_file, by default the file of
keys with .pepper behind it), which "add" makes if it is missing. Keep the two
apart in backups; without the pepper no key is valid.

Exit status: 0; 1 when a file could not be read or written, or there is no such
key; 2 when the command line or the configuration is wrong.`,
	}
	cmd.AddCommand(keysAdd(environ), keysList(environ), keysRevoke(environ))
	return cmd
}

// keysConfig is where the keys are.
func keysConfig(cmd *cobra.Command, environ []string) (auth.Config, error) {
	cfg, err := load(cmd, environ)
	if err != nil {
		return auth.Config{}, err
	}
	if cfg.Auth.KeysFile == "" {
		return auth.Config{}, errors.New("auth.keys_file is not set: say where the keys are, as in --auth.keys_file /etc/sluice/keys.yaml")
	}
	return cfg.keys(), nil
}

func keysAdd(environ []string) *cobra.Command {
	var e auth.Entry
	var expires string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Make a key and show it, once",
		Long: `Makes a key, adds its hash to the file, and prints the key: alone on standard
output, what it may on standard error; with --json an object on standard output.`,
		Example: `  ingest keys add --auth.keys_file keys.yaml --name "web shop" --source shop --source 'shop-*' --rate 500`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := keysConfig(cmd, environ)
			if err != nil {
				return err
			}
			if e.Expires, err = parseExpiry(expires, time.Now()); err != nil {
				return err
			}
			var key string
			e.ID, key = auth.NewKey()
			e.Created = time.Now().UTC().Truncate(time.Second)
			e.Hash = strings.Repeat("0", 64)
			if err := e.Validate(); err != nil {
				return err
			}
			pepper, err := auth.EnsurePepper(cfg.Pepper())
			if err != nil {
				return &failure{err}
			}
			sum := pepper.Hash(key)
			e.Hash = hex.EncodeToString(sum[:])
			if err := auth.Update(cfg.KeysFile, func(all []auth.Entry) ([]auth.Entry, error) { return append(all, e), nil }); err != nil {
				return &failure{err}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), struct {
					Key string `json:"key"`
					auth.Entry
				}{key, e})
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "The key %s may send events of %s. It is shown this once:\n", e.ID, strings.Join(e.Sources, ", "))
			fmt.Fprintln(cmd.OutOrStdout(), key)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&e.Name, "name", "", "a name for people")
	f.StringArrayVar(&e.Sources, "source", nil, "a source that its events may have, or a prefix and *; may be given several times")
	f.Float64Var(&e.Rate, "rate", 0, "events a second in the long run; 0: any number")
	f.IntVar(&e.Burst, "burst", 0, "events at once after a pause; 0: twice the rate")
	f.Int64Var(&e.BodyBytes, "body-bytes", 0, "most bytes of a request's body; 0: the edge's own limit")
	f.StringVar(&expires, "expires", "", "when it ends: a date-time (RFC 3339), or how long from now (720h)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func parseExpiry(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return now.Add(d).UTC().Truncate(time.Second), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("--expires %q: want a date-time such as 2027-01-31T00:00:00Z, or a duration such as 720h", s)
	}
	if !t.After(now) {
		return t, fmt.Errorf("--expires %q is past", s)
	}
	return t.UTC(), nil
}

func keysList(environ []string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "Show the keys by their ids, and what each may",
		Example: "  ingest keys list --auth.keys_file keys.yaml --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := keysConfig(cmd, environ)
			if err != nil {
				return err
			}
			entries, err := auth.ReadFile(cfg.KeysFile)
			if err != nil {
				return &failure{err}
			}
			now := time.Now()
			if asJSON {
				type row struct {
					auth.Entry
					State string `json:"state"`
				}
				rows := make([]row, len(entries))
				for i, e := range entries {
					rows[i] = row{e, keyState(e, now)}
				}
				return printJSON(cmd.OutOrStdout(), rows)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tNAME\tSTATE\tSOURCES\tRATE\tBURST\tBODY\tEXPIRES")
			for _, e := range entries {
				ends := "never"
				if !e.Expires.IsZero() {
					ends = e.Expires.Format(time.RFC3339)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%v\t%d\t%d\t%s\n", e.ID, e.Name, keyState(e, now), strings.Join(e.Sources, ","), e.Rate, e.Burst, e.BodyBytes, ends)
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func keyState(e auth.Entry, now time.Time) string {
	switch {
	case e.Disabled:
		return "disabled"
	case !e.Expires.IsZero() && !now.Before(e.Expires):
		return "expired"
	}
	return "valid"
}

func keysRevoke(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Take a key out of the file",
		Long: `Takes the key of that id (the part of it between the first two underscores, as
"ingest keys list" shows it) out of the file. Requests that are under way finish.`,
		Example: "  ingest keys revoke --auth.keys_file keys.yaml k2xw6dtc4ozq5rab",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := keysConfig(cmd, environ)
			if err != nil {
				return err
			}
			err = auth.Update(cfg.KeysFile, func(all []auth.Entry) ([]auth.Entry, error) {
				for i, e := range all {
					if e.ID == args[0] {
						return append(all[:i], all[i+1:]...), nil
					}
				}
				return nil, fmt.Errorf("%s has no key with the id %q; \"ingest keys list\" shows those it has", cfg.KeysFile, args[0])
			})
			if err != nil {
				return &failure{err}
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "The key %s is revoked.\n", args[0])
			return nil
		},
	}
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return &failure{err}
	}
	return nil
}
