// Package grants compares a server's roles and rights with those that the schema
// asks for.
package grants

import (
	"context"
	"errors"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	schema "sluice/schemas/clickhouse"
)

// ErrNoUsers: the server keeps no users and roles, as the local engine does not.
var ErrNoUsers = errors.New("this server keeps no users and roles")

// Missing returns the statements that are missing on the server, in order:
// roles first. [ErrNoUsers] where there is nothing to compare.
func Missing(ctx context.Context, conn driver.Conn, database string) ([]string, error) {
	var there uint64
	err := conn.QueryRow(ctx, "SELECT count() FROM system.tables WHERE database = 'system' AND name IN ('roles', 'grants', 'settings_profiles')").Scan(&there)
	if err != nil {
		return nil, fmt.Errorf("looking for users and roles: %w", err)
	}
	if there < 3 {
		return nil, ErrNoUsers
	}
	roles, err := names(ctx, conn, "SELECT name FROM system.roles UNION ALL SELECT concat('profile ', name) FROM system.settings_profiles")
	if err != nil {
		return nil, err
	}
	given, err := rights(ctx, conn)
	if err != nil {
		return nil, err
	}
	return missing(database, roles, given), nil
}

// right is what a role has; empty database and table mean all.
type right struct{ role, access, database, table string }

func missing(database string, roles map[string]bool, given map[right]bool) []string {
	var out []string
	statements := schema.AccessStatements(database)
	made := []string{"profile " + schema.RoleAnalyst, schema.RoleAnalyst, schema.RoleWriter, schema.RoleOperator}
	for i, name := range made {
		if !roles[name] {
			out = append(out, statements[i])
		}
	}
	for _, g := range schema.Grants(database) {
		any := func(name string) string {
			if name == "*" {
				return ""
			}
			return name
		}
		at := right{g.Role, g.Right, any(g.Database), any(g.Table)}
		if !given[at] && !given[right{at.role, at.access, at.database, ""}] && !given[right{at.role, at.access, "", ""}] && !given[right{at.role, "ALL", "", ""}] {
			out = append(out, g.String())
		}
	}
	return out
}

func names(ctx context.Context, conn driver.Conn, query string) (map[string]bool, error) {
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("the server's roles: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	out := map[string]bool{}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, fmt.Errorf("the server's roles: %w", err)
		}
		out[name] = true
	}
	return out, rows.Err()
}

// rights are what roles have on whole tables; a right on some columns is none.
func rights(ctx context.Context, conn driver.Conn) (map[right]bool, error) {
	rows, err := conn.Query(ctx, `
		SELECT assumeNotNull(role_name), toString(access_type), ifNull(database, ''), ifNull(table, '') FROM system.grants
		WHERE role_name IS NOT NULL AND column IS NULL AND is_partial_revoke = 0`)
	if err != nil {
		return nil, fmt.Errorf("the server's rights: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err below tells
	out := map[right]bool{}
	for rows.Next() {
		var r right
		if err := rows.Scan(&r.role, &r.access, &r.database, &r.table); err != nil {
			return nil, fmt.Errorf("the server's rights: %w", err)
		}
		out[r] = true
	}
	return out, rows.Err()
}
