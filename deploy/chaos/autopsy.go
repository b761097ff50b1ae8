package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"sluice/schemas/topic"
)

// autopsy writes down what a stack that does not come to rest is doing: what
// each service says of itself, all its goroutines, and what the broker says of
// the group and of its commits. Its error is what could not be found out.
func (s *stack) autopsy(ctx context.Context) error {
	var errs []error
	for name, addr := range s.admin {
		for _, path := range []string{"/readyz", "/metrics", "/debug/pprof/goroutine?debug=2"} {
			file := name + "." + strings.NewReplacer("/", ".", "?", ".", "=", ".").Replace(strings.Trim(path, "/"))
			errs = append(errs, download(ctx, "http://"+addr+path, filepath.Join(s.dir, file)))
		}
	}
	text, err := s.group(ctx)
	errs = append(errs, err, os.WriteFile(filepath.Join(s.dir, "group.txt"), []byte(text), 0o644))
	return errors.Join(errs...)
}

func download(ctx context.Context, url, file string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return errors.Join(err, os.WriteFile(file, text, 0o644))
}

// group describes the consumer group.
func (s *stack) group(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var b strings.Builder
	described, err := s.log.Admin().DescribeGroups(ctx, topic.Group)
	for _, g := range described {
		fmt.Fprintf(&b, "group %s: %s, protocol %q, error %v\n", g.Group, g.State, g.Protocol, g.Err)
		for _, m := range g.Members {
			var owns []string
			if a, ok := m.Assigned.AsConsumer(); ok {
				for _, t := range a.Topics {
					owns = append(owns, fmt.Sprintf("%s %v", t.Topic, t.Partitions))
				}
			}
			instance := ""
			if m.InstanceID != nil {
				instance = *m.InstanceID
			}
			fmt.Fprintf(&b, "  member %s instance %q client %s: %s\n", m.MemberID, instance, m.ClientID, strings.Join(owns, ", "))
		}
	}
	commits, commitErr := s.log.Admin().FetchOffsets(ctx, topic.Group)
	var lines []string
	commits.Each(func(o kadm.OffsetResponse) {
		lines = append(lines, fmt.Sprintf("commit %s/%d: %d %s\n", o.Topic, o.Partition, o.At, o.Metadata))
	})
	slices.Sort(lines)
	b.WriteString(strings.Join(lines, ""))
	return b.String(), errors.Join(err, commitErr)
}
