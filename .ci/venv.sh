#!/bin/sh
# Makes the virtual environment that everything else is installed in, with uv in it.
#
#   sh .ci/venv.sh .venv
#
# Takes $PYTHON, or the first python3 that is new enough and can make virtual environments. Nothing global is changed.
# `make` calls this; the next step there installs what requirements.lock names.
set -eu
venv=$1

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
has_venv() { "$1" -c 'import venv, ensurepip' >/dev/null 2>&1; }

seen=''
python=''
bare=''
for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14}; do
    if version=$("$candidate" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null); then
        seen="$seen $candidate=$version"
        new_enough "$candidate" || continue
        if has_venv "$candidate"; then
            python=$candidate
            break
        fi
        bare=${bare:-$candidate}
    fi
done

if [ -z "$python" ] && [ -n "$bare" ]; then
    echo "wasmlet: $bare has no venv module, which is needed to install into $venv." >&2
    echo "  Install it (Debian, Ubuntu: apt install python3-venv) and run make again." >&2
    exit 1
elif [ -z "$python" ]; then
    echo "wasmlet: Python 3.11 or newer is needed; found:${seen:- none}." >&2
    echo "  Install one (Debian, Ubuntu: apt install python3 python3-venv)," >&2
    echo "  or say where it is: make demo PYTHON=/path/to/python3" >&2
    exit 1
fi

echo "==> Making $venv with $("$python" --version)"
"$python" -m venv --clear "$venv"

echo "==> Installing uv into $venv"
# uv's own lines of the lock, so that its hash is checked too.
sed -n '/^uv==/,/[^\\]$/p' requirements.lock >"$venv/uv.txt"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$venv/uv.txt"
