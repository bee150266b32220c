# shellcheck shell=bash
# Sourced by tests/run: counts the passed and the skipped tests in the output of a check.
#
# A test that skips something prints one or more lines that begin with SKIPPED, and counts once. A script prints one line for each
# thing that it skips.

# The number of skipped things in this output of a check. The filters below leave one line for each test.
left_out() { grep -c '^ *SKIPPED' "$1" || true; }

# The number of passed tests, from the output of cargo's tests and from the lines `ok NAME` of tests that ran alone.
tests_passed() {
    sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p; s/^ok .*/1/p' "$1" | awk '{n += $1} END {print n + 0}'
}

# Filters the output of cargo's tests with --show-output: of the output of passed tests only the SKIPPED lines remain. A test's
# first such line is unchanged; the others get a prefix, so that they do not count.
without_output() {
    awk '
        /^successes:$/ { hidden = 1 }
        /^(failures:$|test result)/ { hidden = 0; in_test = 0 }
        /^---- .* stdout ----$/ { in_test = 1; seen = 0 }
        /^ *SKIPPED/ { print (in_test && seen++ ? "also " : "") $0; fflush(); next }
        !hidden { print; fflush() }
    '
}

# The same for the output of one test that ran alone: its first SKIPPED line, if any.
first_left_out() { grep -m 1 '^ *SKIPPED' || true; }
