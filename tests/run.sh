#!/usr/bin/env bash
# Set up the environment, then run the linters and the tests:
#
#   bash tests/run.sh [arguments of pytest]
#
# POLYNL_ENV=active uses the active Python environment instead of .venv.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/../tools/setup_env.sh"
set_up_environment data deployment docs tests
# pytest finds tests and options from here; paths among the arguments are relative to it.
cd "$ROOT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
# Files of tests side by side, on one thread each: the programs that they start would
# otherwise wait for each other's threads.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$PYTHON" -m pytest tests -n logical --maxprocesses 4 --dist loadfile \
    --no-loadscope-reorder "$@"
