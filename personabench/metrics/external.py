"""Metrics of the `evaluate` package, beside a task's own and never instead of them.

`--metric evaluate:NAME` is loaded only when asked for: the package is heavy and its scripts may have to be fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from personabench.errors import UsageError

PREFIX = "evaluate:"


def external(name: str, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Compute `evaluate:NAME` over answers and golds; every number it returns, as `evaluate:NAME.key`.

    Raises:
        UsageError: no such prefix, lengths differ, the script or a package it needs cannot be loaded, or the metric
            refuses text.
    """
    if not name.startswith(PREFIX) or name == PREFIX:
        raise UsageError(
            f"external metrics are named {PREFIX}NAME, for example {PREFIX}sacrebleu, not '{name}'"
        )
    if len(predictions) != len(references):
        raise UsageError(f"{name}: {len(predictions)} predictions for {len(references)} references")
    script = name.removeprefix(PREFIX)
    metric = _loaded(script)
    try:
        found: dict[str, Any] = (
            metric.compute(predictions=list(predictions), references=list(references)) or {}
        )
    except Exception as error:
        raise UsageError(
            f"{name} cannot be computed over answers and golds as text: {error}"
        ) from error
    return {
        f"{name}.{key}": float(value)
        for key, value in found.items()
        if isinstance(value, int | float)
    }


def _loaded(script: str) -> Any:
    import evaluate

    try:
        return evaluate.load(script)
    except Exception as error:
        raise UsageError(
            f"the metric '{script}' cannot be loaded by the evaluate package: {type(error).__name__}: {error}\n"
            "Its script is fetched on first use: run once with a network connection, or name a local script "
            f"({PREFIX}./metrics/{script.split('/')[-1]}); a missing package has to be installed"
        ) from error
