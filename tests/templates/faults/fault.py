"""A planted fault."""

from typing import NamedTuple


class Fault(NamedTuple):
    """One small edit that must not pass. `old` occurs once in the file."""

    name: str
    group: str
    file: str
    old: str
    new: str


def faults(group, file, *edits):
    """Faults of one file that one group of checks must find: name, old text, new text."""
    return [Fault(name, group, file, old, new) for name, old, new in edits]
