#!/usr/bin/env bash
# Does everything CI does: format, lints, all tests, process tests, the official clients.
#
# Needs a Rust toolchain and nothing else; what it installs (clients from PyPI and npm) goes below
# target/. Never writes into the tree: `scripts/fix.sh` is the one that repairs. What cannot run on
# this machine is named and counted as skipped. The last line is
#
#     N passed, N failed, N skipped
#
# and the exit status is 0 only if nothing failed. Every check runs, whatever failed before it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target="${CARGO_TARGET_DIR:-$PWD/target}"
work="$target/test-sh"
mkdir -p "$work"
export CARGO_TARGET_DIR="$target"

passed=0
failed=0
skipped=0
notes=()

say() { printf '\n== %s\n' "$*"; }
pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    notes+=("failed: $*")
}
skip() {
    skipped=$((skipped + 1))
    notes+=("skipped: $*")
    printf 'skipped: %s\n' "$*"
}

# One check is one command.
check() {
    local name=$1
    shift
    say "$name"
    if "$@"; then pass; else fail "$name"; fi
}

# Runs `cargo test` with the given arguments and adds up what every test binary reports.
# Sets `ignored` to the number of tests that were not asked to run.
ignored=0
cargo_test() {
    local name=$1 log="$work/$1.log" status=0 p f i
    shift
    say "cargo test $*"
    # 12 minutes, once it is compiled: a test that hangs is a failure, not a run without an end.
    { cargo test --locked --no-run "$@" && timeout 720 cargo test --locked --no-fail-fast "$@"; } 2>&1 |
        tee "$log" || status=$?
    read -r p f i < <(awk '/^test result:/ { p += $4; f += $6; i += $8 } END { print p + 0, f + 0, i + 0 }' "$log")
    passed=$((passed + p))
    failed=$((failed + f))
    ignored=$i
    if ((f > 0)); then
        notes+=("failed: $f tests of cargo test $*; see $log")
    elif ((status != 0)); then
        fail "cargo test $* (status $status; see $log)"
    fi
}

tree_before=$(git status --porcelain 2>/dev/null || true)

if cargo fmt --version >/dev/null 2>&1; then
    check "cargo fmt --check" cargo fmt --all --check
else
    skip "format: rustup component add rustfmt"
fi
if cargo clippy --version >/dev/null 2>&1; then
    check "cargo clippy" cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
else
    skip "lints: rustup component add clippy"
fi

# The other architecture must keep compiling; only where its standard library is installed.
arm=$(rustup target list --installed 2>/dev/null | grep '^aarch64-unknown-linux' | head -n 1 || true)
if [[ -n $arm ]]; then
    check "cargo check for $arm" cargo check --locked --workspace --quiet --target "$arm"
else
    skip "aarch64: rustup target add aarch64-unknown-linux-gnu"
fi

cargo_test workspace --workspace
unasked=$ignored

# Known mistakes, made one by one: the simulator must find every one of them.
cargo_test mutants --workspace --features stampede/mutants --test mutants -- --nocapture

# --- official clients -----------------------------------------------------------------------------

# A virtual environment with one release of the Python client; prints its interpreter.
python_with_client() {
    local release=$1 environment="$work/python-$1"
    local python="$environment/bin/python"
    command -v python3 >/dev/null || return 1
    if ! "$python" -c 'import tigerbeetle' 2>/dev/null; then
        rm -rf "$environment"
        if ! python3 -m venv "$environment" >/dev/null 2>&1; then
            # Debian and its relatives ship venv apart.
            [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 1
            { apt-get update -q && apt-get install -q -y python3-venv; } >/dev/null 2>&1 || return 1
            python3 -m venv "$environment" >/dev/null || return 1
        fi
        "$python" -m pip install --quiet --disable-pip-version-check "tigerbeetle==$release" >&2 || return 1
    fi
    printf '%s\n' "$python"
}

# A directory with the Node client in its node_modules; prints it.
node_with_client() {
    local release=$1 directory="$work/node-$1"
    command -v node >/dev/null && command -v npm >/dev/null || return 1
    if [[ ! -d $directory/node_modules/tigerbeetle-node ]]; then
        mkdir -p "$directory"
        npm install --silent --no-audit --no-fund --prefix "$directory" "tigerbeetle-node@$release" >&2 || return 1
    fi
    printf '%s\n' "$directory"
}

# Runs the tests of one client, which are marked `#[ignore]` because they need it.
official() {
    local test=$1 variable=$2 place=$3
    local before=$passed
    export "$variable=$place"
    # Of the whole workspace: with other features everything would be compiled once more.
    cargo_test "$test" --workspace --test processes -- --ignored --exact "official::$test"
    ((passed > before)) || fail "official::$test has not passed"
    unasked=$((unasked - 1))
}

for release in 0.17.9 0.16.78 0.16.34; do
    name=${release//./_}
    if python=$(python_with_client "$release"); then
        official "python_$name" "STAMPEDE_TEST_PYTHON_$name" "$python"
    else
        notes+=("skipped: the official Python client $release: needs python3 with venv and PyPI")
    fi
done
if directory=$(node_with_client 0.17.9); then
    official node_0_17_9 STAMPEDE_TEST_NODE_0_17_9 "$directory"
else
    notes+=("skipped: the official Node client 0.17.9: needs node, npm and the npm registry")
fi

# --- what is left ---------------------------------------------------------------------------------

tree_after=$(git status --porcelain 2>/dev/null || true)
check "the tree is as it was" test "$tree_before" == "$tree_after"

skipped=$((skipped + unasked))
echo
for note in "${notes[@]}"; do printf '%s\n' "$note"; done
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
((failed == 0))
