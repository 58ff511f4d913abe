#!/bin/sh
# Runs the tests that drive the C core and the native device, with both built under ASan and UBSan.
# Usage: sanitize_tests.sh PYTHON [pytest arguments]
set -eu
python=$1
shift
compiler=${CC:-cc}
"$python" tools/build/compile_core.py --sanitize
# The interpreter itself is not instrumented, so the runtimes have to be there before it starts.
preload=""
for library in libasan.so libubsan.so; do
    path=$("$compiler" -print-file-name=$library)
    [ "$path" != "$library" ] || { echo "error: $compiler has no $library" >&2; exit 1; }
    preload="$preload $path"
done
# A run that took the ordinary extension would prove nothing.
nm -D build/sanitize/drip/_core.*so | grep -q __asan_init || {
    echo "error: build/sanitize/drip/_core is not instrumented" >&2
    exit 1
}
folders=""
for folder in tests/core tests/link tests/powerloss; do
    [ ! -d "$folder" ] || folder_has=$(find "$folder" -name 'test_*.py' | head -n 1)
    [ ! -d "$folder" ] || [ -z "$folder_has" ] || folders="$folders $folder"
done
[ -n "$folders" ] || { echo "error: no tests of the core found" >&2; exit 1; }
# CPython keeps memory until it exits: leaks are not looked for. -n 0: xdist hides a sanitizer's report.
# shellcheck disable=SC2086
ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
    LD_PRELOAD="$preload" PYTHONPATH=build/sanitize PYTHONMALLOC=malloc DRIP_SANITIZED=1 \
    "$python" -m pytest -s -p no:cacheprovider $folders "$@"
