#!/usr/bin/env bash
# Builds Stampede, starts a cluster on this machine, sends it a million transfers, and says how fast
# that was. Afterwards the cluster is stopped and its data removed.
#
#   scripts/bench.sh                              a million transfers, three replicas
#   scripts/bench.sh --transfers 10m --replicas 1
#   scripts/bench.sh --sweep                      100, 1k, 10k, 100k, 1m and 10m in one report
#   scripts/bench.sh -- --workload zipfian --clients 8
#   scripts/bench.sh --suite ledger               every figure of the ledger, each beside its aim (--help too)
#
# Options:
#   --transfers COUNT   transfers to create: 100, 1k, 10k, 100k, 1m, 10m, ...        [1m]
#   --replicas N        1, 3, 5 or 6                                                 [3]
#   --sweep             all six sizes, one after the other, on one cluster
#   --dir DIR           where the data goes; must be on a disk           [target/bench]
#   --base-port PORT    first of N ports                          [the first free of 3001..]
#   --results DIR       where JSON and HTML go                                 [results]
#   --keep              leave the data and logs where they are
#   --                  everything after it goes to `stampede bench` (see its --help)
#
# STAMPEDE=path/to/stampede in the environment uses that program instead of building one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

transfers=1m
replicas=3
sweep=no
target="${CARGO_TARGET_DIR:-$PWD/target}"
dir="$target/bench"
base_port=
results=results
keep=no
extra=()

die() {
    printf 'bench.sh: %s\n' "$*" >&2
    exit 2
}

usage() { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }

if [[ ${1:-} == --suite ]]; then
    suite=${2:-}
    [[ $suite =~ ^[a-z]+$ && -x scripts/suites/$suite.sh ]] ||
        die "--suite $suite: there is $(basename -s .sh -a scripts/suites/*.sh | paste -sd' ')"
    exec "scripts/suites/$suite.sh" "${@:3}"
fi

while (($#)); do
    case $1 in
        --transfers | --replicas | --dir | --base-port | --results)
            (($# >= 2)) || die "$1 needs a value"
            declare "$(tr - _ <<<"${1#--}")=$2"
            shift
            ;;
        --sweep) sweep=yes ;;
        --keep) keep=yes ;;
        --help | -h)
            usage
            exit 0
            ;;
        --)
            shift
            extra=("$@")
            break
            ;;
        *) die "unknown option $1 (options of the load generator go after --; see --help)" ;;
    esac
    shift
done
case $replicas in 1 | 3 | 5 | 6) ;; *) die "--replicas $replicas: use 1, 3, 5 or 6" ;; esac
[[ -z $base_port || $base_port =~ ^[0-9]+$ ]] || die "--base-port $base_port is not a port"

# Memory is not a disk: figures from it would say nothing, and direct I/O does not work on it.
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
file_system=$(stat --file-system --format %T "$dir")
case $file_system in
    tmpfs | ramfs)
        die "$dir is in memory ($file_system): name a directory on a real disk with --dir"
        ;;
esac
file_system=$(df --output=fstype "$dir" | tail -n 1)
device=$(df --output=source "$dir" | tail -n 1)

if [[ -n ${STAMPEDE:-} ]]; then
    stampede=$STAMPEDE
    [[ -x $stampede ]] || die "STAMPEDE=$stampede is not a program"
else
    cargo build --release --locked --bin stampede
    stampede=$target/release/stampede
fi

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

ports_free() {
    local port
    for ((port = $1; port < $1 + replicas; port++)); do
        if listening "$port"; then return 1; fi
    done
}

if [[ -n $base_port ]]; then
    ports_free "$base_port" ||
        die "one of the ports from $base_port on is in use: choose another --base-port"
else
    base_port=3001
    until ports_free "$base_port"; do
        base_port=$((base_port + 10))
        ((base_port < 32000)) || die "no $replicas free ports in a row: name one with --base-port"
    done
fi

data=$(mktemp -d "$dir/cluster.XXXXXX")
pids=()
addresses=
for ((i = 0; i < replicas; i++)); do
    addresses+="${addresses:+,}127.0.0.1:$((base_port + i))"
done

# Runs whatever happened: shows why it failed, stops what was started, removes what was written.
finish() {
    local status=$? i pid
    trap - EXIT
    # 2 is a command line that cannot be run: the replicas know nothing about that.
    if ((status != 0 && status != 2)); then
        for ((i = 0; i < replicas; i++)); do
            [[ -s $data/$i.log ]] || continue
            printf '\nlast lines of replica %s (port %s):\n' "$i" "$((base_port + i))" >&2
            tail -n 20 "$data/$i.log" >&2
        done
    fi
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do
        # Ten seconds to stop in order, then without asking.
        for ((i = 0; i < 100; i++)); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        if kill -KILL "$pid" 2>/dev/null; then
            printf 'bench.sh: process %s did not stop within 10 s and was killed\n' "$pid" >&2
        fi
        wait "$pid" 2>/dev/null || true
    done
    if [[ $keep == yes ]]; then
        printf 'data and logs are in %s\n' "$data" >&2
    else
        rm -rf "$data"
    fi
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for ((i = 0; i < replicas; i++)); do
    "$stampede" format --cluster 0 --replica "$i" --replica-count "$replicas" "$data/$i" \
        >"$data/$i.log" 2>&1
done
for ((i = 0; i < replicas; i++)); do
    "$stampede" start --addresses "$addresses" "$data/$i" >>"$data/$i.log" 2>&1 &
    pids+=($!)
done

# Half a minute to be there; a replica that ended is not going to be.
for ((i = 0; i < replicas; i++)); do
    for ((tries = 0; ; tries++)); do
        if listening $((base_port + i)); then break; fi
        if ! kill -0 "${pids[i]}" 2>/dev/null; then
            printf 'bench.sh: replica %s ended instead of starting\n' "$i" >&2
            exit 3
        fi
        if ((tries == 300)); then
            printf 'bench.sh: replica %s does not listen after 30 s\n' "$i" >&2
            exit 3
        fi
        sleep 0.1
    done
done

commit=$(git describe --always --dirty 2>/dev/null || echo unknown)
note="journaled on $(((replicas + 1) / 2)) of $replicas replicas before each acknowledgement; "
((replicas > 1)) || note="journaled before each acknowledgement; "
note+="all on this machine, $file_system on $device; commit $commit"
stamp=$(date -u +%Y%m%d-%H%M%S)
mkdir -p "$results"

bench() {
    "$stampede" bench --addresses "$addresses" --cluster 0 --note "$note" "$@"
}

if [[ $sweep == yes ]]; then
    files=()
    for size in 100 1k 10k 100k 1m 10m; do
        file=$results/sweep-$stamp-$size.json
        bench --transfers "$size" --label "$size transfers" --json "$file" "${extra[@]}"
        files+=("$file")
    done
    "$stampede" bench report "${files[@]}" --html "$results/sweep-$stamp.html"
    printf '\nresults: %s/sweep-%s*.json, %s/sweep-%s.html\n' "$results" "$stamp" "$results" "$stamp"
else
    name=$results/bench-$stamp-$transfers
    bench --transfers "$transfers" --label "$transfers transfers" --disk-probe "$data" \
        --json "$name.json" --html "$name.html" "${extra[@]}"
    printf '\nresults: %s.json, %s.html\n' "$name" "$name"
fi
