"""Checks with names, and the tree that they read."""

import shutil
import traceback
from pathlib import Path


class Tree:
    """The repository (`top`), with `examples` of its own if a folder for a copy is given."""

    def __init__(self, top, copy=None):
        self.top = top
        self.examples = top / "examples"
        if copy:
            self.examples = copy / "examples"
            shutil.copytree(top / "examples", self.examples, ignore=shutil.ignore_patterns("rootfs"))

    def path(self, name):
        """The path of a file of the repository; of the copy, if it is below examples/."""
        return self.examples / name.removeprefix("examples/") if name.startswith("examples/") else self.top / name

    def text(self, name):
        """The text of a file of the repository."""
        return self.path(name).read_text()

    def change(self, name, old, new):
        """Changes one place of a file of the copy. The old text must be there once, so that a fault never misses."""
        assert self.examples != self.top / "examples", "faults are for copies"
        text = self.text(name)
        assert text.count(old) == 1, f"{name} has this text {text.count(old)} times: {old}"
        self.path(name).write_text(text.replace(old, new))


class Checks:
    """The outcome of checks on a tree."""

    def __init__(self, tree, fault_in=None):
        self.tree = tree
        self.quiet = fault_in is not None
        self.fault_in = fault_in
        self.passed = []
        self.failed = []

    def concerns(self, name):
        """Whether checks of this file are wanted: of all files, but with a planted fault only of the file that has it."""
        return self.fault_in in (None, name)

    def expect(self, name, condition, detail=""):
        """One check. The detail is shown if it fails."""
        if condition:
            self.passed.append(name)
        else:
            self.failed.append((name, str(detail)[:2000]))
        if not self.quiet:
            more = f": {str(detail)[:2000]}" if detail and not condition else ""
            print(f"{'ok' if condition else 'FAILED'} {name}{more}", flush=True)
        return bool(condition)

    def equal(self, name, found, wanted):
        """One check: two values are equal."""
        return self.expect(name, found == wanted, f"found {found!r}, wanted {wanted!r}")

    def skip(self, what):
        """Something cannot be checked on this machine."""
        if not self.quiet:
            print(f"SKIPPED: {what}", flush=True)

    def run(self, name, group):
        """A group of checks. An error in it is a failure."""
        if not self.quiet:
            print(f"-- {name}", flush=True)
        try:
            group(self)
        except Exception:
            self.expect(f"{name} runs to its end", False, traceback.format_exc())

    @staticmethod
    def is_crash(name):
        """Whether the failed check is the end of a group by an error."""
        return name.endswith(" runs to its end")
