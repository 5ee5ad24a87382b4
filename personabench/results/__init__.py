"""Runs on disk: their folders, specs, summaries and published results.

As pandas frames, for notebooks:

    from personabench import results
    frames = results.load("results")
    frames.runs, frames.samples, frames.calls
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from personabench.results.frames import Frames, load

__all__ = ["Frames", "load"]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that the command line can read runs without importing pandas.
    if name in __all__:
        from personabench.results import frames

        return getattr(frames, name)
    raise AttributeError(f"module 'personabench.results' has no attribute '{name}'")
