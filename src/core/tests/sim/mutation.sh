#!/bin/sh
# Mutation test of the core: `cargo mutants` on src/core, judged by its unit tests and the simulator. The first pass is short: unit
# tests of the core and 200 schedules. What survives it is tried again with all tests and 20,000 schedules.
#   src/core/tests/sim/mutation.sh [file…]       only these files, such as src/core/plan.rs; JOBS=1 is how many at a time, LIMIT=20 how many
#                                       seconds a test may take before it counts as hung
#   SINCE=COMMIT src/core/tests/sim/mutation.sh  only lines that were changed since this commit
# Ends with a summary; target/mutation/mutants.out/missed.txt names the survivors.
set -euf
root=$(cd "$(dirname "$0")/../../../.." && pwd)
work="$root/target/mutation"
mkdir -p "$work"
rm -rf "$work/mutants.out" "$work/mutants.out.old"
cd "$root"
files="--file src/core/** --exclude src/core/model/**"
[ $# -eq 0 ] || files=$(printf -- '--file %s ' "$@")
if [ -n "${SINCE:-}" ]; then
    git diff "$SINCE" -- src/core >"$work/since.diff"
    files="$files --in-diff $work/since.diff"
fi
# A mutant that hangs is stopped by the limit; a law need not be shrunk to be broken.
export SIM_SHRINK=0 CARGO_MUTANTS_OUTPUT="$work" CARGO_PROFILE_DEV_DEBUG=false
test_with() {
    seeds=$1
    shift
    code=0
    # shellcheck disable=SC2086 # a list of options
    SIM_SEEDS=$seeds cargo mutants --package ecs-core --no-shuffle --colors never --jobs "${JOBS:-1}" $files "$@" || code=$?
    # 2: some were missed; 3: some hung.
    case $code in 0 | 2 | 3) ;; *) exit "$code" ;; esac
}
# Here building takes longer than testing, so nothing is optimised. Unit tests of the model and the soak run depend on few mutants,
# and take longest.
test_with 200 --timeout "${LIMIT:-20}" --cargo-arg=--config=profile.dev.package.ecs-core.opt-level=0 \
    -- -- --skip model:: --skip soak::
total=$(grep -c '"genre"' "$work/mutants.out/mutants.json")
unviable=$(wc -l <"$work/mutants.out/unviable.txt")
hung=$(wc -l <"$work/mutants.out/timeout.txt")
if [ -s "$work/mutants.out/missed.txt" ]; then
    # Those that hung do so again: no need to wait for them twice.
    cat "$work/mutants.out/timeout.txt" >>"$work/mutants.out/caught.txt"
    test_with 20000 --timeout 240 --iterate
fi
missed=$(wc -l <"$work/mutants.out/missed.txt")
echo "$total mutants: $unviable unviable, $missed missed, $((total - unviable - missed)) caught ($hung of them hung):" \
    "$(((total - unviable - missed) * 1000 / (total - unviable))) per mille"
cat "$work/mutants.out/missed.txt"
