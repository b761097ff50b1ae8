// Package service is what both programs of Sluice have in common beyond the
// contract in schemas: loading configuration, logging, the admin server, the
// Kafka client's options, and stopping in order.
package service

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"

	"sluice/schemas/event"
)

// EnvPrefix begins the name of every environment variable that configures a
// service: the key kafka.brokers is SLUICE_KAFKA_BROKERS.
const EnvPrefix = "SLUICE_"

// Source says where a service's configuration comes from.
type Source struct {
	// Flags are the command's; AddFlags has put one there for every key.
	Flags *pflag.FlagSet
	// Foreign are the first parts of keys that belong to the other service.
	// Both are often started from one environment, so a variable of such a
	// section is none of ours and no mistake.
	Foreign []string
	// Environ is the environment, as os.Environ gives it.
	Environ []string
}

// AddFlags gives a program and all its commands --config and a flag for every key
// of the configuration whose defaults are def, a struct with mapstructure tags: the
// key kafka.brokers is set by --kafka.brokers. The usage texts come from the
// fields' "help" tags. The help of a command only says that these flags are there:
// they are many, and drown its own.
func AddFlags(root *cobra.Command, def any) {
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}",
		`  --config, and one for every key of the configuration, as --kafka.brokers:
  "{{.Root.Name}} --help" lists them`, 1))
	flags := root.PersistentFlags()
	flags.String("config", "", "YAML file to read the configuration from")
	for _, k := range keysOf(def) {
		usage := k.help
		if usage == "" {
			usage = "sets " + k.name
		}
		flags.String(k.name, "", usage+" (default "+k.text()+")")
		flags.Lookup(k.name).DefValue = "" // the usage text says it
		if _, is := k.value.(bool); is {
			flags.Lookup(k.name).NoOptDefVal = "true" // --insecure is --insecure=true
		}
	}
}

// Load fills the configuration: the defaults def, then the file that --config
// names, then the environment, then flags; each overrides what came before it.
// A key that no one knows is an error wherever it stands, with the nearest
// known one.
func Load[T any](def T, src Source) (T, error) {
	var cfg T
	v := viper.New()
	keys := keysOf(def)
	known := make([]string, len(keys))
	for i, k := range keys {
		known[i] = k.name
		v.SetDefault(k.name, k.value)
	}
	if file, err := src.Flags.GetString("config"); err == nil && file != "" {
		v.SetConfigFile(file)
		v.SetConfigType("yaml")
		if err := v.ReadInConfig(); err != nil {
			return cfg, fmt.Errorf("configuration file %s: %w", file, err)
		}
	}
	for _, k := range v.AllKeys() {
		if !slices.Contains(known, k) {
			return cfg, fmt.Errorf("configuration: %w", unknownKey(k, known))
		}
	}
	if err := setEnv(v, src, known); err != nil {
		return cfg, err
	}
	for _, k := range known {
		if f := src.Flags.Lookup(k); f != nil && f.Changed {
			v.Set(k, f.Value.String())
		}
	}
	hook := viper.DecodeHook(mapstructure.ComposeDecodeHookFunc(
		mapstructure.StringToTimeDurationHookFunc(),
		mapstructure.StringToSliceHookFunc(","),
	))
	if err := v.UnmarshalExact(&cfg, hook); err != nil {
		return cfg, fmt.Errorf("configuration: %w", err)
	}
	return cfg, nil
}

func setEnv(v *viper.Viper, src Source, known []string) error {
	byEnv := make(map[string]string, len(known))
	for _, k := range known {
		byEnv[EnvName(k)] = k
	}
	for _, kv := range src.Environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, EnvPrefix) {
			continue
		}
		if key, ok := byEnv[name]; ok {
			v.Set(key, value)
			continue
		}
		section, _, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(name, EnvPrefix)), "_")
		if !slices.Contains(src.Foreign, section) {
			key := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, EnvPrefix), "_", "."))
			return fmt.Errorf("environment variable %s: %w", name, unknownKey(key, known))
		}
	}
	return nil
}

// EnvName is the environment variable that sets key.
func EnvName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

func unknownKey(key string, known []string) error {
	if near := event.Nearest(key, known); near != "" {
		return fmt.Errorf("unknown key %s: did you mean %s?", key, near)
	}
	return fmt.Errorf("unknown key %s; the command \"config\" prints all there are", key)
}

type key struct {
	name   string
	value  any
	help   string
	secret bool
}

func (k key) text() string {
	switch v := k.value.(type) {
	case []string:
		return strings.Join(v, ",")
	case string:
		if v == "" {
			return "none"
		}
	}
	return fmt.Sprint(k.value)
}

// keysOf lists the leaves of a configuration struct, named as in its
// mapstructure tags, sections joined by dots, sorted.
func keysOf(cfg any) []key {
	var out []key
	var walk func(prefix string, v reflect.Value)
	walk = func(prefix string, v reflect.Value) {
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name := prefix + f.Tag.Get("mapstructure")
			if f.Type.Kind() == reflect.Struct {
				walk(name+".", v.Field(i))
				continue
			}
			out = append(out, key{name, v.Field(i).Interface(), f.Tag.Get("help"), f.Tag.Get("secret") != ""})
		}
	}
	walk("", reflect.ValueOf(cfg))
	sort.Slice(out, func(i, j int) bool { return out[i].name < out[j].name })
	return out
}

// Print writes cfg as YAML that --config would read again, secrets masked
// (fields with a "secret" tag; their values are replaced by "***").
func Print(w io.Writer, cfg any) error {
	tree := map[string]any{}
	for _, k := range keysOf(cfg) {
		at := tree
		parts := strings.Split(k.name, ".")
		for _, p := range parts[:len(parts)-1] {
			if at[p] == nil {
				at[p] = map[string]any{}
			}
			at = at[p].(map[string]any)
		}
		value := k.value
		if d, ok := value.(time.Duration); ok {
			value = d.String()
		}
		if k.secret && k.text() != "none" {
			value = "***"
		}
		at[parts[len(parts)-1]] = value
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	return errors.Join(enc.Encode(tree), enc.Close())
}

// FromProcess is the Source of a running command.
func FromProcess(flags *pflag.FlagSet, foreign ...string) Source {
	return Source{Flags: flags, Foreign: foreign, Environ: os.Environ()}
}
