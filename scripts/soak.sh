#!/usr/bin/env bash
# Simulates clusters on all cores, for a given time, and keeps the seeds that fail.
#
#     scripts/soak.sh [--for 10m] [--keep FILE] [options of `stampede sim`]
#
# Failing seeds go to FILE (default: target/soak/failing-seeds.txt), one a line, with the commit that
# fails them: a seed means the same run only as long as the code is the same. The exit status is that
# of the simulator: 0 only if nothing failed. Memory is bounded at a third of the machine's by the
# number of simulations at once (about 400 MB each).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

duration=10m
keep=${CARGO_TARGET_DIR:-target}/soak/failing-seeds.txt
rest=()
while (($# > 0)); do
    case $1 in
        --for) duration=${2:?--for needs a duration, like 10m}; shift 2 ;;
        --keep) keep=${2:?--keep needs a file}; shift 2 ;;
        -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) rest+=("$1"); shift ;;
    esac
done

cores=$(nproc)
megabytes=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
jobs=$((megabytes / 3 / 400))
((jobs > cores)) && jobs=$cores
((jobs < 1)) && jobs=1

cargo build --locked --release --quiet
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
git diff --quiet HEAD 2>/dev/null || commit=$commit+changes
mkdir -p "$(dirname "$keep")"

status=0
"${CARGO_TARGET_DIR:-target}/release/stampede" sim --for "$duration" --jobs "$jobs" "${rest[@]}" |
    tee >(sed -n 's/^seed \([0-9]*\) fails: \(.*\)/\1/p' | while read -r seed; do
        printf '%s\t%s\t%s\n' "$seed" "$commit" "${rest[*]}" >>"$keep"
    done) || status=$?
if ((status != 0)); then
    printf 'failing seeds are kept in %s\n' "$keep" >&2
fi
exit "$status"
