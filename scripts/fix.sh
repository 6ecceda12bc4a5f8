#!/usr/bin/env bash
# Repairs what `scripts/test.sh` would complain about and a tool can repair: format, and the lints
# that have a machine-applicable answer. Writes into the tree; look at the difference afterwards.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged --quiet -- -D warnings || true
cargo fmt --all
