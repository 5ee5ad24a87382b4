"""Load the modules of metrics in a thread while a run's first calls are in flight.

Measuring imports packages that take longer to load than a small run takes.  While a run waits for
its first answers, that costs no time.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterable

from personabench.metrics.metric import Metric

IMPORTING = threading.Lock()
"""Held while modules are loaded: no other thread may replace modules meanwhile."""
_ALWAYS = ("numpy",)
"""Every metric is aggregated from an array."""


def preload(metrics: Iterable[Metric]) -> None:
    """Import the modules that measuring by these metrics needs."""
    names = dict.fromkeys(_ALWAYS)
    for metric in metrics:
        names |= dict.fromkeys(metric.imports)

    for name in names:
        # A package that is missing or broken is reported when it is used.
        with IMPORTING, contextlib.suppress(Exception):
            importlib.import_module(name)
