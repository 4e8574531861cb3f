#!/usr/bin/env bash
# Train every block on Bookends with three seeds, and write a table of
# docs/bookends.md. Run it again to go on after an interruption.
#
#   bash tools/reproduce/bookends.sh [--level 2] [--blocks NAME ...] [--seeds N ...]
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/../setup_env.sh"
set_up_environment
mkdir -p "$ROOT/work_dirs/reproduce_bookends"
"$PYTHON" "$ROOT/tools/reproduce/bookends.py" "$@" 2>&1 |
    tee -a "$ROOT/work_dirs/reproduce_bookends/log.txt"
