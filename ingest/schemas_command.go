package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/deploy/service"
	"sluice/ingest/internal/decode"
	"sluice/ingest/internal/schema"
	"sluice/schemas/event"
)

// schemasCommand looks after the directory of schemas.
func schemasCommand(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schemas",
		Short: "Check, list and try the JSON Schemas of event types",
		Long: `Looks after the directory of JSON Schemas (2020-12), schemas.dir. A file is named
<event type>.v<number>.json and constrains the payload of events of that type; an
event is good when any version of its type accepts it.

Exit status: 0; 1 when the schemas are broken, or what was checked is refused; 2
when the command line or the configuration is wrong.`,
	}
	cmd.AddCommand(schemasCheck(environ), schemasList(environ), schemasTest(environ))
	return cmd
}

// loadSchemas reads the directory that the configuration names, or dir.
func loadSchemas(cmd *cobra.Command, environ, dir []string) (config, *schema.Set, error) {
	cfg, err := load(cmd, environ)
	if err != nil {
		return cfg, nil, err
	}
	if len(dir) > 0 {
		cfg.Schemas.Dir = dir[0]
	}
	if cfg.Schemas.Dir == "" {
		return cfg, nil, errors.New("schemas.dir is not set: say where the schemas are, as in --schemas.dir schemas/jsonschema")
	}
	set, err := schema.Load(cfg.Schemas.Dir, schema.DefaultLimits())
	if err != nil {
		return cfg, nil, &failure{err}
	}
	return cfg, set, nil
}

func schemasCheck(environ []string) *cobra.Command {
	var againstLog, asJSON bool
	var bounds schema.Bounds
	cmd := &cobra.Command{
		Use:   "check [DIRECTORY]",
		Short: "Tell whether the schemas are right, and whether they fit what the log holds",
		Long: `Reads and compiles every schema, and warns of what does nothing.

With --against-log it reads the last records of the topic, at most as many, as much
and as long as the flags allow, and tells which versions would refuse what is there,
with an example of each. Exit status 1 if there is an event that no version of its
type accepts.`,
		Example: "  ingest schemas check --schemas.dir schemas/jsonschema --against-log --records 50000",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if bounds.Records < 1 || bounds.Bytes < 1 || bounds.Time <= 0 { // nothing would be read, and all be well
				return errors.New("--records, --bytes and --time: want more than 0")
			}
			cfg, set, err := loadSchemas(cmd, environ, args)
			if err != nil {
				return err
			}
			report := checkReport{Warnings: set.Warnings()}
			for _, v := range set.Versions() {
				report.Versions = append(report.Versions, v.String())
			}
			if againstLog {
				if report.Log, err = readLog(cmd.Context(), cfg, set, bounds); err != nil {
					return &failure{fmt.Errorf("reading the topic %s: %w", cfg.Kafka.Topic, err)}
				}
			}
			if err := report.print(cmd.OutOrStdout(), asJSON); err != nil {
				return err
			}
			if report.Log != nil && report.Log.Refused > 0 {
				return &failure{fmt.Errorf("%d of %d events in the log are accepted by no version of their type", report.Log.Refused, report.Log.Records)}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&againstLog, "against-log", false, "try them on the last records of the topic")
	f.IntVar(&bounds.Records, "records", 10_000, "most records to read, over all partitions")
	f.Int64Var(&bounds.Bytes, "bytes", 256<<20, "most bytes to read")
	f.DurationVar(&bounds.Time, "time", 30*time.Second, "longest time to read")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

type checkReport struct {
	Versions []string          `json:"versions"`
	Warnings []string          `json:"warnings,omitempty"`
	Log      *schema.LogReport `json:"log,omitempty"`
}

func (r checkReport) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	fmt.Fprintf(w, "%d versions are right\n", len(r.Versions))
	for _, warning := range r.Warnings {
		fmt.Fprintln(w, "warning:", warning)
	}
	if r.Log == nil {
		return nil
	}
	fmt.Fprintf(w, "%d records of the log read (%s); %d of types without a schema, %d that are no events\n",
		r.Log.Records, r.Log.Ended, r.Log.Unregistered, r.Log.Malformed)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "VERSION\tACCEPTS\tREFUSES\tFOR EXAMPLE")
	for _, v := range r.Log.Versions {
		example := ""
		if v.Example != nil {
			example = fmt.Sprintf("partition %d, offset %d: %s", v.Example.Partition, v.Example.Offset, v.Example.Faults[0])
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\n", v.Version, v.Accepts, v.Refuses, example)
	}
	return t.Flush()
}

// readLog tries set on the last records of the topic.
func readLog(ctx context.Context, cfg config, set *schema.Set, bounds schema.Bounds) (*schema.LogReport, error) {
	log, err := service.NewLogger(io.Discard, cfg.Log)
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(cfg.Kafka.Options(log)...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return schema.AgainstLog(ctx, client, cfg.Kafka.Topic, set, bounds)
}

func schemasList(environ []string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list [DIRECTORY]",
		Short:   "Show the types and versions that there are",
		Example: "  ingest schemas list schemas/jsonschema",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, set, err := loadSchemas(cmd, environ, args)
			if err != nil {
				return err
			}
			type row struct {
				EventType string `json:"event_type"`
				Version   int    `json:"version"`
				File      string `json:"file"`
			}
			rows := []row{}
			for _, v := range set.Versions() {
				rows = append(rows, row{v.EventType, v.Number, schema.FileName(v.EventType, v.Number)})
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "EVENT TYPE\tVERSION\tFILE")
			for _, r := range rows {
				fmt.Fprintf(w, "%q\t%d\t%s\n", r.EventType, r.Version, r.File)
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// tried is what became of one event of a file.
type tried struct {
	Index  int           `json:"index"`
	Schema string        `json:"schema,omitempty"`
	Error  []event.Fault `json:"error,omitempty"`
}

func schemasTest(environ []string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "test FILE",
		Short: "Try the events of a file on the schemas",
		Long: `Reads events from FILE (- is standard input): one, several behind each other, or a
JSON array; and tells of each which version accepts it, or all that is wrong with
it, as the edge would. Exit status 1 if one is refused.`,
		Example: "  ingest schemas test --schemas.dir schemas/jsonschema order.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, set, err := loadSchemas(cmd, environ, nil)
			if err != nil {
				return err
			}
			text, err := readInput(cmd.InOrStdin(), args[0])
			if err != nil {
				return &failure{err}
			}
			results, err := try(cfg, set, text)
			if err != nil {
				return &failure{fmt.Errorf("%s: %w", args[0], err)}
			}
			refused := 0
			for _, r := range results {
				if r.Error != nil {
					refused++
				}
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), results); err != nil {
					return err
				}
			} else {
				printTried(cmd.OutOrStdout(), results)
			}
			if refused > 0 {
				return &failure{fmt.Errorf("%d of %d events are refused", refused, len(results))}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printTried(w io.Writer, results []tried) {
	for _, r := range results {
		switch {
		case r.Error != nil:
			fmt.Fprintf(w, "event %d: refused\n", r.Index)
			for _, f := range r.Error {
				fmt.Fprintln(w, "  "+f.String())
			}
		case r.Schema == "":
			fmt.Fprintf(w, "event %d: its type has no schema\n", r.Index)
		default:
			fmt.Fprintf(w, "event %d: accepted by %s\n", r.Index, r.Schema)
		}
	}
}

func readInput(stdin io.Reader, name string) ([]byte, error) {
	const most = 64 << 20
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && len(text) > most {
		err = fmt.Errorf("has more than %d bytes", most)
	}
	return text, err
}

// try decodes and validates the events of text as the edge does.
func try(cfg config, set *schema.Set, text []byte) ([]tried, error) {
	var out []tried
	dec := event.NewDecoder(cfg.api().Event)
	now := time.Now()
	one := func(text []byte) bool {
		r := tried{Index: len(out)}
		e, faults := dec.Decode(text, now)
		if faults == nil {
			var v *schema.Version
			if v, faults = set.Check(e.EventType, e.Payload); v != nil {
				r.Schema = v.String()
			} else if faults == nil && cfg.Schemas.Unregistered == refuseUnregistered {
				faults = []event.Fault{{Pointer: "/event_type", Detail: "is not a registered event type"}}
			}
		}
		r.Error = faults
		out = append(out, r)
		return faults == nil
	}
	if first := bytes.TrimLeft(text, " \t\r\n"); len(first) > 0 && first[0] == '[' {
		err := decode.Array(text, cfg.Limits.BatchItems, one)
		return out, err
	}
	values := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for {
		v, err := values.ReadValue()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		one(v)
	}
}
