package doctor

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"sluice/consumer/internal/batch"
	schema "sluice/schemas/clickhouse"
)

// The versions of ClickHouse: what the schema needs is not in older ones, and
// what the tests run on is known good.
const (
	oldestVersion = "25.8" // object_shared_data_serialization_version
	testedVersion = "26.7"
)

func judgeClickHouse(r *Report, s Setup, f Facts) {
	c := f.ClickHouse
	r.add("clickhouse.version", of(c.Version, version))
	r.add("clickhouse.schema", of(c.Schema, func(err error) *Finding {
		if err == nil {
			return nil
		}
		return refuse(err.Error(), "statements of ours fail, or store something else", "consumer migrate")
	}))
	judgeTables(r, s, c, partitionsOf(f.Kafka, s.Topic))
	r.add("clickhouse.insert_settings", insertSettings(c))
	r.add("clickhouse.whole_answers", of(c.Settings, func(v map[string]string) *Finding { return wholeAnswers(c, v) }))
	r.add("clickhouse.row_policies", of(c.Policies, policies))
	r.add("clickhouse.detached_parts", of(c.Detached, detached))
	r.add("clickhouse.disks", of(c.Disks, disks))
	r.add("clickhouse.read_only", of(c.ReadOnly, readOnly))
	r.add("clickhouse.access", of(c.Access, access))
	if s.Durability == Cluster {
		r.add("clickhouse.quorum", of(c.Settings, func(v map[string]string) *Finding { return quorum(c, v) }))
	}
}

// access: without the roles an analyst has the rights and limits of whoever made
// the user, and the service may delete what it wrote.
func access(missing []string) *Finding {
	if len(missing) == 0 {
		return nil
	}
	return warn(fmt.Sprintf("%d of the roles' statements are missing", len(missing)),
		"analysts read without limits, or the service holds rights that it does not need", missing...)
}

func partitionsOf(k Kafka, topic string) Known[int32] {
	t := k.Topics[topic]
	return Known[int32]{t.Value.Partitions, t.Err}
}

func version(v string) *Finding {
	switch {
	case versionLess(v, oldestVersion):
		return refuse("the server is "+v, "settings that the schema rests on do not exist before "+oldestVersion, "install ClickHouse "+testedVersion)
	case versionLess(v, testedVersion), !versionLess(v, nextMinor(testedVersion)):
		return warn(fmt.Sprintf("the server is %s; what is known of ClickHouse was seen on %s", v, testedVersion),
			"deduplication, projections and FINAL have changed between versions before", "install ClickHouse "+testedVersion)
	}
	return nil
}

func versionLess(a, b string) bool {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range bs {
		var x, y int
		if i < len(as) {
			x, _ = strconv.Atoi(as[i]) // a part that is no number counts as 0
		}
		y, _ = strconv.Atoi(bs[i])
		if x != y {
			return x < y
		}
	}
	return false
}

func nextMinor(v string) string {
	major, minor, _ := strings.Cut(v, ".")
	n, _ := strconv.Atoi(minor)
	return major + "." + strconv.Itoa(n+1)
}

// insertWants are the settings that go with an INSERT of the consumer's, and
// what must be in effect then: one block, synchronous, deduplicated by its
// token, and no payload that fails it.
func insertWants() map[string]string {
	wants := map[string]string{
		"async_insert":                    "0",
		"insert_deduplicate":              "1",
		"max_insert_block_size":           strconv.Itoa(1 << 24),
		"min_insert_block_size_rows":      "0",
		"min_insert_block_size_bytes":     "0",
		"max_partitions_per_insert_block": strconv.Itoa(batch.MostTablePartitions),
	}
	for k, v := range schema.InsertSettings() {
		wants[k] = fmt.Sprint(v)
	}
	return wants
}

// insertSettings: a profile's constraint, or a read-only user, takes our
// settings away. https://clickhouse.com/docs/operations/settings/constraints-on-settings
func insertSettings(c ClickHouse) *Finding {
	const breaks = "an INSERT is refused, or becomes several blocks, asynchronous or not deduplicated"
	if c.InsertsRefused != "" {
		return refuse("the server refuses the settings of an INSERT: "+c.InsertsRefused, breaks, alterUser(c, slicesOf(insertWants(), " WRITABLE")))
	}
	return of(c.Inserts, func(got map[string]string) *Finding {
		wrong := map[string]string{}
		var what []string
		wants := insertWants()
		for _, name := range sortedKeys(wants) {
			v, there := got[name]
			if there && switchValue(v) != wants[name] {
				what = append(what, fmt.Sprintf("%s is %s, not %s", name, v, wants[name]))
				wrong[name] = wants[name]
			}
		}
		if v := got["deduplicate_insert"]; v == "disable" { // overrides insert_deduplicate, from 26.2
			what = append(what, "deduplicate_insert is disable")
			wrong["deduplicate_insert"] = "'enable'"
		}
		if len(what) == 0 {
			return nil
		}
		return refuse("with an INSERT "+strings.Join(what, ", "), breaks, alterUser(c, slicesOf(wrong, " WRITABLE")), dsn(wrong))
	})
}

func slicesOf(settings map[string]string, suffix string) []string {
	var out []string
	for _, k := range sortedKeys(settings) {
		out = append(out, k+" = "+settings[k]+suffix)
	}
	return out
}

func alterUser(c ClickHouse, settings []string) string {
	user := c.User.Value
	if user == "" {
		user = "default"
	}
	return fmt.Sprintf("ALTER USER %s SETTINGS %s;", user, strings.Join(settings, ", "))
}

// dsn says the same for the consumer's own connection.
func dsn(settings map[string]string) string {
	var q []string
	for _, k := range sortedKeys(settings) {
		q = append(q, k+"="+strings.Trim(settings[k], "'"))
	}
	return "or in clickhouse.dsn: ?" + strings.Join(q, "&")
}

// limits are settings that, with the mode under which they are reached, cut an
// answer short without an error.
// https://clickhouse.com/docs/operations/settings/query-complexity
var limits = []struct {
	mode  string
	sizes []string
}{
	{"read_overflow_mode", []string{"max_rows_to_read", "max_bytes_to_read"}},
	{"read_overflow_mode_leaf", []string{"max_rows_to_read_leaf", "max_bytes_to_read_leaf"}},
	{"group_by_overflow_mode", []string{"max_rows_to_group_by"}},
	{"sort_overflow_mode", []string{"max_rows_to_sort", "max_bytes_to_sort"}},
	{"result_overflow_mode", []string{"max_result_rows", "max_result_bytes"}},
	{"timeout_overflow_mode", []string{"max_execution_time"}},
	{"timeout_overflow_mode_leaf", []string{"max_execution_time_leaf"}},
	{"set_overflow_mode", []string{"max_rows_in_set", "max_bytes_in_set"}},
	{"join_overflow_mode", []string{"max_rows_in_join", "max_bytes_in_join"}},
	{"transfer_overflow_mode", []string{"max_rows_to_transfer", "max_bytes_to_transfer"}},
	{"distinct_overflow_mode", []string{"max_rows_in_distinct", "max_bytes_in_distinct"}},
}

// wholeAnswers: a comparison that is given a part of the rows finds the rest
// missing, and writes it again.
func wholeAnswers(c ClickHouse, v map[string]string) *Finding {
	wrong := map[string]string{}
	for _, l := range limits {
		if mode := v[l.mode]; mode == "" || mode == "throw" {
			continue
		}
		for _, size := range l.sizes {
			if x := v[size]; x != "" && x != "0" {
				wrong[l.mode] = "'throw'"
			}
		}
	}
	for name, right := range map[string]string{"limit": "0", "offset": "0", "use_query_cache": "0", "apply_deleted_mask": "1", "additional_table_filters": "{}"} {
		if x, there := v[name]; there && switchValue(x) != right {
			wrong[name] = right
			if right == "{}" {
				wrong[name] = "'{}'"
			}
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return refuse("settings cut the answers of queries short, or give old ones: "+strings.Join(sortedKeys(wrong), ", "),
		"a comparison does not see rows that are there, and writes them again", alterUser(c, slicesOf(wrong, "")), dsn(wrong))
}

// policies: https://clickhouse.com/docs/sql-reference/statements/create/row-policy
func policies(all []Policy) *Finding {
	if len(all) == 0 {
		return nil
	}
	var what, mend []string
	for _, p := range all {
		what = append(what, fmt.Sprintf("%s USING %s", p.Name, p.Filter))
		mend = append(mend, fmt.Sprintf("DROP ROW POLICY %s;", p.Name))
	}
	return refuse("row policies hide rows from the consumer: "+strings.Join(what, "; "),
		"a comparison does not see rows that are there, and writes them again", mend...)
}

// detached: https://clickhouse.com/docs/operations/system-tables/detached_parts
func detached(all []Detached) *Finding {
	if len(all) == 0 {
		return nil
	}
	var mend []string
	count := map[string]int{}
	for _, d := range all {
		what := d.Reason
		if what == "" {
			what = "detached by a person"
			mend = append(mend, fmt.Sprintf("ALTER TABLE %s ATTACH PART '%s';", d.Table, d.Part))
		} else {
			mend = append(mend, fmt.Sprintf("ALTER TABLE %s DROP DETACHED PART '%s' SETTINGS allow_drop_detached = 1;", d.Table, d.Part))
		}
		count[fmt.Sprintf("%s (%s)", d.Table, what)]++
	}
	var what []string
	for _, k := range sortedKeys(count) {
		what = append(what, fmt.Sprintf("%d of %s", count[k], k))
	}
	return warn("detached parts: "+strings.Join(what, ", "),
		"their rows are not seen: a repeat of one becomes a row, and attached later it is a second; what was lost, \"consumer replay\" writes again", mend...)
}

func disks(all []Disk) *Finding {
	var what, mend []string
	for _, d := range all {
		switch {
		case d.Broken || d.ReadOnly:
			what = append(what, fmt.Sprintf("the disk %s (%s) takes no writes", d.Name, d.Path))
		case d.Total > 0 && (d.Free < 1<<30 || d.Free < d.Total/20):
			what = append(what, fmt.Sprintf("the disk %s (%s) has %d MiB free of %d", d.Name, d.Path, d.Free>>20, d.Total>>20))
		default:
			continue
		}
		mend = append(mend, "make room on, or mend, "+d.Path)
	}
	if len(what) == 0 {
		return nil
	}
	return warn(strings.Join(what, "; "), "INSERTs and merges fail: every partition halts", mend...)
}

// readOnly: https://clickhouse.com/docs/operations/system-tables/replicas
func readOnly(tables []string) *Finding {
	if len(tables) == 0 {
		return nil
	}
	var mend []string
	for _, t := range tables {
		mend = append(mend, "SYSTEM RESTART REPLICA "+t+";")
	}
	return warn("replicas are read-only: "+strings.Join(tables, ", "), "every partition halts until the Keeper is back", mend...)
}

// quorum: a row is on two replicas before the journal says so, and reads see
// all that was acknowledged. Sequential consistency needs insert_quorum_parallel
// off. https://clickhouse.com/docs/operations/settings/settings#select_sequential_consistency
func quorum(c ClickHouse, v map[string]string) *Finding {
	wrong := map[string]string{}
	if switchValue(v["select_sequential_consistency"]) != "1" {
		wrong["select_sequential_consistency"] = "1"
	}
	if !strings.HasPrefix(c.Tables.Value[schema.EventLog].Engine, "Shared") {
		if q := v["insert_quorum"]; q != "auto" && number(q) < 2 {
			wrong["insert_quorum"] = "'auto'"
		}
		if switchValue(v["insert_quorum_parallel"]) != "0" {
			wrong["insert_quorum_parallel"] = "0"
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	what := maps.Clone(wrong)
	for k := range what {
		what[k] = v[k]
	}
	return refuse(strings.Join(slicesOf(what, ""), ", "), "a replica that lags is compared with, and rows are written again; a machine's loss takes what was acknowledged",
		alterUser(c, slicesOf(wrong, "")), dsn(wrong))
}
