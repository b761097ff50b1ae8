package service

import (
	"context"
	"fmt"
	"io"
	"log/slog"
)

// Log configures the service's log.
type Log struct {
	// Level is debug, info, warn or error. Default info.
	Level string `mapstructure:"level" help:"debug, info, warn or error"`
	// Format is text or json. Default text.
	Format string `mapstructure:"format" help:"text or json"`
}

// DefaultLog is text from info upwards.
func DefaultLog() Log { return Log{Level: "info", Format: "text"} }

// NewLogger returns the logger that cfg describes, writing to w.
func NewLogger(w io.Writer, cfg Log) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
		return nil, fmt.Errorf("log.level %q: want debug, info, warn or error", cfg.Level)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch cfg.Format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("log.format %q: want text or json", cfg.Format)
}

// clientLog is the log of a Kafka client: from warn upwards, since each client
// tells a dozen lines at info when it starts, and a consumer has one for each
// partition. At level debug it tells all.
func clientLog(log *slog.Logger) *slog.Logger {
	h := log.With("part", "kafka").Handler()
	if h.Enabled(context.Background(), slog.LevelDebug) {
		return slog.New(h)
	}
	return slog.New(fromWarn{h})
}

// fromWarn drops what is less than a warning.
type fromWarn struct{ slog.Handler }

func (h fromWarn) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.Handler.Enabled(ctx, level)
}

func (h fromWarn) WithAttrs(attrs []slog.Attr) slog.Handler {
	return fromWarn{h.Handler.WithAttrs(attrs)}
}

func (h fromWarn) WithGroup(name string) slog.Handler { return fromWarn{h.Handler.WithGroup(name)} }
