# shellcheck shell=bash
# Sourced by tests/run: counts, in what a check has printed, the tests that passed and what was left out.
#
# A test that leaves something out prints a line that begins with SKIPPED, or several; it counts once. A script prints one line for each thing
# that it leaves out.

# What was left out in a check: its lines in this file. The filters here leave one line for each test.
left_out() { grep -c '^ *SKIPPED' "$1" || true; }

# How many tests passed, by the output of cargo's tests and by the lines `ok NAME` of tests that ran alone.
tests_passed() {
    sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p; s/^ok .*/1/p' "$1" | awk '{n += $1} END {print n + 0}'
}

# Of the output of cargo's tests with --show-output: nothing that passed tests have printed but what they left out. A test's first such line stays
# as it is, and those after it do not count.
without_output() {
    awk '
        /^successes:$/ { hidden = 1 }
        /^(failures:$|test result)/ { hidden = 0; in_test = 0 }
        /^---- .* stdout ----$/ { in_test = 1; seen = 0 }
        /^ *SKIPPED/ { print (in_test && seen++ ? "also " : "") $0; fflush(); next }
        !hidden { print; fflush() }
    '
}

# The same for the output of one test that ran alone: its first line that counts, or none.
first_left_out() { grep -m 1 '^ *SKIPPED' || true; }
