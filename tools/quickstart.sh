#!/usr/bin/env bash
# The main job, from a bare clone: install, generate the Bookends videos, train a small
# recognizer without and with PolyNL3d, evaluate both, and write a table and a picture.
#
#   bash tools/quickstart.sh [--fast] [--seed N] [--work-dir DIR]
#
# POLYNL_ENV=active uses the active Python environment instead of .venv.
set -euo pipefail

case " $* " in
    *" -h "* | *" --help "*)
        sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
esac
. "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
set_up_environment
exec "$PYTHON" "$ROOT/tools/quickstart.py" "$@"
