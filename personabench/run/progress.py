"""Progress counters of a run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Counters a display may read at any time; the engine only ever increments them."""

    total: int = 0
    before: int = 0
    done: int = 0
    failed: int = 0
    stopping: bool = False
    dropped: bool = False
    first_failure: str = ""
    started: float = field(default_factory=time.monotonic)
