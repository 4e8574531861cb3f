#!/usr/bin/env bash
# Train every block on Nagoya FIR with three seeds, and write the tables of
# docs/real_data.md. Run it again to go on after an interruption.
#
#   bash tools/reproduce/nagoya_fir.sh [--jobs N] [--seeds N ...]
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/../setup_env.sh"
set_up_environment
mkdir -p "$ROOT/work_dirs/reproduce_nagoya_fir"
"$PYTHON" "$ROOT/tools/reproduce/nagoya_fir.py" "$@" 2>&1 |
    tee -a "$ROOT/work_dirs/reproduce_nagoya_fir/log.txt"
