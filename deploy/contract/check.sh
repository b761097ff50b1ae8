#!/usr/bin/env bash
# Runs schemathesis against an edge with a broker of its own, both on free ports
# and on data that is removed afterwards. Called by "make contract"; EXAMPLES=
# bounds what is tried of each operation.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

venv=.local/contract
bin=.local/bin
if [ ! -x "$venv/bin/schemathesis" ] || ! cmp -s deploy/contract/requirements.txt "$venv/requirements.txt"; then
	command -v python3 >/dev/null || { echo 'Python 3 with venv is needed: apt-get install python3-venv' >&2; exit 1; }
	echo 'installing schemathesis into .local/contract, once' >&2
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check -r deploy/contract/requirements.txt
	cp deploy/contract/requirements.txt "$venv/requirements.txt"
fi

dir=$(mktemp -d)
pids=()
finish() {
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait 2>/dev/null || true
	rm -rf "$dir"
}
trap finish EXIT
read -r kafka http admin < <(python3 - <<'PY'
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(s.getsockname()[1] for s in held))
PY
)
"$bin/broker" --port "$kafka" --data "$dir/broker" >"$dir/broker.log" 2>&1 &
pids+=($!)
export SLUICE_KAFKA_BROKERS=127.0.0.1:$kafka
export SLUICE_SPOOL_DIR=$dir/spool
for _ in $(seq 50); do
	"$bin/consumer" topics ensure >"$dir/topics.log" 2>&1 && break
	sleep 0.2
done
"$bin/ingest" --http.address "127.0.0.1:$http" --admin.address "127.0.0.1:$admin" >"$dir/ingest.log" 2>&1 &
pids+=($!)
ready=
for _ in $(seq 50); do
	if curl -fs -o /dev/null "http://127.0.0.1:$http/readyz"; then ready=1; break; fi
	sleep 0.2
done
[ -n "$ready" ] || { echo 'the edge did not become ready:' >&2; cat "$dir/broker.log" "$dir/topics.log" >&2; tail -3 "$dir/ingest.log" >&2; exit 1; }

"$venv/bin/schemathesis" --config-file deploy/contract/schemathesis.toml run "http://127.0.0.1:$http/openapi.yaml" \
	--url "http://127.0.0.1:$http" --max-examples "${EXAMPLES:-200}" --phases examples,coverage,fuzzing --checks all --workers 1 --no-color "$@"
if grep -E 'level=ERROR|panic' "$dir/ingest.log"; then
	echo 'the edge logged errors' >&2
	exit 1
fi
