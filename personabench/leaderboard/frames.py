"""The leaderboard as a pandas frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from personabench.leaderboard import BASELINE, BoardOptions, boards, curves
from personabench.results.index import everything

if TYPE_CHECKING:
    import pandas as pd


def leaderboard(
    folder: str | Path = "results", task: str | None = None, baseline: str = BASELINE
) -> pd.DataFrame:
    """All rows of the leaderboard, published results included, with the columns of `leaderboard --format json`.

    Raises:
        DataError: a file is damaged; the message names it.
    """
    import pandas as pd

    asked = BoardOptions(baseline=baseline, thorough=True, results=Path(folder))
    found = boards(everything(Path(folder)), task, asked)
    return pd.DataFrame([row for board in found for row in board.rows])


def curve_points(folder: str | Path = "results", task: str | None = None) -> pd.DataFrame:
    """All points of all curves, with the columns of `leaderboard --curves --format json`.

    Raises:
        DataError: a file is damaged; the message names it.
    """
    import pandas as pd

    rows = boards(everything(Path(folder)), task, BoardOptions(results=Path(folder)))
    return pd.DataFrame(curves(rows))
