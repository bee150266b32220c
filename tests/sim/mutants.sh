#!/bin/sh
# Plants each bug of tests/sim/planted/ into a copy of the core and says after how many schedules which law finds it.
# The copy is a small package of the core and the simulator alone, so that a build takes seconds.
#   tests/sim/mutants.sh [name…]        SIM_SEEDS=20000 is the limit for each; exit code 1 if a bug survives
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir src
cp -r "$root/src/engine" "$root/src/model" src/
cp -r "$root/tests" tests
cp "$root/Cargo.lock" .
rm -rf tests/agent tests/golden
find tests -maxdepth 1 -name '*.rs' -delete
printf 'pub mod engine;\npub mod model;\n' >src/lib.rs
cat >Cargo.toml <<TOML
[package]
name = "ecs-agent"
version = "0.0.0"
edition = "2024"
[lib]
name = "ecs_agent"
[dependencies]
serde = { version = "1", features = ["derive"] }
serde_json = "1"
zeroize = { version = "1.9", features = ["derive"] }
[workspace]
TOML
if [ $# -gt 0 ]; then names=$*; else names=$(cd tests/sim/planted && ls -- *.patch | sed 's/\.patch$//'); fi
survived=0
for name in $names; do
    patch -s -p1 <"tests/sim/planted/$name.patch"
    if cargo test --quiet --test sim every >out 2>&1; then
        echo "$name | SURVIVED |"
        survived=1
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
    patch -s -R -p1 <"tests/sim/planted/$name.patch"
done
exit $survived
