#!/bin/sh
# Finds a Python and hands over to setup_env.py, which sets up the environment. Used by the Makefile.
# PYTHON names another interpreter, VENV another folder, STACK the OpenMMLab packages (onedl or openmmlab).
# Plain sh, so that a missing or an old Python ends in a sentence and not in a SyntaxError.
set -eu

fail() {
    printf 'set-up cannot start: %s\n' "$1" >&2
    printf 'What to try: %s\n' "$2" >&2
    exit 1
}

version_of() {
    "$1" -c 'import sys; sys.stdout.write("%d.%d.%d" % tuple(sys.version_info[:3]))' 2>/dev/null
}

get_python='install Python 3.11 (for example "apt install python3.11 python3.11-venv", "brew install python@3.11"
or "pyenv install 3.11") and run again, or name a Python from 3.10 to 3.13: PYTHON=/path/to/python3.11 make setup'

if [ -z "${PYTHON:-}" ]; then
    PYTHON=
    seen=
    for candidate in python3.11 python3.12 python3.13 python3.10 python3 python; do
        found=$(version_of "$candidate") || continue
        case $found in
            3.1[0-3].*) PYTHON=$candidate; break ;;
        esac
        seen="$seen${seen:+, }$candidate is Python $found"
    done
    [ -n "$PYTHON" ] || fail "no Python from 3.10 to 3.13 was found on PATH (${seen:-there is no python3 either})." \
        "$get_python"
else
    found=$(version_of "$PYTHON") || fail "PYTHON=$PYTHON is not a Python that runs." "$get_python"
    case $found in
        3.1[0-9].*) ;;
        *) fail "PYTHON=$PYTHON is Python $found, and Python 3.11 is needed, or another from 3.10 to 3.13." \
            "$get_python" ;;
    esac
fi
case $found in
    3.11.*) ;;
    *) printf 'warning: %s is Python %s; the pinned versions were tried with Python 3.11 only.\n' \
        "$PYTHON" "$found" >&2 ;;
esac

exec "$PYTHON" "$(dirname "$0")/setup_env.py" "$@"
