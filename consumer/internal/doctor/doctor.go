// Package doctor checks what the protocol and an installation's claim to
// durability stand on, in ClickHouse and in Kafka, and names what mends each
// fault.
//
// What is found ([Facts]) is gathered apart from what is made of it ([Judge],
// which is pure). [Watch] does both again and again beside a running service.
package doctor

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Durability says which faults an installation claims to survive without losing
// or doubling an event.
type Durability string

const (
	// Process: any of its processes is killed.
	Process Durability = "process"
	// Machine: also the machine under any of them loses its power.
	Machine Durability = "machine"
	// Cluster: also a machine is gone for good.
	Cluster Durability = "cluster"
)

// Config configures the doctor.
type Config struct {
	// Durability is the claim that is checked. Default process.
	Durability Durability `mapstructure:"durability" help:"which faults this installation claims to survive: process, machine (power loss too) or cluster (a machine's loss too)"`
	// LongestOutage is how long the consumer may stand still without the log
	// losing what it has not read. Default 72 h.
	LongestOutage time.Duration `mapstructure:"longest_outage" help:"how long the consumer may stand still; the log must keep events longer"`
	// Every is the time between two checks of a running service. Default 1 min.
	Every time.Duration `mapstructure:"every" help:"time between two checks of the running service"`
	// Timeout bounds one check of each side. Default 15 s.
	Timeout time.Duration `mapstructure:"timeout" help:"bound of one check"`
}

// DefaultConfig claims what one machine with nothing special can keep.
func DefaultConfig() Config {
	return Config{Durability: Process, LongestOutage: 72 * time.Hour, Every: time.Minute, Timeout: 15 * time.Second}
}

// Validate tells which value can't be worked with.
func (c Config) Validate() error {
	switch {
	case c.Durability != Process && c.Durability != Machine && c.Durability != Cluster:
		return fmt.Errorf("doctor.durability is %q: it must be process, machine or cluster", c.Durability)
	case c.LongestOutage <= 0 || c.Every <= 0 || c.Timeout <= 0:
		return errors.New("doctor.longest_outage, doctor.every and doctor.timeout must be positive")
	}
	return nil
}

// Setup is what the service is configured for: what the facts must agree with.
type Setup struct {
	Config
	Topic, DeadLetters, Control, Group string
	Brokers                            []string
	// TablePartitions is the most table partitions in a batch.
	TablePartitions int
	// RecordBytes is the largest record that the edge may write.
	RecordBytes int64
	// ProduceBytes is the largest record that the consumer's producer takes.
	ProduceBytes int64
}

// Severity of a finding.
type Severity string

const (
	// Refuse: exactness, or the claim to durability, would be lost, or nothing
	// could be written at all. The service does not run until it is mended.
	Refuse Severity = "refuse"
	// Warn: no event is lost or doubled by it; it costs comfort, speed or a
	// partition's halt.
	Warn Severity = "warn"
	// Unknown: it cannot be checked here, for want of a right, or because this
	// server has no such table.
	Unknown Severity = "unknown"
)

// Finding is what one check found to be wrong.
type Finding struct {
	Severity Severity `json:"severity"`
	// What is wrong.
	What string `json:"what"`
	// Breaks is what it breaks, or would.
	Breaks string `json:"breaks,omitempty"`
	// Mend are the statements and commands that mend it, in order: SQL ends
	// with a semicolon, all else is for a shell or says in words what to do.
	Mend []string `json:"mend,omitempty"`
}

func refuse(what, breaks string, mend ...string) *Finding {
	return &Finding{Severity: Refuse, What: what, Breaks: breaks, Mend: mend}
}

func warn(what, breaks string, mend ...string) *Finding {
	return &Finding{Severity: Warn, What: what, Breaks: breaks, Mend: mend}
}

func unknown(err error) *Finding {
	return &Finding{Severity: Unknown, What: "cannot be checked here: " + err.Error()}
}

// Result is one check and what it found: nil if all is as it should be.
type Result struct {
	// Check is the check's stable name, as in "clickhouse.event_log.engine".
	Check string `json:"check"`
	*Finding
}

// Report is what a doctor's round found.
type Report struct {
	Durability Durability `json:"durability"`
	// Results are in the order of the checks.
	Results []Result `json:"results"`
	// Away are the sides that did not answer, so that their checks are not
	// among Results.
	Away []string `json:"away,omitempty"`
}

// add takes the result of a check.
func (r *Report) add(check string, f *Finding) { r.Results = append(r.Results, Result{check, f}) }

// Count is how many checks found something of that severity.
func (r Report) Count(s Severity) int {
	n := 0
	for _, x := range r.Results {
		if x.Finding != nil && x.Severity == s {
			n++
		}
	}
	return n
}

// Summary is the report in one line.
func (r Report) Summary() string {
	held := 0
	for _, x := range r.Results {
		if x.Finding == nil {
			held++
		}
	}
	s := fmt.Sprintf("%d checks for durability %q: %d hold, %d must be mended, %d warnings, %d cannot be checked here",
		len(r.Results), r.Durability, held, r.Count(Refuse), r.Count(Warn), r.Count(Unknown))
	if len(r.Away) > 0 {
		s += "; " + strings.Join(r.Away, "; ")
	}
	return s
}

// ErrRefused is in the chain of every refusal.
var ErrRefused = errors.New("the doctor refuses: exactness would be lost")

// Refused is nil, or what must be mended before the service may run.
func (r Report) Refused() error {
	var all []string
	for _, x := range r.Results {
		if x.Finding != nil && x.Severity == Refuse {
			all = append(all, fmt.Sprintf("%s: %s (%s)", x.Check, x.What, mendLine(x.Mend)))
		}
	}
	if len(all) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrRefused, strings.Join(all, "; "))
}

func mendLine(mend []string) string {
	if len(mend) == 0 {
		return "see \"consumer doctor\""
	}
	return "mend: " + strings.Join(mend, " ")
}

// Judge decides what facts mean for setup. It is pure.
func Judge(s Setup, f Facts) Report {
	r := Report{Durability: s.Durability}
	if f.ClickHouse.Away != nil {
		r.Away = append(r.Away, "ClickHouse could not be asked: "+f.ClickHouse.Away.Error())
	} else {
		judgeClickHouse(&r, s, f)
	}
	if f.Kafka.Away != nil {
		r.Away = append(r.Away, "Kafka could not be asked: "+f.Kafka.Away.Error())
	} else {
		judgeKafka(&r, s, f.Kafka, f.ClickHouse.Barriers.Value)
	}
	if len(r.Away) == 0 {
		r.add("one_group", oneGroup(s, f))
	}
	return r
}
