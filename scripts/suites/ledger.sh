#!/usr/bin/env bash
# Measures every figure of the ledger on this machine and prints each beside its aim: throughput, latency,
# queries, bytes on disk, memory, restarts, with up to a hundred million transfers.
#
#   scripts/bench.sh --suite ledger              all of it: about ten minutes, 25 GiB of disk below --dir
#   scripts/bench.sh --suite ledger --quick      without the hundred million: about three minutes, 6 GiB
#   scripts/bench.sh --suite ledger --dir DIR    data on another disk                       [target/bench]
#
# Durable means: on the disks of a quorum, with O_DIRECT and data sync, before each acknowledgement. Servers
# and load generator share this machine's cores. Unless a row says otherwise: 10 million transfers, batches of
# 8,189, 10,000 accounts drawn uniformly, ids by time, no flags. After each load every balance is compared
# with a replay. Exits with 1 when a figure misses its aim: on a busy machine that says little, so look twice.
#
# STAMPEDE=path/to/stampede in the environment uses that program instead of building one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target="${CARGO_TARGET_DIR:-$PWD/target}"
dir="$target/bench"
quick=no
die() {
    printf 'ledger.sh: %s\n' "$*" >&2
    exit 2
}
while (($#)); do
    case $1 in
        --dir)
            (($# >= 2)) || die "--dir needs a value"
            dir=$2
            shift
            ;;
        --quick) quick=yes ;;
        --help | -h)
            sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        *) die "unknown option $1 (see --help)" ;;
    esac
    shift
done

if [[ -n ${STAMPEDE:-} ]]; then
    stampede=$STAMPEDE
    [[ -x $stampede ]] || die "STAMPEDE=$stampede is not a program"
else
    cargo build --release --locked --bin stampede
    stampede=$target/release/stampede
fi
mkdir -p "$dir"
need=$([[ $quick == yes ]] && echo 8 || echo 30)
room=$(df --output=avail -BG "$dir" | tail -n 1 | tr -dc 0-9)
((room >= need)) || die "$dir has room for $room GiB, and $need are needed: name another disk with --dir"

data=
log=$(mktemp)
pids=()
finish() {
    local pid
    for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$log" ${data:+"$data"}
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

rows=()
missed=0
# row NAME MEASURED UNIT (at-least|at-most) AIM
row() {
    local verdict=met
    awk -v m="$2" -v a="$5" -v k="$4" 'BEGIN { exit !(k == "at-least" ? m >= a : m <= a) }' || {
        verdict=MISSED
        missed=$((missed + 1))
    }
    rows+=("$(printf '%-66s %12s %-5s %-8s %10s  %s' "$1" "$2" "$3" "${4/-/ }" "$5" "$verdict")")
    printf '%s\n' "${rows[-1]}"
}

base=3901
addresses=
# start REPLICAS [JOURNAL]: a fresh cluster, running.
start() {
    local i
    data=$(mktemp -d "$dir/suite.XXXXXX")
    addresses=
    replicas=$1
    for ((i = 0; i < replicas; i++)); do addresses+="${addresses:+,}$((base + i))"; done
    for ((i = 0; i < replicas; i++)); do
        "$stampede" format --quiet --cluster 0 --replica "$i" --replica-count "$replicas" \
            --journal-size "${2:-1GiB}" "$data/$i" >/dev/null
    done
    launch
}

# Starts the processes, without waiting for them.
boot() {
    local i
    pids=()
    rm -f "$data"/*.log
    for ((i = 0; i < replicas; i++)); do
        "$stampede" start --addresses "$addresses" "$data/$i" 2>"$data/$i.log" &
        pids+=($!)
    done
}

launch() {
    boot
    until grep -qs 'serving: primary' "$data"/*.log; do
        kill -0 "${pids[0]}" 2>/dev/null || { cat "$data/0.log" >&2; die "replica 0 ended"; }
        sleep 0.01
    done
}

stop() {
    local pid
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    pids=()
    rm -rf "$data"
    data=
    base=$((base + 10))
}

load() {
    printf '\n== %s replica(s): bench %s\n' "$replicas" "$*"
    "$stampede" bench --addresses "$addresses" --no-progress "$@" | tee "$log"
}
throughput() { awk '/^ *throughput/ { gsub(",", "", $2); print $2 }' "$log"; }
# Column 1 to 7: p1 p50 p90 p99 p99.9 p99.99 max, in milliseconds.
latency() { awk -v c="$1" '/^ *batch latency/ { getline; print $c }' "$log"; }
stall() { awk '/^ *longest stall/ { print ($4 == "s" ? $3 * 1000 : $3) }' "$log"; }
queries() { "$stampede" bench queries --addresses "$addresses" --json "$data/queries.json" "$@" | tee "$log"; }
query() { awk -F'[:,]' -v k="\"$1\"" '$1 ~ k { gsub(" ", "", $2); print $2 }' "$data/queries.json"; }
written() { awk '/^write_bytes/ { print $2 }' "/proc/${pids[0]}/io"; }
resident_gb() { awk '/^VmHWM/ { printf "%.2f", $2 * 1024 / 1e9 }' "/proc/${pids[0]}/status"; }
at_rest() { du -sb "$data/0/checkpoints" | cut -f1; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }
# Seconds from kill -9 to the first reply: a whole small run, connection and account creation included.
restart() {
    local began
    kill -KILL "${pids[@]}"
    wait "${pids[@]}" 2>/dev/null || true
    began=$(date +%s%N)
    boot
    "$stampede" bench --addresses "$addresses" --transfers 1 --batch 1 --accounts 2 --clients 1 \
        --no-verify --no-progress --quiet
    awk -v a="$began" -v b="$(date +%s%N)" 'BEGIN { printf "%.2f", (b - a) / 1e9 }' >"$data/restart"
}

# ── throughput, latency, sizes ──────────────────────────────────────────────────────────────────────
start 1
before=$(written)
load --transfers 10m --clients 1
rate=$(throughput)
row "one replica, one client: transfers per second" "$rate" tx/s at-least 2000000
row "  batch p99" "$(latency 4)" ms at-most 8
row "  batch maximum" "$(latency 7)" ms at-most 40
row "  bytes written per transfer, journal included" "$(ratio $(($(written) - before)) 10000000)" B at-most 280
row "  resident memory at most" "$(resident_gb)" GB at-most 0.8
row "  bytes of disk per transfer beyond the journal" "$(ratio "$(at_rest)" 10000000)" B at-most 110
restart
row "  restart after kill -9, until it serves" "$(cat "$data/restart")" s at-most 0.5
stop

start 1
load --transfers 10m --clients 8
row "one replica, eight clients: transfers per second" "$(throughput)" tx/s at-least 3000000
stop

start 3
load --transfers 10m --clients 8
row "three replicas, eight clients: transfers per second" "$(throughput)" tx/s at-least 1200000
row "  longest stall" "$(stall)" ms at-most 40
stop

start 1
load --transfers 10m --clients 1 --ids random
row "random ids, against ids by time" "$(ratio "$(throughput)" "$rate")" times at-least 0.7
stop

start 1
load --transfers 10m --clients 1 --accounts 1m
row "1 million accounts, against 10,000" "$(ratio "$(throughput)" "$rate")" times at-least 0.6
stop

# ── queries: 2,000 accounts have about 10,000 transfers each ────────────────────────────────────────
start 1
load --transfers 10m --clients 4 --accounts 2k
queries --queries 1000 --both
row "account queries of 8,189 rows, at rest: p50" "$(query p50_ms)" ms at-most 4
row "  p99" "$(query p99_ms)" ms at-most 15
"$stampede" bench --addresses "$addresses" --no-progress --quiet --duration 10s --clients 1 --accounts 2k &
loading=$!
sleep 1
queries --queries 300 --both
row "account queries of 8,189 rows, while loading: p50" "$(query p50_ms)" ms at-most 4
row "  p99" "$(query p99_ms)" ms at-most 15
wait "$loading"
stop

# ── batches of one ──────────────────────────────────────────────────────────────────────────────────
start 1
load --transfers 50k --clients 1 --batch 1
row "batches of 1, one client: p50" "$(latency 2)" ms at-most 0.5
load --transfers 1m --clients 64 --batch 1
row "batches of 1, 64 clients: requests per second" "$(throughput)" tx/s at-least 20000
row "  p99" "$(latency 4)" ms at-most 10
stop

# ── hundreds of checkpoints: a small journal has one for each 8 MiB of log ─────────────────────────
start 1 64MiB
load --transfers 20m --clients 4
row "300 checkpoints, batches of 8,189: longest stall" "$(stall)" ms at-most 40
load --transfers 600k --clients 64 --batch 1
row "300 checkpoints, batches of 1: longest stall" "$(stall)" ms at-most 40
stop

# ── a hundred million ───────────────────────────────────────────────────────────────────────────────
if [[ $quick == no ]]; then
    start 1
    load --transfers 10m --clients 4
    first=$(throughput)
    load --transfers 80m --clients 4
    load --transfers 10m --clients 4
    row "100 million transfers: the last 10 million against the first" "$(ratio "$(throughput)" "$first")" times at-least 0.9
    row "  resident memory at most" "$(resident_gb)" GB at-most 3
    row "  bytes of disk per transfer beyond the journal" "$(ratio "$(at_rest)" 100000000)" B at-most 110
    load --transfers 1m --clients 64 --batch 1
    row "  batches of 1 then, 64 clients: longest stall" "$(stall)" ms at-most 30
    restart
    row "  restart after kill -9, until it serves" "$(cat "$data/restart")" s at-most 3
    stop
fi

printf '\n%-66s %12s %-5s %-8s %10s\n' figure measured "" aim ""
printf '%s\n' "${rows[@]}"
((missed == 0))
