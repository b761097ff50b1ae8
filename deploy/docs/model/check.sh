#!/bin/sh
# check.sh JAR WORK [NAME...]: runs TLC for the runs of runs.txt (all, or those
# named), prints a line of the README's table for each, and fails when one ends
# other than expected. WORKERS (2) and HEAP (4g) bound it.
set -u
jar=$1 work=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$work"
jar=$(cd "$(dirname "$jar")" && pwd)/$(basename "$jar")
work=$(cd "$work" && pwd)
failed=0 ran=0
printf '| run | expected | found | states | distinct | depth | seconds |\n|---|---|---|---|---|---|---|\n'
while IFS=: read -r name want changes; do
	case $name in '' | '#'*) continue ;; esac
	[ $# -eq 0 ] || case " $* " in *" $name "*) ;; *) continue ;; esac
	want=${want# } dir=$work/$name
	rm -rf "$dir" && mkdir -p "$dir" && cp "$here/protocol.tla" "$dir/" || exit 2
	cfg=$(cat "$here/protocol.cfg")
	for change in $changes; do
		case $change in
		+*) cfg=$(printf '%s\n' "$cfg" | sed "s/^  ${change#+} = .*/  ${change#+} = TRUE/") ;;
		INVARIANT=*) cfg=$(printf '%s\n' "$cfg" | sed "s/^INVARIANTS.*/INVARIANTS Whole ${change#*=}/") ;;
		# Symmetry is not sound for liveness.
		PROPERTY=*) cfg=$(printf '%s\nPROPERTY %s\n' "$cfg" "${change#*=}" | sed 's/^SPECIFICATION.*/SPECIFICATION Live/; /^SYMMETRY/d') ;;
		*) cfg=$(printf '%s\n' "$cfg" | sed "s/^  ${change%%=*} = .*/  ${change%%=*} = ${change#*=}/") ;;
		esac
	done
	printf '%s\n' "$cfg" >"$dir/protocol.cfg"
	began=$(date +%s)
	(cd "$dir" && exec java -Djava.io.tmpdir="$dir" -Xmx"${HEAP:-4g}" -XX:+UseParallelGC -cp "$jar" tlc2.TLC \
		-workers "${WORKERS:-2}" -nowarning -metadir "$dir/states" protocol) >"$dir/out.txt" 2>&1 </dev/null
	took=$(($(date +%s) - began))
	rm -rf "$dir/states"
	found=$(sed -n 's/^Error: Invariant \([A-Za-z]*\) is violated.*/\1/p; s/^Error: Temporal properties were violated.*/liveness/p' "$dir/out.txt" | head -1)
	if [ -z "$found" ]; then
		if grep -q 'No error has been found' "$dir/out.txt"; then found=holds; else found=failed; fi
	fi
	counts=$(sed -n 's/^\([0-9]*\) states generated, \([0-9]*\) distinct.*/\1 | \2/p' "$dir/out.txt" | tail -1)
	depth=$(sed -n 's/^The depth of the complete state graph search is \([0-9]*\).*/\1/p' "$dir/out.txt")
	printf '| %s | %s | %s | %s | %s | %s |\n' "$name" "$want" "$found" "$counts" "$depth" "$took"
	ran=$((ran + 1))
	[ "$found" = "$want" ] || { failed=1 && echo "$name: expected $want, found $found: see $dir/out.txt" >&2; }
done <"$here/runs.txt"
[ $ran -gt 0 ] || { echo "no such run: $*" >&2 && exit 2; }
exit $failed
