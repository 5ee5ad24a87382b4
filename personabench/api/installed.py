"""Entry points and source files of what is installed, read once while they do not change.

Finding entry points reads a file of every installed package.  A table of a thousand rows looks up
the task of each.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint
from pathlib import Path

Find = Callable[..., Iterable[EntryPoint]]


def find_entry_points(group: str, find: Find) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group that `find` finds on Python's path."""
    return _find_entry_points(group, find, _path_state())


@functools.lru_cache(maxsize=8)
def _find_entry_points(
    group: str, find: Find, path: tuple[tuple[str, int], ...]
) -> tuple[EntryPoint, ...]:
    # `path` only serves the cache: after an installation they are found anew.
    return tuple(find(group=group))


def _path_state() -> tuple[tuple[str, int], ...]:
    """The folders of Python's path, and when their contents changed last."""
    state = []
    for folder in sys.path:
        modified = 0
        with contextlib.suppress(OSError):
            modified = Path(folder).stat().st_mtime_ns
        state.append((folder, modified))
    return tuple(state)


@functools.lru_cache(maxsize=512)
def read_source(path: Path, modified: int) -> bytes:
    """Read a source file.

    `modified` only serves the cache: a changed file is read again.
    """
    return path.read_bytes()
