"""What can go wrong with the demo's own files."""

from __future__ import annotations


class TaskFileError(ValueError):
    """A task file that cannot be used. The message names file and line, what was found and what was expected."""
