#!/usr/bin/env bash
# Run the tests with the oldest PyTorch that is accepted (requirements/floor.txt):
#
#   bash tests/floor.sh [arguments of pytest]
#
# Makes or reuses .venv-floor. What is known not to work there is in docs/install.md.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
FLOOR="$PWD/.venv-floor"
[ -x "$FLOOR/bin/python" ] || python3 -m venv "$FLOOR"
"$FLOOR/bin/python" -m pip install --quiet --disable-pip-version-check \
    -r requirements/floor.txt
export PATH="$FLOOR/bin:$PATH" POLYNL_ENV=active
. tools/setup_env.sh
set_up_environment data deployment tests
if [ $# = 0 ]; then
    set -- tests/ops tests/plugins tests/backbones tests/stack tests/recognizers tests/convert
fi
exec "$PYTHON" -m pytest "$@"
