#!/bin/sh
# Plants each bug of src/core/tests/sim/planted/ into a copy of the sources and says after how many schedules which law finds it, or which
# unit test of the core if none does.
#   src/core/tests/sim/mutants.sh [name…]        SIM_SEEDS=20000 is the limit for each; exit code 1 if a bug survives
set -eu
root=$(cd "$(dirname "$0")/../../../.." && pwd)
work="$root/target/planted"
mkdir -p "$work"
find "$work" -mindepth 1 -maxdepth 1 ! -name target -exec rm -rf {} +
# Also files that are not committed yet.
(cd "$root" && git ls-files -co --exclude-standard | while read -r file; do
    if [ -e "$file" ]; then echo "$file"; fi
done | xargs -d '\n' cp --parents -t "$work")
cd "$work"
export CARGO_TARGET_DIR="$work/target" CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_DEV_OPT_LEVEL=1
if [ $# -gt 0 ]; then names=$*; else names=$(cd src/core/tests/sim/planted && ls -- *.patch | sed 's/\.patch$//'); fi
tested() { cargo test --quiet --package ecs-core "$@" >out 2>&1; }
survived=0
for name in $names; do
    patch -s -p1 <"src/core/tests/sim/planted/$name.patch"
    if tested --test sim every_schedule; then
        # Too rare a combination for that many schedules: then a unit test of the core has to hold it.
        if tested --lib && tested --test sim recovery::; then
            echo "$name | SURVIVED |"
            survived=1
        else
            echo "$name | none | unit test $(sed -n 's/^test \([a-z]*::[^ ]*\) ... FAILED$/\1/p; s/^    \([a-z]*::.*\)/\1/p' out | sort -u | head -1)"
        fi
    elif grep -q '^law broken: ' out; then
        count=$(sed -n 's/^after \([0-9]*\) schedules:$/\1/p' out | head -1)
        law=$(sed -n 's/^law broken: \([^:]*\).*/\1/p' out | head -1)
        seed=$(sed -n "s/^seed \([0-9]*\)$/\1/p" out | head -1)
        echo "$name | $count | $law | seed $seed"
    else
        echo "$name | DOES NOT BUILD OR PANICS |"
        tail -20 out
        survived=1
    fi
    patch -s -R -p1 <"src/core/tests/sim/planted/$name.patch"
done
exit $survived
