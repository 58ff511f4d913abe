#!/bin/sh
# Build board images with PlatformIO and this system's compilers: build.sh [ENVIRONMENT ...]
# The images end up in build/firmware/ENVIRONMENT/firmware.elf (native: program). PIO_ARGS is handed to
# `pio run`. With PLATFORMIO_CORE_DIR set, that core directory and the registry are used instead.
set -eu
cd "$(dirname "$0")/../.."
home=build/platformio
requirements=tools/platformio/requirements.txt
mkdir -p "$home"
# One build at a time: all environments share .pio. Tests build from several processes.
if command -v flock >/dev/null; then
    exec 9>"$home/lock"
    flock 9
fi
if [ ! -x "$home/venv/bin/pio" ] || ! cmp -s "$requirements" "$home/requirements.txt"; then
    python=$(tools/build/find_python.sh)
    "$python" -m venv "$home/venv"
    "$home/venv/bin/python" -m pip --disable-pip-version-check install --quiet -r "$requirements"
    cp "$requirements" "$home/requirements.txt"
fi
export PLATFORMIO_SETTING_ENABLE_TELEMETRY=no PLATFORMIO_DISABLE_UPGRADE_CHECK=true
if [ -z "${PLATFORMIO_CORE_DIR:-}" ]; then
    "$home/venv/bin/python" tools/platformio/seed.py "$home/core"
    export PLATFORMIO_CORE_DIR="$PWD/$home/core"
fi
[ $# -gt 0 ] || set -- nucleo_f446re nucleo_f446re_imu disco_f407vg black_f407ve native
for name in "$@"; do
    # shellcheck disable=SC2086
    "$home/venv/bin/pio" run --silent -e "$name" ${PIO_ARGS:-}
    mkdir -p "build/firmware/$name"
    for file in firmware.elf firmware.bin firmware.map program; do
        if [ -f ".pio/build/$name/$file" ]; then
            cp -p ".pio/build/$name/$file" "build/firmware/$name/$file"
        fi
    done
done
