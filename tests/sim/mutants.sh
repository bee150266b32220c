#!/bin/sh
# Plants each bug of tests/sim/planted/ into a copy of the core and says after how many schedules which law finds it, or which
# unit test of the core if none does.
#   tests/sim/mutants.sh [name…]        SIM_SEEDS=20000 is the limit for each; exit code 1 if a bug survives
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
work="$root/target/planted"
"$root/tests/sim/package.sh" "$work"
cd "$work"
if [ $# -gt 0 ]; then names=$*; else names=$(cd "$root/tests/sim/planted" && ls -- *.patch | sed 's/\.patch$//'); fi
survived=0
for name in $names; do
    patch -s -p1 <"$root/tests/sim/planted/$name.patch"
    if cargo test --quiet every_schedule >out 2>&1; then
        # Too rare a combination for that many schedules: then a unit test of the core has to hold it.
        if cargo test --quiet -- core:: recovery:: >out 2>&1; then
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
    patch -s -R -p1 <"$root/tests/sim/planted/$name.patch"
done
exit $survived
