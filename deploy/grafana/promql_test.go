package grafana_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metricsql"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

// series is one time series, as its labels; __name__ is among them.
type series map[string]string

// seriesOf are the series that a scrape of a target makes.
func seriesOf(job, instance string, families map[string]*dto.MetricFamily) []series {
	out := []series{{"__name__": "up", "job": job, "instance": instance}}
	for name, f := range families {
		for _, m := range f.GetMetric() {
			labels := series{"__name__": name, "job": job, "instance": instance}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			with := func(suffix string, extra ...string) {
				s := maps.Clone(labels)
				s["__name__"] += suffix
				for i := 0; i+1 < len(extra); i += 2 {
					s[extra[i]] = extra[i+1]
				}
				out = append(out, s)
			}
			switch {
			case m.GetHistogram() != nil:
				with("_sum")
				with("_count")
				for _, b := range m.GetHistogram().GetBucket() {
					with("_bucket", "le", strconv.FormatFloat(b.GetUpperBound(), 'g', -1, 64))
				}
			case m.GetSummary() != nil:
				with("_sum")
				with("_count")
				for _, q := range m.GetSummary().GetQuantile() {
					with("", "quantile", fmt.Sprint(q.GetQuantile()))
				}
			default:
				with("")
			}
		}
	}
	return out
}

// functions are those of PromQL's that are used. The parser knows more than
// Prometheus does: a name is added here once Prometheus's own page has it.
var functions = []string{"absent", "deriv", "histogram_quantile", "increase", "rate", "time", "sum", "min", "max", "count"}

// judge tells what is wrong with an expression, given the series there are.
func judge(expr string, all []series) error {
	// Grafana's variables of time are durations.
	expr = regexp.MustCompile(`\$__(rate_)?interval\b`).ReplaceAllString(expr, "1m")
	parsed, err := metricsql.Parse(expr)
	if err != nil {
		return err
	}
	metricsql.VisitAll(parsed, func(e metricsql.Expr) {
		if err == nil {
			err = judgeNode(e, all)
		}
	})
	return err
}

func judgeNode(e metricsql.Expr, all []series) error {
	switch e := e.(type) {
	case *metricsql.FuncExpr:
		if !slices.Contains(functions, e.Name) {
			return fmt.Errorf("%s is not among the functions known to be PromQL's", e.Name)
		}
		if slices.Contains([]string{"rate", "increase", "deriv"}, e.Name) {
			if r, ok := e.Args[0].(*metricsql.RollupExpr); !ok || r.Window == nil {
				return fmt.Errorf("%s needs a range, as in [5m]", e.Name)
			}
		}
	case *metricsql.AggrFuncExpr:
		if !slices.Contains(functions, e.Name) {
			return fmt.Errorf("%s is not among the functions known to be PromQL's", e.Name)
		}
		carried := map[string]bool{}
		for _, a := range e.Args {
			metricsql.VisitAll(a, func(e metricsql.Expr) {
				if m, ok := e.(*metricsql.MetricExpr); ok {
					for _, s := range selected(m, all) {
						for label := range s {
							carried[label] = true
						}
					}
				}
			})
		}
		for _, label := range e.Modifier.Args {
			if !carried[label] {
				return fmt.Errorf("%s by %s: nothing in it has that label", e.Name, label)
			}
		}
	case *metricsql.MetricExpr:
		if len(selected(e, all)) == 0 {
			return fmt.Errorf("no series is selected by %s", e.AppendString(nil))
		}
	}
	return nil
}

// selected are the series that a selector selects.
func selected(m *metricsql.MetricExpr, all []series) (out []series) {
	for _, s := range all {
		for _, alternative := range m.LabelFilterss {
			if !slices.ContainsFunc(alternative, func(f metricsql.LabelFilter) bool { return !matches(f, s) }) {
				out = append(out, s)
				break
			}
		}
	}
	return out
}

func matches(f metricsql.LabelFilter, s series) bool {
	found := s[f.Label] == f.Value
	if f.IsRegexp {
		found = regexp.MustCompile("^(?:" + f.Value + ")$").MatchString(s[f.Label])
	}
	return found != f.IsNegative
}

type rule struct {
	Alert       string
	Expr        string
	Labels      map[string]string
	Annotations map[string]string
}

func alerts(t *testing.T) (out []rule) {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []rule }
	}
	readYAML(t, "../prometheus/alerts.yml", &file)
	for _, g := range file.Groups {
		out = append(out, g.Rules...)
	}
	require.NotEmpty(t, out)
	return out
}

func everyMetricAskedForIsThere(t *testing.T, w *stack) {
	var config struct {
		ScrapeConfigs []struct {
			JobName string `yaml:"job_name"`
		} `yaml:"scrape_configs"`
	}
	readYAML(t, "../prometheus/prometheus.yml", &config)
	targets := map[string]string{"ingest": w.edgeAdmin, "consumer": w.ownerAdmin}
	var all []series
	for _, c := range config.ScrapeConfigs {
		address, ok := targets[c.JobName]
		require.True(t, ok, "the job %s is of neither service", c.JobName)
		all = append(all, seriesOf(c.JobName, address, w.scrape(address))...)
	}
	each(t, "prometheus", func(where string, _ panel, x target) {
		require.NoError(t, judge(x.Expr, all), "%s: %s", where, x.Expr)
	})
	for _, r := range alerts(t) {
		require.NoError(t, judge(r.Expr, all), "%s: %s", r.Alert, r.Expr)
	}

	// The judge itself can tell.
	for expr, want := range map[string]string{
		`sum(sluice_ingest_ready`:                                         "unexpected token",
		`sum(rate(sluice_ingest_events[1m]))`:                             "no series",
		`sluice_consumer_records_total{fate="dead-letter"}`:               "no series",
		`up{job="edge"}`:                                                  "no series",
		`sum by (route) (rate(sluice_ingest_events_total[1m]))`:           "has that label",
		`sum(rate(sluice_ingest_events_total))`:                           "needs a range",
		`range_median(sluice_ingest_ready)`:                               "not among",
		`rate(sluice_ingest_request_duration_seconds{route="batch"}[1m])`: "no series",
	} {
		require.ErrorContains(t, judge(expr, all), want, expr)
	}
}

func TestEveryAlertNamesItsRunbook(t *testing.T) {
	told := map[string]bool{}
	for _, r := range alerts(t) {
		require.Contains(t, []string{"critical", "warning"}, r.Labels["severity"], r.Alert)
		require.NotEmpty(t, r.Annotations["summary"], r.Alert)
		file, anchor, ok := strings.Cut(r.Annotations["runbook"], "#")
		require.True(t, ok, "%s names no section", r.Alert)
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
		require.NoError(t, err, r.Alert)
		require.Contains(t, sections(string(text)), anchor, "%s: %s has no such section", r.Alert, file)
		told[anchor] = true
		require.Contains(t, string(text), "`"+r.Alert+"`", "%s: the runbook does not name it", r.Alert)
	}
	runbooks, err := os.ReadFile(filepath.Join(root, "deploy/docs/runbooks.md"))
	require.NoError(t, err)
	for _, s := range sections(string(runbooks)) {
		require.True(t, told[s], "no alert leads to the section %s", s)
	}
}

// sections are the anchors of a page's second-level headings.
func sections(text string) (out []string) {
	for _, m := range regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(text, -1) {
		kept := regexp.MustCompile(`[^\w -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out = append(out, strings.ReplaceAll(kept, " ", "-"))
	}
	return out
}
