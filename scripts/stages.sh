#!/usr/bin/env bash
# Where the time of a transfer goes: processor time of each thread of a replica under full load, and, where
# `perf` is there, what it was spent on. The table of docs/performance.md is made of this.
#
#   scripts/stages.sh                            one replica, 10 million transfers, one client
#   scripts/stages.sh --replicas 3 --clients 8
#
# Servers and load generator share this machine's cores; data below --dir [target/bench]. Processor time is
# counted, not the clock, so a busy machine disturbs it little.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

replicas=1
clients=1
transfers=10000000
target="${CARGO_TARGET_DIR:-$PWD/target}"
dir="$target/bench"
while (($#)); do
    case $1 in
        --replicas | --clients | --dir)
            (($# >= 2)) || { echo "stages.sh: $1 needs a value" >&2; exit 2; }
            declare "${1#--}=$2"
            shift
            ;;
        --help | -h)
            sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        *) echo "stages.sh: unknown option $1 (see --help)" >&2; exit 2 ;;
    esac
    shift
done
cargo build --release --locked --bin stampede
stampede=$target/release/stampede
mkdir -p "$dir"
data=$(mktemp -d "$dir/stages.XXXXXX")
pids=()
finish() {
    kill -KILL "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$data"
}
trap finish EXIT

addresses=
for ((i = 0; i < replicas; i++)); do addresses+="${addresses:+,}$((3941 + i))"; done
for ((i = 0; i < replicas; i++)); do
    "$stampede" format --quiet --cluster 0 --replica "$i" --replica-count "$replicas" "$data/$i" >/dev/null
    "$stampede" start --addresses "$addresses" "$data/$i" 2>"$data/$i.log" &
    pids+=($!)
done
until grep -qs 'serving: primary' "$data"/*.log; do sleep 0.01; done

# Name and ticks in user mode and in the kernel, of each thread of the primary.
threads() {
    local task
    for task in /proc/"${pids[0]}"/task/*; do
        sed 's/.*(\(.*\)) \(.*\)/\1 \2/' "$task/stat" | awk '{ print $1, $13, $14 }'
    done
}
threads >"$data/before"
if command -v perf >/dev/null; then
    perf record -q -o "$data/perf" -F 1999 -p "${pids[0]}" 2>/dev/null >/dev/null &
    perf=$!
    sleep 0.2
fi
"$stampede" bench --addresses "$addresses" --transfers "$transfers" --clients "$clients" --no-progress --no-verify |
    grep -E 'load|clients|throughput'
threads >"$data/after"
[[ -z ${perf:-} ]] || { kill -INT "$perf"; wait "$perf" 2>/dev/null || true; }

tick=$(getconf CLK_TCK)
printf '\nprocessor time of the primary, ns per transfer\n\n%-12s %8s %8s %8s\n' thread user kernel both
awk -v n="$transfers" -v tick="$tick" '
    NR == FNR { user[$1] -= $2; kernel[$1] -= $3; next }
    { user[$1] += $2; kernel[$1] += $3 }
    END {
        for (t in user) {
            u = user[t] / tick * 1e9 / n; k = kernel[t] / tick * 1e9 / n
            if (u + k >= 0.5) printf "%-12s %8.1f %8.1f %8.1f\n", t, u, k, u + k
        }
    }' "$data/before" "$data/after" | sort -k4 -n -r | tee "$data/threads"

[[ -n ${perf:-} ]] || exit 0
printf '\nof that, by what it was spent on (sampled)\n\n%-12s %-44s %8s\n' thread on ns
perf report -i "$data/perf" --no-children --stdio -g none -s comm,sym 2>/dev/null | awk -v threads="$data/threads" '
    BEGIN { while ((getline line < threads) > 0) { split(line, f, " "); all += f[4] } }
    /^ +[0-9.]+%/ {
        share = $1; sub("%", "", share); comm = $2; $1 = $2 = $3 = ""; sym = $0
        what = "the rest"
        if (comm == "executor") {
            if (sym ~ /[Ii]ndex|[Pp]ostings/) what = "index: ids and postings"
            else if (sym ~ /create|apply|books|history|opening/) what = "execute: check and apply"
            else if (sym ~ /clear_page|fault|folio|alloc/) what = "first touch of memory"
            else if (sym ~ /query|lookup/) what = "reads"
        } else if (comm == "replica") {
            if (sym ~ /verify_body|aegis|xxh3|checksum/) what = "checksums of messages"
            else if (sym ~ /copy_to_iter|tcp_recv|skb_copy|recvmsg|inet_recv/) what = "receive"
            else if (sym ~ /sendmsg|copy_from_iter|tcp_write|tcp_transmit|__tcp/) what = "send and reply"
            else if (sym ~ /ext4|iomap|bio|blk|virt|dio|submit|jbd2|xfs/) what = "journal writes"
            else if (sym ~ /stampede::vsr|stampede::replica/) what = "replica and protocol"
        } else if (comm == "builder") {
            if (sym ~ /xxh3/) what = "checksums of checkpoint files"
            else if (sym ~ /pack/) what = "packing of rows"
            else what = "writing of checkpoint files"
        } else if (comm == "librarian") {
            if (sym ~ /xxh3|scrub|iomap|dio|ext4|xfs/) what = "scrub"
            else what = "first touch of memory, ahead of the executor"
        }
        sum[comm "\t" what] += share
    }
    END {
        for (key in sum) if (sum[key] * all / 100 >= 0.5) {
            split(key, k, "\t")
            printf "%-12s %-44s %8.1f\n", k[1], k[2], sum[key] * all / 100
        }
    }' | sort -k1,1 -k3 -n -r
