"""The `Metric` interface and the values it aggregates."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

import dataclasses
from collections.abc import Callable

Value = float | list[float]


def mean(values: Floats) -> float:
    """The mean of one value per sample."""
    return float(values.mean())


@dataclasses.dataclass(frozen=True)
class Sight:
    """In which texts a metric's tokenizer `sees` words; `lack` says of references that it does not what they do."""

    sees: Callable[[str], bool]
    lack: str


@dataclasses.dataclass(frozen=True)
class Metric:
    """A named number over samples.

    `aggregate` maps the per-sample values, shape (n,) or (n, d), to the metric; it must accept any resample of rows.
    `signature` says by which settings and version of other software, where that decides the number; summaries keep it.
    `sight` is there where the tokenizer does not see every script.  `variant_of` names the metric that this one reads
    differently: tables leave it out where the two agree in every row.
    """

    name: str
    higher_is_better: bool = True
    aggregate: Callable[[Floats], float] = mean
    signature: Callable[[], str] | None = None
    sight: Sight | None = None
    variant_of: str | None = None
