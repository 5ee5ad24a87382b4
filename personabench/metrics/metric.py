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
class TokenizerScope:
    """The texts that a metric's tokenizer can handle.

    Attributes:
        covers: whether the tokenizer finds the words of a text.
        limitation: the predicate of a warning about references that it does not cover.
    """

    covers: Callable[[str], bool]
    limitation: str


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A unit of chance other than the user: samples that belong together, such as of one prompt.

    Attributes:
        column: the column of the values, of shape (n, d), that numbers the unit of each sample.  It
            is a fact of the sample, the same for every method.
        name: the unit in the singular, for messages.
    """

    column: int
    name: str


@dataclasses.dataclass(frozen=True)
class Metric:
    """A named number over samples.

    Attributes:
        aggregate: maps the per-sample values, shape (n,) or (n, d), to the metric; it must accept
            any resample of rows.
        size: the number of samples that the aggregate is over, for a metric of a subset; None for
            all.
        cluster: the unit that intervals and tests resample; None for users.  Its aggregate has to
            count a unit that was drawn twice as two.
        signature: settings and version of other software, if these decide the number; summaries
            keep it.
        scope: set if the tokenizer does not cover every script.
        variant_of: the metric that this one computes in another way; tables leave the variant out
            if both agree in every row.
        chance: the score of guessing, for a metric of one number per sample; `compare` then counts
            the users whom one run leaves below it and the other does not.
        imports: modules that measuring imports on use; a run loads them while its first calls are
            in flight.
    """

    name: str
    higher_is_better: bool = True
    aggregate: Callable[[Floats], float] = mean
    size: Callable[[Floats], int] | None = None
    cluster: Cluster | None = None
    signature: Callable[[], str] | None = None
    scope: TokenizerScope | None = None
    variant_of: str | None = None
    chance: float | None = None
    imports: tuple[str, ...] = ()
