// Package grafana_test holds the dashboards, and the scrape configuration and
// alerts beside them, against the running services: a panel that shows nothing
// because a metric or a column was renamed fails here.
//
// A broker, a ClickHouse, an edge and a consumer are started and given everything
// there is a panel for. No name is listed: metrics are those that the services
// answer with, columns those that the migrations made.
package grafana_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// root is the module's, seen from here.
const root = "../.."

// board is what the tests want to know of a dashboard.
type board struct {
	UID, Title string
	Tags       []string
	Panels     []panel
	Templating struct{ List []variable }
}

type panel struct {
	ID         int
	Type       string
	Title      string
	Datasource datasource
	GridPos    struct{ H, W, X, Y int }
	Targets    []target
	Panels     []panel
}

type target struct {
	RefID, Expr, RawSQL, QueryType string
	Format                         int
	Datasource                     datasource
}

type variable struct {
	Name, Type, Query string
	Datasource        datasource
}

type datasource struct{ Type, UID string }

// boards are the dashboards, by file name.
func boards(t *testing.T) map[string]board {
	t.Helper()
	files, err := filepath.Glob("dashboards/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	out := map[string]board{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		require.NoError(t, err)
		var b board
		require.NoError(t, json.Unmarshal(text, &b), f)
		out[filepath.Base(f)] = b
	}
	return out
}

// each calls f for every target of every panel of a kind of datasource.
func each(t *testing.T, uid string, f func(where string, p panel, x target)) {
	t.Helper()
	n := 0
	for name, b := range boards(t) {
		for _, p := range b.Panels {
			for _, x := range p.Targets {
				if x.Datasource.UID == uid {
					n++
					f(name+": "+p.Title+" "+x.RefID, p, x)
				}
			}
		}
	}
	require.Positive(t, n, "no panel asks %s", uid)
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, into), path)
}

func TestDashboardsAreWellFormed(t *testing.T) {
	var provisioned struct {
		Datasources []struct{ UID, Type string }
	}
	readYAML(t, "provisioning/datasources/sluice.yaml", &provisioned)
	known := map[datasource]bool{}
	for _, d := range provisioned.Datasources {
		known[datasource{d.Type, d.UID}] = true
	}
	uids := map[string]bool{}
	for name, b := range boards(t) {
		require.NotEmpty(t, b.Title, name)
		require.Contains(t, b.Tags, "sluice", "%s: the tag links the dashboards to each other", name)
		require.False(t, uids[b.UID], "%s: the uid %s is taken", name, b.UID)
		uids[b.UID] = true
		ids := map[int]bool{}
		cells := map[[2]int]string{}
		for _, p := range b.Panels {
			require.False(t, ids[p.ID], "%s: %s: the id %d is taken", name, p.Title, p.ID)
			ids[p.ID] = true
			require.NotEmpty(t, p.Title, "%s: panel %d", name, p.ID)
			require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, "%s: %s", name, p.Title)
			for x := range p.GridPos.W {
				for y := range p.GridPos.H {
					at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
					require.Empty(t, cells[at], "%s: %s lies over another panel", name, p.Title)
					cells[at] = p.Title
				}
			}
			if p.Type == "row" {
				require.Empty(t, p.Panels, "%s: %s: panels of a folded row are not tested", name, p.Title)
				continue
			}
			require.NotEmpty(t, p.Targets, "%s: %s asks nothing", name, p.Title)
			require.True(t, known[p.Datasource], "%s: %s: %v is not provisioned", name, p.Title, p.Datasource)
			for _, x := range p.Targets {
				require.Equal(t, p.Datasource, x.Datasource, "%s: %s", name, p.Title)
			}
		}
		for _, v := range b.Templating.List {
			require.True(t, known[v.Datasource], "%s: variable %s", name, v.Name)
		}
	}
}

// TestProvisioningAndComposeAgree: paths, variables and hosts in the files that
// Grafana and Prometheus read are those that compose.yaml gives them.
func TestProvisioningAndComposeAgree(t *testing.T) {
	var compose struct {
		Services map[string]struct {
			Environment map[string]string
			Volumes     []string
		}
	}
	readYAML(t, filepath.Join(root, "compose.yaml"), &compose)
	mounted := func(service, inside string) string {
		for _, v := range compose.Services[service].Volumes {
			outside, rest, _ := strings.Cut(v, ":")
			if at, _, _ := strings.Cut(rest, ":"); at == inside {
				return filepath.Join(root, outside)
			}
		}
		t.Fatalf("%s: nothing is mounted at %s", service, inside)
		return ""
	}
	var provider struct {
		Providers []struct{ Options struct{ Path string } }
	}
	readYAML(t, filepath.Join(mounted("grafana", "/etc/grafana/provisioning"), "dashboards", "sluice.yaml"), &provider)
	found, err := filepath.Glob(filepath.Join(mounted("grafana", provider.Providers[0].Options.Path), "*.json"))
	require.NoError(t, err)
	require.Len(t, found, len(boards(t)))

	sources, err := os.ReadFile("provisioning/datasources/sluice.yaml")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`\$(\w+)`).FindAllStringSubmatch(string(sources), -1) {
		require.NotEmpty(t, compose.Services["grafana"].Environment[m[1]], "%s is not set", m[1])
	}
	require.Contains(t, compose.Services, compose.Services["grafana"].Environment["CLICKHOUSE_HOST"])

	var scrape struct {
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			JobName string `yaml:"job_name"`
			DNS     []struct {
				Names []string
				Port  int
			} `yaml:"dns_sd_configs"`
		} `yaml:"scrape_configs"`
	}
	config := mounted("prometheus", "/etc/prometheus")
	readYAML(t, filepath.Join(config, "prometheus.yml"), &scrape)
	for _, f := range scrape.RuleFiles {
		require.FileExists(t, filepath.Join(config, f))
	}
	for _, c := range scrape.ScrapeConfigs {
		for _, d := range c.DNS {
			for _, name := range d.Names {
				service, ok := compose.Services[name]
				require.True(t, ok, "%s is no service", name)
				require.True(t, strings.HasSuffix(service.Environment["SLUICE_ADMIN_ADDRESS"], ":"+strconv.Itoa(d.Port)), "%s does not listen on %d", name, d.Port)
			}
		}
	}
}
