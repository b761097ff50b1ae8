package clickhouse

import "strings"

// PromotedComment begins the comment of a column of [EventLog] that was promoted
// from a member of the payload; the member's name follows, as in
// "promoted: page_view.duration_ms". What has such a comment belongs to the table.
const PromotedComment = "promoted: "

const eventColumns = "event_id, client_event_id, source, event_type, actor_id, occurred_at, payload, payload_text, received_at, inserted_at, topic_id, partition, offset"

// EventsViews make [Events] and [EventsPhysical] with promoted columns behind their
// own; with none, as the migrations make them. Each may be run again.
func EventsViews(promoted []string) []string {
	columns := strings.Join(append([]string{eventColumns}, promoted...), ", ")
	return []string{
		"CREATE OR REPLACE VIEW " + Events + " AS\nSELECT " + columns + "\nFROM " + EventLog + " FINAL",
		"CREATE OR REPLACE VIEW " + EventsPhysical + " AS\nSELECT " + columns + "\nFROM " + EventLog,
	}
}
