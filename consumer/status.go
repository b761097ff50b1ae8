package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"sluice/consumer/internal/doctor"
	"sluice/consumer/internal/monitor"
)

func statusCommand() *cobra.Command {
	var asJSON bool
	var members []string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show where every partition stands, who owns it, and what holds it up",
		Long: `status shows, for every partition, the log's start and end, the journal's end and
how many offsets it lies behind, the group's commit and whose it is, what its
owner is at, and the balance's difference; then the edges named by status.edges,
and the doctor's summary.

  commit    closed (ours, nothing is being written), open (ours, a batch is), reread
            (ours, a range is compared again), foreign (an operator's or a tool's: the
            next owner goes by it), other topic, unreadable, or none
  state     owning, recovering or halted, as the member says on its admin port;
            paused by an operator, rereading since the group's offset was set back;
            assigned where only the group knows of an owner, unowned where it does not

It changes nothing, and works with no consumer running. What could not be asked
is shown as "?".

Exit status: 0 every partition has an owner and moves; 1 something needs
attention (it is listed); 2 it could not be told, because ClickHouse or Kafka did
not answer.`,
		Example: "  consumer status\n  consumer status --json --members consumer-1:8082,consumer-2:8082",
		Args:    cobra.NoArgs,
		RunE: comparing(func(cmd *cobra.Command, t *tools) error {
			if len(members) == 0 {
				members = []string{t.cfg.Admin.Address}
			}
			s := t.status(cmd.Context(), members)
			if err := s.write(cmd.OutOrStdout(), asJSON); err != nil {
				return err
			}
			switch {
			case len(s.Errors) > 0:
				return exitError{2, fmt.Errorf("could not tell: %s", strings.Join(s.Errors, "; "))}
			case !s.OK:
				return exitError{1, nil}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the status as one line of JSON")
	cmd.Flags().StringSliceVar(&members, "members", nil, "admin addresses of the members to ask, host:port, separated by commas (default admin.address)")
	return cmd
}

// status is one look at everything. What could not be learnt is nil.
type status struct {
	OK      bool      `json:"ok"`
	Topic   string    `json:"topic"`
	TopicID uuid.UUID `json:"topic_id"`
	Group   string    `json:"group"`
	// Members are those of the group, by instance id or client id and host.
	Members    []string          `json:"members"`
	Partitions []partitionStatus `json:"partitions"`
	// Edges are those of status.edges.
	Edges  []edgeHealth `json:"edges"`
	Doctor string       `json:"doctor"`
	// CompleteThrough is up to when the data is proved whole; HeldBy the edge
	// whose low-water mark that is. Absent while nothing is proved.
	CompleteThrough *time.Time `json:"complete_through,omitempty"`
	HeldBy          string     `json:"held_by,omitempty"`
	// Problems need attention, Errors kept us from knowing. Notes explain what
	// happened within a day.
	Problems []string `json:"problems"`
	Notes    []string `json:"notes"`
	Errors   []string `json:"errors"`
}

type partitionStatus struct {
	Partition int32  `json:"partition"`
	LogStart  *int64 `json:"log_start"`
	LogEnd    *int64 `json:"log_end"`
	// JournalEnd is the first offset not journaled, Lag how many offsets of
	// the log lie beyond it (markers of transactions among them).
	JournalEnd *int64 `json:"journal_end"`
	Lag        *int64 `json:"lag"`
	// Gaps are ranges before journaled ones that the journal does not have.
	Gaps []gap `json:"gaps"`
	// Commit is nil when there is none; CommitIs is as the help says it.
	Commit   *int64 `json:"commit"`
	CommitIs string `json:"commit_is"`
	Member   string `json:"member"`
	State    string `json:"state"`
	Reason   string `json:"reason,omitempty"`
	// Difference is the balance's: 0 when every record is accounted for.
	Difference *int64 `json:"difference"`
	// OldestSeconds is the age of the oldest record that ClickHouse does not have.
	OldestSeconds *float64 `json:"oldest_unread_seconds"`
	// Reread and Jump are what its owner did since the group's offset was set by
	// others; nil: nothing, in this assignment.
	Reread *monitor.Reread `json:"reread,omitempty"`
	Jump   *monitor.Jump   `json:"jump,omitempty"`
}

// gap is a range of offsets: First inclusive, End exclusive.
type gap struct {
	First int64 `json:"first"`
	End   int64 `json:"end"`
}

// statusBound is how long Kafka, ClickHouse and each member may take to answer.
const statusBound = 15 * time.Second

// status asks all sides at once. It does not fail: what could not be asked is
// among the errors.
func (t *tools) status(ctx context.Context, addresses []string) status {
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	s := status{Topic: t.cfg.Kafka.Topic, Group: t.cfg.Group.ID, Members: []string{}, Partitions: []partitionStatus{}, Problems: []string{}, Notes: []string{}, Errors: []string{}}
	setup := doctorSetup(t.cfg)
	var asking sync.WaitGroup
	var report doctor.Report
	asking.Go(func() { report = doctor.Judge(setup, doctor.Gather(ctx, setup, t.store.Conn(), t.kafka.Admin())) })
	asking.Go(func() { s.Edges = askEdges(ctx, t.cfg.Status.Edges) })
	said := make([]monitor.Status, len(addresses))
	silent := make([]error, len(addresses))
	for i, address := range addresses {
		asking.Go(func() { said[i], silent[i] = memberStatus(ctx, address) })
	}
	if err := s.askKafka(ctx, t); err != nil {
		s.Errors = append(s.Errors, fmt.Sprintf("Kafka (kafka.brokers %s): %v", strings.Join(t.cfg.Kafka.Brokers, ","), err))
	} else if err := s.askClickHouse(ctx, t.store); err != nil {
		s.Errors = append(s.Errors, fmt.Sprintf("ClickHouse (clickhouse.dsn): %v", err))
	} else {
		s.askOldest(ctx, t)
	}
	asking.Wait()

	heard := s.merge(said, silent)
	s.Doctor = report.Summary()
	if err := report.Refused(); err != nil && !slices.ContainsFunc(said, func(m monitor.Status) bool { return m.Refused == err.Error() }) {
		s.Problems = append(s.Problems, err.Error())
	}
	s.judge(heard, addresses, silent)
	s.judgeEdges()
	s.OK = len(s.Problems) == 0 && len(s.Errors) == 0
	return s
}

// memberStatus asks a member's admin port.
func memberStatus(ctx context.Context, address string) (monitor.Status, error) {
	var st monitor.Status
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err := ask(ctx, address, "/status", &st)
	return st, err
}

// merge puts what the members said of their partitions beside the rest, and
// tells how many answered.
func (s *status) merge(said []monitor.Status, silent []error) (heard int) {
	for i, m := range said {
		if silent[i] != nil {
			continue
		}
		heard++
		if m.Refused != "" {
			s.Problems = append(s.Problems, "a member holds all its partitions back: "+m.Refused)
		}
		for _, p := range m.Partitions {
			at := slices.IndexFunc(s.Partitions, func(l partitionStatus) bool { return l.Partition == p.Partition })
			if at < 0 { // Kafka did not answer
				s.Partitions = append(s.Partitions, partitionStatus{Partition: p.Partition, Gaps: []gap{}, CommitIs: "?"})
				at = len(s.Partitions) - 1
			}
			s.Partitions[at].State, s.Partitions[at].Reason = string(p.State), p.Reason
			s.Partitions[at].Reread, s.Partitions[at].Jump = p.Reread, p.Jump
		}
	}
	slices.SortFunc(s.Partitions, func(a, b partitionStatus) int { return int(a.Partition - b.Partition) })
	return heard
}

// judge lists what needs attention.
func (s *status) judge(heard int, addresses []string, silent []error) {
	problem := func(format string, args ...any) { s.Problems = append(s.Problems, fmt.Sprintf(format, args...)) }
	switch {
	case heard == 0 && len(s.Members) == 0:
		problem("no consumer is running: the group has no member, and the admin port %s does not answer (%v)", addresses[0], silent[0])
	case heard == 0:
		problem("the group has %d members, but no admin port asked answers (%s: %v); --members names others", len(s.Members), addresses[0], silent[0])
	}
	for _, l := range s.Partitions {
		switch {
		case l.State == string(monitor.Halted):
			problem("partition %d is halted: %s", l.Partition, l.Reason)
		case l.State == "unowned" && len(s.Members) > 0:
			problem("partition %d has no owner", l.Partition)
		}
		if l.State == string(monitor.Paused) {
			problem("partition %d is %s", l.Partition, l.Reason)
		}
		if r := l.Reread; r != nil && !r.Done {
			s.Notes = append(s.Notes, fmt.Sprintf("partition %d: the group's offset was set back; reading %d to %d again, at %d, %d of %d records were missing", l.Partition, r.From, r.To, r.Next, r.Missing, r.Records))
		}
		for _, g := range l.Gaps {
			problem("partition %d: the journal lacks offsets %d to %d; the owner decides them again, by comparison", l.Partition, g.First, g.End-1)
		}
		if l.LogStart != nil && l.JournalEnd != nil && *l.JournalEnd < *l.LogStart {
			problem("partition %d: offsets %d to %d left the log before they were read: they are lost", l.Partition, *l.JournalEnd, *l.LogStart-1)
		}
		if l.LogEnd != nil && l.JournalEnd != nil && *l.JournalEnd > *l.LogEnd {
			problem("partition %d: the log ends at %d but the journal at %d: records that were decided are gone from it", l.Partition, *l.LogEnd, *l.JournalEnd)
		}
		if l.Difference != nil && *l.Difference != 0 {
			problem("partition %d: the balance differs by %d; \"consumer verify\" says which keys", l.Partition, *l.Difference)
		}
	}
}

func (s status) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(s)
	}
	fmt.Fprintf(w, "topic %s (%s), group %s: %d members %s\n\n", s.Topic, s.TopicID, s.Group, len(s.Members), strings.Join(s.Members, ", "))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PARTITION\tLOG START\tLOG END\tJOURNAL END\tLAG\tCOMMIT\tWHOSE\tSTATE\tMEMBER\tGAPS\tDIFFERENCE\tOLDEST UNREAD")
	for _, l := range s.Partitions {
		commit := "-"
		if l.Commit != nil {
			commit = fmt.Sprint(*l.Commit)
		}
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", l.Partition, known(l.LogStart), known(l.LogEnd), known(l.JournalEnd), known(l.Lag),
			commit, l.CommitIs, l.State, l.Member, len(l.Gaps), known(l.Difference), seconds(l.OldestSeconds))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if s.CompleteThrough != nil {
		fmt.Fprintf(w, "\ncomplete through %s, by the edge %s (\"consumer edges list\" names all)\n", s.CompleteThrough.UTC().Format("2006-01-02T15:04:05.000Z"), s.HeldBy)
	}
	fmt.Fprintln(w)
	s.writeEdges(w)
	fmt.Fprintf(w, "doctor: %s\n", s.Doctor)
	for _, p := range s.Problems {
		fmt.Fprintf(w, "attention: %s\n", p)
	}
	for _, n := range s.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	return nil
}

func seconds(s *float64) string {
	if s == nil {
		return "?"
	}
	return fmt.Sprintf("%.1fs", *s)
}

func known(n *int64) string {
	if n == nil {
		return "?"
	}
	return fmt.Sprint(*n)
}
