"""Runs the groups of checks on this repository, then plants faults in copies and runs the groups that must find them.

Each check prints `ok NAME` or `FAILED NAME`. The last line is `N passed, N failed`.
"""

import importlib
import sys
import tempfile
from pathlib import Path

import faults
from harness import Checks, Tree

GROUPS = ("lint", "deploy", "repository", "policies", "user_data", "real_s3", "publish", "page", "real")
"""The groups: modules with a function `run`, loaded when they are needed."""


def run_groups(names, tree, fault_in=None):
    """Runs these groups of checks on a tree; only what concerns one file, if that has a planted fault."""
    checks = Checks(tree, fault_in)
    for name in names:
        checks.run(name, lambda checks, name=name: importlib.import_module(name).run(checks))
    return checks


def plant(fault, top):
    """The outcome of one planted fault: the name of the check that found it, or None, and what happened instead."""
    with tempfile.TemporaryDirectory(prefix="templates-fault-") as folder:
        tree = Tree(top, Path(folder))
        try:
            tree.change(fault.file, fault.old, fault.new)
        except AssertionError as error:
            return None, error
        checks = run_groups([fault.group], tree, fault.file)
    found = [name for name, _ in checks.failed if not checks.is_crash(name)]
    return (found[0] if found else None), checks.failed


def run_faults(top):
    """Plants every fault; returns the numbers of found and of missed ones."""
    found, missed = 0, 0
    for fault in faults.FAULTS:
        check, failed = plant(fault, top)
        if check:
            found += 1
            print(f"ok fault: {fault.name} (found by: {check})", flush=True)
        else:
            missed += 1
            print(f"FAILED fault: {fault.name}: no check of the group {fault.group} found it {failed}", flush=True)
    return found, missed


def main(names):
    """Runs what the command line names; returns the exit code."""
    if names == ["groups"]:
        names = list(GROUPS)
    unknown = [name for name in names if name not in GROUPS and name != "faults"]
    if unknown:
        print(f"no such group: {', '.join(unknown)}; there are {', '.join([*GROUPS, 'faults'])}", file=sys.stderr)
        return 2
    top = Path(__file__).resolve().parents[2]
    passed = failed = 0
    groups = [name for name in names if name != "faults"] or ([] if names else list(GROUPS))
    checks = run_groups(groups, Tree(top))
    passed, failed = len(checks.passed), len(checks.failed)
    if not names or "faults" in names:
        found, missed = run_faults(top)
        passed, failed = passed + found, failed + missed
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
