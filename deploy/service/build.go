package service

import (
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
)

// Build says what a program was built from.
type Build struct {
	Version  string // of the module: a tag, or what go build makes of the commit
	Revision string // the commit; "unknown" outside a repository
	Go       string
}

// ReadBuild reads what go build has written into this program.
func ReadBuild() Build {
	b := Build{Version: "unknown", Revision: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Go = info.GoVersion
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Revision = s.Value
		}
	}
	return b
}

// RegisterBuild puts b into the labels of a gauge that is always 1, the name's
// part before "_build_info" being namespace.
func RegisterBuild(reg prometheus.Registerer, namespace string, b Build) {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: namespace + "_build_info", Help: "What this program was built from; always 1.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "goversion": b.Go},
	})
	g.Set(1)
	reg.MustRegister(g)
}
