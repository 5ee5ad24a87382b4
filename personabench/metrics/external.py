"""Metrics of the `evaluate` package, reported in addition to a task's own metrics.

The package is loaded only for `--metric evaluate:NAME`: it is heavy, and its metric scripts may
have to be downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from personabench.errors import UsageError
from personabench.models.environment import refuse_download

PREFIX = "evaluate:"


def compute_external(
    name: str,
    predictions: Sequence[str],
    references: Sequence[str],
) -> dict[str, float]:
    """Compute `evaluate:NAME` over answers and references.

    Every number that the metric returns is in the result, as `evaluate:NAME.key`.

    Raises:
        UsageError: the prefix is missing, lengths differ, the script or a package it needs cannot
            be loaded, or the metric does not accept text.
    """
    if not name.startswith(PREFIX) or name == PREFIX:
        raise UsageError(
            f"external metrics are named {PREFIX}NAME, for example {PREFIX}sacrebleu, not '{name}'"
        )
    if len(predictions) != len(references):
        raise UsageError(f"{name}: {len(predictions)} predictions for {len(references)} references")

    metric = _load_metric(name.removeprefix(PREFIX))
    try:
        values: dict[str, Any] | None = metric.compute(
            predictions=list(predictions),
            references=list(references),
        )
    except Exception as error:
        # A metric's script may raise anything.
        raise UsageError(
            f"{name} cannot be computed over answers and references as text: {error}"
        ) from error

    numbers = {}
    for key, value in (values or {}).items():
        if isinstance(value, int | float):
            numbers[f"{name}.{key}"] = float(value)
    return numbers


def _load_metric(script: str) -> Any:
    import evaluate

    try:
        return evaluate.load(script)
    except Exception as error:
        refuse_download(f"the script of the metric '{script}'")
        file_name = script.split("/")[-1]
        raise UsageError(
            f"the evaluate package cannot load the metric '{script}': "
            f"{type(error).__name__}: {error}\n"
            "Its script is downloaded on first use: run once with a network connection, or name a "
            f"local script ({PREFIX}./metrics/{file_name}); install any package that is missing"
        ) from error
