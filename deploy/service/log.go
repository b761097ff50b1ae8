package service

import (
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
