"""The leaderboard and its curves as pandas frames, for notebooks.

from personabench.leaderboard import frames
frames.leaderboard("results")
frames.curve_points("results")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from personabench.leaderboard import BASELINE, BoardOptions, boards, curves
from personabench.results.index import read_chosen

if TYPE_CHECKING:
    import pandas as pd


def leaderboard(
    folder: str | Path = "results",
    task: str | None = None,
    baseline: str = BASELINE,
    *,
    with_reference: bool = False,
) -> pd.DataFrame:
    """Read all rows of the leaderboard, with the columns of `leaderboard --format json`.

    Args:
        with_reference: published results as well.

    Raises:
        DataError: a file is damaged; the message names it.
    """
    import pandas as pd

    options = BoardOptions(baseline=baseline, thorough=True, results=Path(folder))
    runs = read_chosen(Path(folder), with_reference=with_reference)
    tables = boards(runs, task, options)
    return pd.DataFrame([row.columns for board in tables for row in board.rows])


def curve_points(
    folder: str | Path = "results", task: str | None = None, *, with_reference: bool = False
) -> pd.DataFrame:
    """Read all points of all curves, with the columns of `leaderboard --curves --format json`.

    Args:
        with_reference: those of published results as well.

    Raises:
        DataError: a file is damaged; the message names it.
    """
    import pandas as pd

    runs = read_chosen(Path(folder), with_reference=with_reference)
    tables = boards(runs, task, BoardOptions(results=Path(folder)))
    return pd.DataFrame([msgspec.to_builtins(point) for point in curves(tables)])
