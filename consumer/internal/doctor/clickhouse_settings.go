package doctor

import (
	"fmt"
	"strconv"
	"strings"
)

// setting is the value of a table's setting: its own, or the server's default.
func (c ClickHouse) setting(t Table, name string) Known[string] {
	if v, ok := t.Settings[name]; ok {
		return Known[string]{Value: switchValue(v)}
	}
	defaults := c.MergeTree
	if strings.HasPrefix(t.Engine, "Replicated") || strings.HasPrefix(t.Engine, "Shared") {
		defaults = c.Replicated
	}
	if defaults.Err != nil {
		return Known[string]{Err: defaults.Err}
	}
	v, ok := defaults.Value[name]
	if !ok {
		return Known[string]{Err: fmt.Errorf("this server has no setting %s", name)}
	}
	return Known[string]{Value: switchValue(v)}
}

func switchValue(v string) string {
	switch v {
	case "true":
		return "1"
	case "false":
		return "0"
	}
	return v
}

func number(v string) int64 {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
