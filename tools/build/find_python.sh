#!/bin/sh
# Prints the Python that builds DRIP: 3.10 to 3.13 with venv and headers, a C compiler and git beside it.
# What is missing is named in one line with the command that installs it. PYTHON=... chooses one.
set -u

supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}
has_venv() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null
}
has_headers() {
    "$1" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null
}

first=""
found=""
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    supported "$candidate" || continue
    first=${first:-$candidate}
    if has_venv "$candidate" && has_headers "$candidate"; then
        found=$candidate
        break
    fi
done

missing=""
command -v git >/dev/null 2>&1 || missing="$missing git"
command -v "${CC:-cc}" >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
if [ -z "$found" ]; then
    if [ -n "$first" ]; then
        has_venv "$first" || missing="$missing $first-venv"
        has_headers "$first" || missing="$missing $first-dev"
    elif command -v "${PYTHON:-python3}" >/dev/null 2>&1; then
        version=$("${PYTHON:-python3}" -c 'import platform; print(platform.python_version())' 2>&1)
        echo "error: ${PYTHON:-python3} is $version, DRIP needs 3.10 to 3.13; install one beside it:" \
            "sudo apt-get install python3.13 python3.13-venv python3.13-dev" \
            "(or: uv python install 3.13, then make PYTHON=python3.13)" >&2
        exit 1
    else
        missing="$missing python3 python3-venv python3-dev"
    fi
fi
if [ -n "$missing" ]; then
    echo "error: missing tools; install them with: sudo apt-get install$missing" >&2
    exit 1
fi
if [ -z "${PYTHON:-}" ] && [ "$found" != python3 ]; then
    echo "note: using $found, because python3 is outside 3.10 to 3.13 or lacks venv or headers" >&2
fi
command -v "$found"
