// Package docker_test holds compose.yaml and the Dockerfile against the tree:
// what they name must be there, and what they configure must be known.
package docker_test

import (
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"
)

// root is the module's, seen from here.
const root = "../.."

func load(t *testing.T) *types.Project {
	t.Helper()
	opts, err := cli.NewProjectOptions([]string{filepath.Join(root, "compose.yaml")}, cli.WithResolvedPaths(true))
	require.NoError(t, err)
	p, err := opts.LoadProject(t.Context())
	require.NoError(t, err)
	return p
}

// stage is one FROM of the Dockerfile.
type stage struct {
	from, entrypoint, text string
}

var (
	fromLine       = regexp.MustCompile(`(?m)^FROM (\S+) AS (\S+)$`)
	entrypointLine = regexp.MustCompile(`(?m)^ENTRYPOINT \["/(\w+)"\]$`)
	copyFrom       = regexp.MustCompile(`--from=(\S+)((?: \S+)*) \S+`)
	builtPackage   = regexp.MustCompile(` \./(\S+)`)
)

func stages(t *testing.T, dockerfile string) map[string]stage {
	t.Helper()
	text, err := os.ReadFile(dockerfile)
	require.NoError(t, err)
	out := map[string]stage{}
	at := fromLine.FindAllStringSubmatchIndex(string(text), -1)
	for i, m := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		s := stage{from: string(text[m[2]:m[3]]), text: string(text[m[1]:end])}
		if e := entrypointLine.FindStringSubmatch(s.text); e != nil {
			s.entrypoint = e[1]
		}
		out[string(text[m[4]:m[5]])] = s
	}
	return out
}

// ours are the services that are built here, with the program each runs.
func ours(t *testing.T, p *types.Project) map[string]string {
	t.Helper()
	absolute, err := filepath.Abs(root)
	require.NoError(t, err)
	out := map[string]string{}
	for name, s := range p.Services {
		if s.Build == nil {
			continue
		}
		require.Equal(t, absolute, filepath.Clean(s.Build.Context), "%s: build context", name)
		target, ok := stages(t, filepath.Join(s.Build.Context, s.Build.Dockerfile))[s.Build.Target]
		require.True(t, ok, "%s: the Dockerfile has no target %s", name, s.Build.Target)
		require.Empty(t, s.Entrypoint, "%s: the image's entrypoint is the program", name)
		require.NotEmpty(t, target.entrypoint, "%s: the target %s runs nothing", name, s.Build.Target)
		out[name] = target.entrypoint
	}
	require.Len(t, out, 4, "ingest, consumer and the two steps before it")
	return out
}

// build compiles both services and returns the directory that they are in.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./ingest", "./consumer")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dir
}

// run runs a program with exactly env as its environment.
func run(t *testing.T, env []string, program string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = env
	if env == nil {
		cmd.Env = []string{}
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func environ(s types.ServiceConfig) []string {
	env := []string{}
	for k, v := range s.Environment {
		value := ""
		if v != nil {
			value = *v
		}
		env = append(env, k+"="+value)
	}
	return env
}

func TestServicesKnowTheirConfigurationAndCommands(t *testing.T) {
	p := load(t)
	dir := build(t)
	for name, program := range ours(t, p) {
		s := p.Services[name]
		binary := filepath.Join(dir, program)
		env := environ(s)
		for _, kv := range env {
			require.True(t, strings.HasPrefix(kv, "SLUICE_"), "%s: %s configures nothing", name, kv)
		}
		out, err := run(t, env, binary, "config")
		require.NoError(t, err, "%s: %s", name, out)

		// The check above would see a wrong name.
		out, err = run(t, append(env, "SLUICE_KAFKA_BROKER=kafka:9092"), binary, "config")
		require.Error(t, err, "%s: a misspelt variable passes", name)
		require.Contains(t, out, "did you mean kafka.brokers", name)

		requireCommand(t, binary, s.Command...)
	}
	require.False(t, isCommand(t, filepath.Join(dir, "consumer"), "topics", "insure"), "an unknown command passes for a known one")
}

// isCommand tells whether args name a command. For an unknown one the help of
// the nearest command above it is shown, with exit status 0: the usage line says
// which it is.
func isCommand(t *testing.T, binary string, args ...string) bool {
	t.Helper()
	out, err := run(t, nil, binary, append(slices.Clone(args), "--help")...)
	require.NoError(t, err, out)
	usage := strings.Join(append([]string{filepath.Base(binary)}, args...), " ")
	return regexp.MustCompile(`Usage:\n  ` + regexp.QuoteMeta(usage) + `( \[flags\])?\n`).MatchString(out)
}

func requireCommand(t *testing.T, binary string, args ...string) {
	t.Helper()
	require.True(t, isCommand(t, binary, args...), "%s has no command %q", filepath.Base(binary), args)
}

func TestServicesMeetEachOther(t *testing.T) {
	p := load(t)
	hosts := func(name, variable string, addresses ...string) {
		for _, a := range addresses {
			host, port, err := net.SplitHostPort(a)
			require.NoError(t, err, "%s: %s", name, variable)
			peer, ok := p.Services[host]
			require.True(t, ok, "%s: %s names %s, which is no service", name, variable, host)
			if host == "kafka" {
				require.Contains(t, *peer.Environment["KAFKA_ADVERTISED_LISTENERS"], "BROKER://kafka:"+port)
			}
		}
	}
	for name := range ours(t, p) {
		s := p.Services[name]
		if v := s.Environment["SLUICE_KAFKA_BROKERS"]; v != nil {
			hosts(name, "SLUICE_KAFKA_BROKERS", strings.Split(*v, ",")...)
		}
		if v := s.Environment["SLUICE_CLICKHOUSE_DSN"]; v != nil {
			dsn, err := url.Parse(*v)
			require.NoError(t, err)
			hosts(name, "SLUICE_CLICKHOUSE_DSN", dsn.Host)
			password, _ := dsn.User.Password()
			require.Equal(t, *p.Services["clickhouse"].Environment["CLICKHOUSE_USER"], dsn.User.Username())
			require.Equal(t, *p.Services["clickhouse"].Environment["CLICKHOUSE_PASSWORD"], password)
		}
		listens := []string{}
		for _, variable := range []string{"SLUICE_HTTP_ADDRESS", "SLUICE_ADMIN_ADDRESS"} {
			if v := s.Environment[variable]; v != nil {
				host, port, err := net.SplitHostPort(*v)
				require.NoError(t, err)
				require.Empty(t, host, "%s: %s must listen on the container's every address", name, variable)
				listens = append(listens, port)
			}
		}
		published := []string{}
		for _, port := range s.Ports {
			published = append(published, strconv.Itoa(int(port.Target)))
		}
		require.ElementsMatch(t, listens, published, "%s: ports listened on and published", name)
		if s.HealthCheck != nil {
			require.Equal(t, []string{"CMD", "/probe"}, []string(s.HealthCheck.Test[:2]), name)
			check, err := url.Parse(s.HealthCheck.Test[2])
			require.NoError(t, err)
			require.Equal(t, strings.TrimPrefix(*s.Environment["SLUICE_ADMIN_ADDRESS"], ":"), check.Port(), name)
		}
	}
}

func TestEveryServiceIsReachedFromThisMachineOnlyAndStartsInOrder(t *testing.T) {
	p := load(t)
	for name, s := range p.Services {
		for _, port := range s.Ports {
			require.Equal(t, "127.0.0.1", port.HostIP, "%s: port %d", name, port.Target)
		}
		_, tag, ok := strings.Cut(s.Image, ":")
		require.True(t, ok && tag != "latest", "%s: the image %s has no fixed tag", name, s.Image)
		oneShot := s.Restart == "no"
		require.Equal(t, oneShot, s.HealthCheck == nil, "%s: what stays up says how it is, what ends does not", name)
		for on, d := range s.DependsOn {
			want := types.ServiceConditionHealthy
			if p.Services[on].Restart == "no" {
				want = types.ServiceConditionCompletedSuccessfully
			}
			require.Equal(t, want, d.Condition, "%s depends on %s", name, on)
		}
	}
}

func TestDockerfileNamesWhatIsThere(t *testing.T) {
	all := stages(t, "Dockerfile")
	built := map[string]bool{}
	for _, m := range builtPackage.FindAllStringSubmatch(all["build"].text, -1) {
		if m[1] == "" {
			continue
		}
		out, err := run(t, os.Environ(), "go", "list", "-f", "{{.Name}}", "sluice/"+m[1])
		require.NoError(t, err, out)
		require.Equal(t, "main", strings.TrimSpace(out), m[1])
		built["/out/"+filepath.Base(m[1])] = true
	}
	for name, s := range all {
		require.Regexp(t, `^[^:]+:[\w.-]+$`, s.from, "%s: the base image has a tag", name)
		if name == "build" {
			continue
		}
		require.True(t, strings.HasSuffix(s.from, ":nonroot"), "%s runs as root", name)
		copied := []string{}
		for _, m := range copyFrom.FindAllStringSubmatch(s.text, -1) {
			require.Contains(t, all, m[1], "%s copies from it", name)
			for _, c := range strings.Fields(m[2]) {
				if c == "/out/spool" { // an empty folder, whose owner a volume takes over
					require.Contains(t, all["build"].text, "mkdir -p "+c)
				} else if !strings.HasPrefix(c, "--") {
					copied = append(copied, c)
				}
			}
		}
		require.ElementsMatch(t, []string{"/out/probe", "/out/" + s.entrypoint}, copied, name)
		for _, c := range copied {
			require.True(t, built[c], "%s copies %s, which is not built", name, c)
		}
	}
	ignore, err := os.ReadFile("Dockerfile.dockerignore")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`(?m)^!(.*)$`).FindAllStringSubmatch(string(ignore), -1) {
		_, err := os.Stat(filepath.Join(root, m[1]))
		require.NoError(t, err, "Dockerfile.dockerignore lets it through")
	}
}
