#!/bin/sh
# Builds the fuzz targets tests/fuzz/*.c with libFuzzer, ASan and UBSan and runs each for some seconds,
# starting from its corpus tests/fuzz/corpus/NAME. An input that fails is kept as build/fuzz/NAME-*
# and printed, so that the log of a CI run is enough to repeat it.
# Usage: fuzz.sh [SECONDS [TARGET...]]
set -eu
seconds=${1:-20}
[ $# -eq 0 ] || shift
clang=${CLANG:-clang}
command -v "$clang" >/dev/null 2>&1 || {
    echo "error: clang is missing; install it with: sudo apt-get install clang libclang-rt-dev" >&2
    exit 1
}
output=build/fuzz
flags="-std=c11 -g -O1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined
    -fno-sanitize-recover=all -I firmware/core/include"
if [ $# -eq 0 ]; then
    for target in tests/fuzz/*.c; do
        [ ! -e "$target" ] || set -- "$@" "$(basename "$target" .c)"
    done
fi
[ $# -gt 0 ] || { echo "error: no fuzz targets in tests/fuzz" >&2; exit 1; }

echo "building the core and: $*"
rm -rf "$output/core"
mkdir -p "$output/core"
# shellcheck disable=SC2016,SC2086
find firmware/core/src -name '*.c' | sort | xargs -P 2 -I {} sh -c '
    object=$1/core/$(echo "$2" | tr / _).o
    shift 2
    "$@" -c "$0" -o "$object"' {} "$output" {} "$clang" $flags
for name; do
    # shellcheck disable=SC2086
    "$clang" $flags -Wall -Wextra -fsanitize=fuzzer "tests/fuzz/$name.c" "$output"/core/*.o \
        -o "$output/$name"
done

# 0 draws anew; in CI every run begins with the same inputs, as the tests do.
seed=0
[ -z "${CI:-}" ] || seed=1

# Shows why a target failed and the input that did it.
show_failure() {
    tail -n 60 "$output/$1.log"
    for input in "$output/$1"-*; do
        [ -f "$input" ] || continue
        echo "--- $input, in base64 (repeat: $output/$1 $input)"
        base64 <"$input"
    done
}

failed=""
for name; do
    rm -f "$output/$name"-*
    # New inputs go to the first folder, so the committed corpus stays as it is.
    mkdir -p "$output/$name.corpus"
    corpus=tests/fuzz/corpus/$name
    [ -d "$corpus" ] || { echo "error: $corpus is missing" >&2; exit 1; }
    echo "fuzzing $name for $seconds s"
    if "$output/$name" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -detect_leaks=0 \
        -seed="$seed" \
        -print_final_stats=1 -artifact_prefix="$output/$name-" "$output/$name.corpus" "$corpus" \
        >"$output/$name.log" 2>&1 &&
        grep -q '^stat::number_of_executed_units: [1-9]' "$output/$name.log"; then
        grep -E '(DONE|number_of_executed_units)' "$output/$name.log"
    else
        show_failure "$name"
        failed="$failed $name"
    fi
done
[ -z "$failed" ] || { echo "error: failed:$failed" >&2; exit 1; }
