"""Faults that somebody could make in the templates and scripts. Each is planted in a copy, and its group of checks must find it."""

from faults import instances, publish, repository, roles

FAULTS = [*repository.FAULTS, *roles.FAULTS, *instances.FAULTS, *publish.FAULTS]
