package doctor

import (
	"fmt"
	"slices"
	"strings"

	schema "sluice/schemas/clickhouse"
)

// judgeTables judges the two tables of record, each by itself.
func judgeTables(r *Report, s Setup, c ClickHouse, partitions Known[int32]) {
	for _, name := range []string{schema.EventLog, schema.Journal} {
		check := func(what string) string { return "clickhouse." + name + "." + what }
		want := c.Expected[name]
		if c.Tables.Err != nil {
			r.add(check("exists"), unknown(c.Tables.Err))
			continue
		}
		t, there := c.Tables.Value[name]
		if !there {
			r.add(check("exists"), refuse("the table is missing", "there is nowhere to write to", statements(want.Statements)...))
			continue
		}
		r.add(check("exists"), nil)
		if t.Unreadable != nil {
			r.add(check("definition"), unknown(t.Unreadable))
			continue
		}
		r.add(check("engine"), engine(name, t, want))
		r.add(check("partition_key"), sameKey(name, "PARTITION BY", t.PartitionBy, want.PartitionBy, want))
		r.add(check("sorting_key"), sameKey(name, "ORDER BY", t.OrderBy, want.OrderBy, want))
		r.add(check("columns"), columns(name, t, want))
		for _, p := range sortedKeys(want.Projections) {
			r.add(check("projection."+p), projection(name, p, t, want))
		}
		r.add(check("ttl"), ttl(name, t))
		r.add(check("materialized_views"), readers(name, t, c.Database))
		r.add(check("table_readonly"), tableReadOnly(c, name, t))
		if name == schema.EventLog {
			r.add(check("deduplication_window"), window(s, c, t, partitions))
			r.add(check("deduplicate_merge_projection_mode"), mergeMode(c, t))
			r.add(check("lightweight_mutation_projection_mode"), deleteMode(c, t))
		}
		if s.Durability == Machine { // in a cluster other replicas hold what a power failure takes
			r.add(check("fsync"), fsync(c, name, t))
			r.add(check("old_parts_lifetime"), oldParts(c, name, t))
		}
		if s.Durability == Cluster {
			r.add(check("replicated"), replicated(name, t))
		}
		r.add(check("parts"), parts(c, name, t))
	}
}

func statements(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = s + ";"
	}
	return out
}

// again is how a table of another shape is put aside and made anew: its engine
// and keys cannot be altered.
func again(name string, want Definition) []string {
	out := []string{fmt.Sprintf("RENAME TABLE %s TO %s_before;", name, name)}
	out = append(out, statements(want.Statements)...)
	return append(out, "start the consumer, and let it fill the table from the log: consumer replay --from earliest")
}

// engine: the version that wins a merge must be the one the rule lets win.
// https://clickhouse.com/docs/engines/table-engines/mergetree-family/replacingmergetree
func engine(name string, t Table, want Definition) *Finding {
	family := strings.TrimPrefix(strings.TrimPrefix(t.Engine, "Replicated"), "Shared")
	if family == want.Engine && len(t.EngineArgs) > 0 && t.EngineArgs[len(t.EngineArgs)-1] == want.EngineArgs[0] {
		return nil
	}
	return refuse(fmt.Sprintf("the engine is %s(%s), not %s(%s) or its replicated form", t.Engine, strings.Join(t.EngineArgs, ", "), want.Engine, want.EngineArgs[0]),
		"a row or an entry written twice would stay, or the wrong one of two would", again(name, want)...)
}

// sameKey: rows of one key meet only in one partition, and side by side in the
// sorting key; keys are found by it.
func sameKey(name, clause, got, expected string, want Definition) *Finding {
	if got == expected {
		return nil
	}
	return refuse(fmt.Sprintf("%s is (%s), not (%s)", clause, got, expected),
		"repeats of a row would not meet in a merge, and an INSERT of the journal would not be all or none", again(name, want)...)
}

func columns(name string, t Table, want Definition) *Finding {
	var wrong, mend []string
	severity := Warn
	for _, c := range sortedKeys(want.Columns) {
		w := want.Columns[c]
		g, there := t.Columns[c]
		switch {
		case !there:
			wrong, mend = append(wrong, c+" is missing"), append(mend, fmt.Sprintf("ALTER TABLE %s ADD COLUMN %s %s;", name, c, w.Text))
			severity = Refuse
		case g.Type != w.Type, g.Kind != w.Kind:
			wrong = append(wrong, fmt.Sprintf("%s is %s %s, not %s %s", c, g.Type, g.Kind, w.Type, w.Kind))
			mend = append(mend, fmt.Sprintf("ALTER TABLE %s MODIFY COLUMN %s %s;", name, c, w.Text))
			severity = Refuse
		case g.Expression != w.Expression && !strings.Contains(w.Expression, "::"): // a server shows a cast in other words
			wrong = append(wrong, fmt.Sprintf("%s is %s, not %s", c, g.Expression, w.Expression))
			mend = append(mend, fmt.Sprintf("ALTER TABLE %s MODIFY COLUMN %s %s;", name, c, w.Text))
			if c == "version" {
				severity = Refuse
			}
		}
	}
	for _, c := range sortedKeys(t.Columns) {
		promoted := t.Columns[c].Kind == "MATERIALIZED" && strings.HasPrefix(t.Columns[c].Comment, schema.PromotedComment)
		if _, known := want.Columns[c]; !known && !promoted {
			wrong = append(wrong, c+" is none of ours")
			mend = append(mend, fmt.Sprintf("ALTER TABLE %s DROP COLUMN %s;", name, c))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return &Finding{severity, strings.Join(wrong, "; "), "what is written is stored as something else, or cannot be written; of two rows of a key the wrong one would win a merge", mend}
}

// projection: answers are right without it, only slow.
// https://clickhouse.com/docs/sql-reference/statements/alter/projection
func projection(name, p string, t Table, want Definition) *Finding {
	create := []string{
		fmt.Sprintf("ALTER TABLE %s ADD PROJECTION %s (%s);", name, p, want.Projections[p].Text),
		fmt.Sprintf("ALTER TABLE %s MATERIALIZE PROJECTION %s;", name, p),
	}
	got, there := t.Projections[p]
	switch {
	case !there:
		return warn("the projection is missing", "rollups, balance or comparison read the whole table", create...)
	case got.Query != want.Projections[p].Query:
		return warn(fmt.Sprintf("the projection is %s, not %s", got.Query, want.Projections[p].Query), "it is not used for what it was made for",
			append([]string{fmt.Sprintf("ALTER TABLE %s DROP PROJECTION %s;", name, p)}, create...)...)
	}
	return nil
}

// ttl: what the engine takes by itself has no fate, so the consumer's next
// comparison writes it again. Moving and recompressing takes nothing.
// https://clickhouse.com/docs/engines/table-engines/mergetree-family/mergetree#table_engine-mergetree-ttl
func ttl(name string, t Table) *Finding {
	var what, mend []string
	for _, rule := range split(t.TTL, ',') {
		parts := clauses(rule, []string{"TO DISK", "TO VOLUME", "RECOMPRESS"})
		if len(parts) == 1 && parts[""] != "" {
			what, mend = append(what, "TTL "+rule), []string{fmt.Sprintf("ALTER TABLE %s REMOVE TTL;", name)}
		}
	}
	for _, c := range sortedKeys(t.Columns) {
		if rule := t.Columns[c].TTL; rule != "" {
			what = append(what, fmt.Sprintf("the column %s has TTL %s", c, rule))
			mend = append(mend, fmt.Sprintf("ALTER TABLE %s MODIFY COLUMN %s REMOVE TTL;", name, c))
		}
	}
	if len(what) == 0 {
		return nil
	}
	return refuse(strings.Join(what, "; "), "what it deletes has no fate: the balance differs, and a comparison writes it again", mend...)
}

// readers: an INSERT writes to a materialized view's target too, and fails with
// it. https://clickhouse.com/docs/sql-reference/statements/create/view
func readers(name string, t Table, database string) *Finding {
	if len(t.Readers) == 0 {
		return nil
	}
	var mend []string
	for _, v := range t.Readers {
		mend = append(mend, fmt.Sprintf("DROP VIEW %s;", strings.TrimPrefix(v, database+".")))
	}
	return warn("materialized views are fed by every INSERT: "+strings.Join(t.Readers, ", "),
		"an INSERT fails when theirs does, is no longer all or none, and their targets differ from "+name+" after a recovery or a DELETE; a view that is asked, or a projection, does not", mend...)
}

// window: the token of an INSERT that comes late (its statement killed, its
// answer lost) must still be known. The window counts parts, and an INSERT makes
// one in each table partition: with a window of 2, one of 5 table partitions was
// stored again (seen on 26.7).
// https://clickhouse.com/docs/operations/settings/merge-tree-settings#non_replicated_deduplication_window
func window(s Setup, c ClickHouse, t Table, partitions Known[int32]) *Finding {
	name := "non_replicated_deduplication_window"
	if strings.HasPrefix(t.Engine, "Replicated") || strings.HasPrefix(t.Engine, "Shared") {
		name = "replicated_deduplication_window"
	}
	return of(c.setting(t, name), func(v string) *Finding {
		if partitions.Err != nil || partitions.Value < 1 {
			partitions.Value = 1 // at least one batch is in flight
		}
		need := int64(s.TablePartitions) * int64(partitions.Value)
		has := number(v)
		what := fmt.Sprintf("%s is %d; %d partitions × %d table partitions a batch in flight make %d", name, has, partitions.Value, s.TablePartitions, need)
		mend := fmt.Sprintf("ALTER TABLE %s MODIFY SETTING %s = %d;", schema.EventLog, name, max(100_000, 4*need))
		switch {
		case has < need:
			return refuse(what, "an INSERT that arrives late or twice is stored twice", mend)
		case has < 2*need:
			return warn(what+", and a recovery adds its own", "the window holds only just what is in flight", mend)
		}
		return nil
	})
}

// mergeMode: with "ignore" a merge keeps what projections counted of rows that
// it took away: 2 counted of 1 row (seen on 26.7). "throw" and "drop" leave
// merged parts without projections.
// https://clickhouse.com/docs/operations/settings/merge-tree-settings#deduplicate_merge_projection_mode
func mergeMode(c ClickHouse, t Table) *Finding {
	const name = "deduplicate_merge_projection_mode"
	mend := fmt.Sprintf("ALTER TABLE %s MODIFY SETTING %s = 'rebuild';", schema.EventLog, name)
	return of(c.setting(t, name), func(v string) *Finding {
		switch v {
		case "rebuild":
			return nil
		case "ignore":
			return refuse(name+" is ignore", "rollups and balance count rows that a merge took away", mend,
				"for each projection: ALTER TABLE event_log MATERIALIZE PROJECTION … (what was merged meanwhile counts wrong)")
		}
		return warn(name+" is "+v, "merged parts lose their projections: rollups, balance and comparison grow slow", mend)
	})
}

// deleteMode: a DELETE (an erasure) is refused, or takes the projections along.
// https://clickhouse.com/docs/operations/settings/merge-tree-settings#lightweight_mutation_projection_mode
func deleteMode(c ClickHouse, t Table) *Finding {
	const name = "lightweight_mutation_projection_mode"
	return of(c.setting(t, name), func(v string) *Finding {
		if v == "rebuild" {
			return nil
		}
		return warn(name+" is "+v, "a DELETE is refused, or leaves parts without their projections",
			fmt.Sprintf("ALTER TABLE %s MODIFY SETTING %s = 'rebuild';", schema.EventLog, name))
	})
}

func tableReadOnly(c ClickHouse, name string, t Table) *Finding {
	v := c.setting(t, "table_readonly")
	if v.Err != nil && c.MergeTree.Err == nil {
		return nil // an older server, which cannot have it set
	}
	return of(v, func(v string) *Finding {
		if v != "1" {
			return nil
		}
		return warn("the table is read-only (table_readonly = 1)", "every partition halts at its next batch",
			fmt.Sprintf("ALTER TABLE %s MODIFY SETTING table_readonly = 0;", name))
	})
}

// fsync: an INSERT is acknowledged when its part is in the page cache, unless
// both are set. https://clickhouse.com/docs/operations/settings/merge-tree-settings#fsync_after_insert
func fsync(c ClickHouse, name string, t Table) *Finding {
	var off []string
	for _, setting := range []string{"fsync_after_insert", "fsync_part_directory"} {
		v := c.setting(t, setting)
		if v.Err != nil {
			return unknown(v.Err)
		}
		if v.Value != "1" {
			off = append(off, setting)
		}
	}
	if len(off) == 0 {
		return nil
	}
	return refuse(strings.Join(off, " and ")+" not set", "a power failure takes rows whose journal entry stays, and nothing looks for them again",
		fmt.Sprintf("ALTER TABLE %s MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;", name))
}

// oldParts: a merged part is not flushed; what it was merged from is kept this
// long, and stands in for it after a power failure.
// https://clickhouse.com/docs/operations/settings/merge-tree-settings#old_parts_lifetime
func oldParts(c ClickHouse, name string, t Table) *Finding {
	synced, lifetime := c.setting(t, "min_rows_to_fsync_after_merge"), c.setting(t, "old_parts_lifetime")
	if synced.Err == nil && number(synced.Value) == 1 {
		return nil
	}
	return of(lifetime, func(v string) *Finding {
		if number(v) >= 480 {
			return nil
		}
		return refuse("old_parts_lifetime is "+v+" s", "a power failure soon after a merge takes rows that were on disk",
			fmt.Sprintf("ALTER TABLE %s MODIFY SETTING old_parts_lifetime = 480;", name))
	})
}

// replicated: https://clickhouse.com/docs/engines/table-engines/mergetree-family/replication
func replicated(name string, t Table) *Finding {
	if strings.HasPrefix(t.Engine, "Replicated") || strings.HasPrefix(t.Engine, "Shared") {
		return nil
	}
	return refuse("the engine "+t.Engine+" keeps one copy", "a machine's loss takes the table",
		fmt.Sprintf("DETACH TABLE %s;", name), fmt.Sprintf("ATTACH TABLE %s AS REPLICATED;", name), fmt.Sprintf("SYSTEM RESTORE REPLICA %s;", name))
}

// parts: an INSERT is refused at parts_to_throw_insert.
// https://clickhouse.com/docs/operations/settings/merge-tree-settings#parts_to_throw_insert
func parts(c ClickHouse, name string, t Table) *Finding {
	return of(c.Parts, func(all map[string]Parts) *Finding {
		p := all[name]
		return of(c.setting(t, "parts_to_throw_insert"), func(v string) *Finding {
			limit := number(v)
			if limit <= 0 || 2*p.Count < uint64(limit) {
				return nil
			}
			return warn(fmt.Sprintf("the table partition %s has %d parts, and INSERTs are refused at %d", p.PartitionID, p.Count, limit), "partitions halt until merges have caught up",
				fmt.Sprintf("SYSTEM START MERGES %s;", name), fmt.Sprintf("OPTIMIZE TABLE %s PARTITION ID '%s';", name, p.PartitionID))
		})
	})
}

func contains(list string, word string) bool {
	return slices.ContainsFunc(strings.Split(list, ","), func(s string) bool { return strings.TrimSpace(s) == word })
}
