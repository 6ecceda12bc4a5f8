#!/usr/bin/env bash
# Measures every figure that the README states, on this machine, and prints each beside its aim.
# Takes about five minutes and 10 GiB of disk below --dir.
#
#   scripts/figures.sh                 all of them
#   scripts/figures.sh --dir DIR       data on another disk                      [target/bench]
#
# Servers and load generator share this machine's cores. What is above is measured by
# `scripts/bench.sh`, the journal against fio by its own benchmark, the restart here.
# Exits with 1 when a figure misses its aim: on a busy machine that says little, so look twice.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target="${CARGO_TARGET_DIR:-$PWD/target}"
dir="$target/bench"
while (($#)); do
    case $1 in
        --dir)
            (($# >= 2)) || { echo "figures.sh: --dir needs a value" >&2; exit 2; }
            dir=$2
            shift
            ;;
        --help | -h)
            sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        *)
            echo "figures.sh: unknown option $1 (see --help)" >&2
            exit 2
            ;;
    esac
    shift
done

cargo build --release --locked --bin stampede
cargo build --release --locked -p stampede-journal --example bench
export STAMPEDE=$target/release/stampede
log=$(mktemp)
trap 'rm -f "$log"' EXIT

rows=()
missed=0
# row NAME MEASURED UNIT (at-least|at-most) AIM
row() {
    local verdict=met
    awk -v m="$2" -v a="$5" -v k="$4" 'BEGIN { exit !(k == "at-least" ? m >= a : m <= a) }' || {
        verdict=MISSED
        missed=$((missed + 1))
    }
    rows+=("$(printf '%-58s %12s %-6s %-8s %12s  %s' "$1" "$2" "$3" "${4/-/ }" "$5" "$verdict")")
}

run() {
    printf '\n== bench.sh %s\n' "$*"
    scripts/bench.sh --dir "$dir" "$@" | tee "$log"
}
throughput() { awk '/^ *throughput/ { gsub(",", "", $2); print $2 }' "$log"; }
# Column 1 to 7: p1 p50 p90 p99 p99.9 p99.99 max, in milliseconds.
latency() { awk -v c="$1" '/^ *batch latency/ { getline; print $c }' "$log"; }
stall() { awk '/^ *longest stall/ { print ($4 == "s" ? $3 * 1000 : $3) }' "$log"; }
floor() { sed -n 's/.*: \([0-9.]*\) times the disk.*/\1/p' "$log"; }

run --replicas 1 --transfers 10m
row "one replica, 10 million transfers, full batches" "$(throughput)" tx/s at-least 1500000
row "  longest stall, checkpoints included" "$(stall)" ms at-most 100
run --replicas 3 --transfers 10m
row "three replicas, 10 million transfers, full batches" "$(throughput)" tx/s at-least 600000
row "  longest stall, checkpoints included" "$(stall)" ms at-most 100
run --replicas 1 --transfers 10m -- --clients 1
row "one replica, one client, full batches: p99" "$(latency 4)" ms at-most 15
run --replicas 3 --transfers 10m -- --clients 1
row "three replicas, one client, full batches: p99" "$(latency 4)" ms at-most 40
run --replicas 1 --transfers 10k -- --clients 1 --batch 1
row "one replica, batches of 1, p50 / 4 KiB synced write p50" "$(floor)" times at-most 2

printf '\n== journal against fio\n'
if command -v fio >/dev/null; then
    # It ends with 1 when a ratio misses its target; the rows below say so too.
    "$target/release/examples/bench" --dir "$dir" | tee "$log" || true
    ratio() { awk -v c="$1 " 'index($0, c) == 1 { seen = 1 } seen && $1 == "ratio" { print $2; exit }' "$log"; }
    for depth in 1 2 4; do
        row "journal, 1 MiB, depth $depth, writes against fio's" "$(ratio "1 MiB, depth $depth")" times at-least 0.9
    done
    for depth in 1 32; do
        row "journal, 4 KiB, depth $depth, writes against fio's" "$(ratio "4 KiB, depth $depth")" times at-least 0.8
    done
else
    echo "skipped: fio is not installed (apt-get install fio)"
fi

printf '\n== restart after kill -9 with 10 million transfers\n'
data=$(mktemp -d "$dir/restart.XXXXXX")
pid=
cleanup() {
    [[ -z $pid ]] || kill -KILL "$pid" 2>/dev/null || true
    rm -rf "$data" "$log"
}
trap cleanup EXIT
port=3901
"$STAMPEDE" format --cluster 0 --replica 0 --replica-count 1 "$data/0"
"$STAMPEDE" start --addresses "$port" "$data/0" 2>"$data/log" &
pid=$!
"$STAMPEDE" bench --addresses "$port" --transfers 10m --no-progress
kill -KILL "$pid"
wait "$pid" 2>/dev/null || true
began=$(date +%s%N)
"$STAMPEDE" start --addresses "$port" "$data/0" 2>"$data/log" &
pid=$!
# The first reply: a whole small run, connection and account creation included.
"$STAMPEDE" bench --addresses "$port" --transfers 1 --batch 1 --accounts 2 --clients 1 \
    --no-verify --no-progress >/dev/null
restart=$(awk -v a="$began" -v b="$(date +%s%N)" 'BEGIN { printf "%.2f", (b - a) / 1e9 }')
row "restart with 10 million transfers: first reply after" "$restart" s at-most 3
kill -TERM "$pid"
wait "$pid"
pid=

printf '\n%-58s %12s %-6s %-8s %12s\n' figure measured "" aim ""
printf '%s\n' "${rows[@]}"
((missed == 0))
