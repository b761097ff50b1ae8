package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/ingest/internal/mode"
)

// modeTimeout bounds the conversation with the edge.
const modeTimeout = 5 * time.Second

// modeCommand shows the mode of a running edge, or switches it.
func modeCommand(environ []string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "mode [async|sync]",
		Short: "Show or switch how the running edge answers",
		Long: `Shows how the edge at admin.address answers, or switches it, for every request
from then on:

  async  202 "queued" once the log has the event
  sync   200 "stored" once it can be queried, within ingest.sync_wait

The switch lasts until the next one or until the edge ends; what it starts with is
ingest.mode. SIGUSR1 switches to sync, SIGUSR2 to async, SIGHUP to what the
configuration says by then; a change of ingest.mode in the file of --config is
taken up by itself. The header "Prefer: wait=N" decides for one request.

Exit status: 0 when done; 1 when the edge could not be asked; 2 when the command
line is wrong.`,
		Example: "  ingest mode\n  ingest mode sync\n  ingest mode async --admin.address edge-1:8081 --json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := load(cmd, environ)
			if err != nil {
				return err
			}
			want := mode.Mode("")
			if len(args) == 1 {
				if want, err = mode.Parse(args[0]); err != nil {
					return err
				}
			}
			text, state, err := askMode(cmd.Context(), cfg.Admin.Address, want)
			if err != nil {
				return &failure{err}
			}
			if asJSON {
				fmt.Fprintln(cmd.OutOrStdout(), text)
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s, since %s, by %s\n", state.Mode, state.Since.Format(time.RFC3339), state.By)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// askMode asks the edge whose admin server is at address for its mode, having
// switched it to want if that is not "". It returns the answer's text, too.
func askMode(ctx context.Context, address string, want mode.Mode) (string, mode.State, error) {
	var state mode.State
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", state, fmt.Errorf("admin.address: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	url := "http://" + net.JoinHostPort(host, port) + "/mode"
	ctx, cancel := context.WithTimeout(ctx, modeTimeout)
	defer cancel()
	method, body := http.MethodGet, ""
	if want != "" {
		method, body = http.MethodPut, `{"mode":"`+string(want)+`"}`
	}
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", state, err
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", state, fmt.Errorf("asking the edge for its mode: %w; is it running, and is admin.address its own?", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return "", state, fmt.Errorf("reading the answer of %s: %w", url, err)
	}
	text := strings.TrimSpace(string(answer))
	if resp.StatusCode != http.StatusOK {
		return "", state, fmt.Errorf("%s answered %s: %s", url, resp.Status, text)
	}
	if err := json.Unmarshal(answer, &state); err != nil {
		return "", state, fmt.Errorf("%s is not an edge's: %w", url, err)
	}
	return text, state, nil
}
