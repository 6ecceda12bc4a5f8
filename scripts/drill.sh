#!/usr/bin/env bash
# Builds Stampede and plays drills on live clusters: real processes, real disks, real clients; something
# is done to the cluster, and afterwards every acknowledged transfer is looked up.
#
#   scripts/drill.sh list                     what there is
#   scripts/drill.sh primary-crash            one drill
#   scripts/drill.sh power-loss --runs 200    the fault repeated
#   scripts/drill.sh all                      the lot, with a table at the end
#
# Everything after the names goes to `stampede drill` (see its --help). Without --dir the data goes below
# target/drill; without --json and --html a report of each goes to results/. The exit status is 0 only if
# no drill failed; a failed one leaves its data and logs and says where. docs/drills.md says what each
# proves.
#
# STAMPEDE=path/to/stampede in the environment uses that program instead of building one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }

case ${1:-} in
    '' | --help | -h)
        usage
        exit 0
        ;;
esac

target="${CARGO_TARGET_DIR:-$PWD/target}"
if [[ -n ${STAMPEDE:-} ]]; then
    stampede=$STAMPEDE
    if [[ ! -x $stampede ]]; then
        printf 'drill.sh: STAMPEDE=%s is not a program\n' "$stampede" >&2
        exit 2
    fi
else
    cargo build --release --locked --bin stampede
    stampede=$target/release/stampede
fi

given() {
    local option=$1 argument
    shift
    for argument in "$@"; do
        [[ $argument == "$option" || $argument == "$option="* ]] && return 0
    done
    return 1
}

extra=()
given --dir "$@" || extra+=(--dir "$target/drill")
if [[ $1 != list ]]; then
    stamp=$(date -u +%Y%m%d-%H%M%S)
    for kind in json html; do
        given "--$kind" "$@" && continue
        mkdir -p results
        extra+=("--$kind" "results/drill-$stamp.$kind")
    done
fi
exec "$stampede" drill "$@" "${extra[@]}"
