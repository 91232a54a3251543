"""What can go wrong with the demo's own files."""

from __future__ import annotations


class TaskFileError(ValueError):
    """A task file that cannot be used; the message names file and line, what was found, what was expected."""
