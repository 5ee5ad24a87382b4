"""One row of a board, and its columns as JSON, CSV and data frames have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from statistics import stdev
from typing import Any

from personabench.leaderboard.costs import Costs
from personabench.leaderboard.estimates import (
    Comparison,
    Contrast,
    Count,
    Estimate,
    Opponent,
    RowStatistics,
)
from personabench.leaderboard.training_figures import TrainingFigures
from personabench.results.summary import Number

# The prefix of a contrast's columns, such as `shuffled_gain_low`.
CONTRAST_COLUMNS: dict[Opponent, str] = {
    "baseline": "gain",
    "shuffled": "shuffled_gain",
    "trivial": "trivial_gain",
}

# Counts of what went wrong, shown between scores and costs.
_COUNTS = ("parse_failures", "truncated", "empty", "failed", "owed")


@dataclass(frozen=True)
class Row:
    """One row of a board: a method with its scores, costs and statistics.

    Attributes:
        seeds: of the runs behind the row; `seed` is the first of them.
        setting: digest of everything that rows must share to be compared.
        scores: the mean over seeds by column, "rouge-1" or "rouge-1/lenient"; None if the seeds do
            not all have it.
        extra_metrics: metrics that the run was given with `--metric`.
        differs: differences from the setting of the method's paper, in words.
        folder: the run folder or published file.
        personal: whether the gain survives another user's history; None if that is unknown.
        truncated, empty: replies truncated at their token limit, and empty answers.
        unranked: why the row has no rank among those of its setting; empty if it has one.
        rank_changes: whether the row has another rank under another judge or prompt of a stored
            panel; None without one.
        frontier: whether the row is on the cost frontier; None if it is not compared there.
        training: figures of training; None for a method that was not trained.
    """

    task: str
    separation: str
    split: str
    source: str
    sample: bool
    data_hash: str
    method: str
    params: Mapping[str, Any]
    history: str
    selection: str
    seed: int
    seeds: Sequence[int]
    label: str
    model: str
    status: str
    n: int
    users: int
    setting: str
    fit: str | None
    differs: Sequence[str]
    primary: str
    scores: Mapping[str, Number | None]
    extra_metrics: Mapping[str, Number | None]
    parse_failures: Number
    truncated: Number
    empty: Number
    failed: Number
    owed: int
    costs: Costs
    seconds: float
    run: str
    folder: str
    published: bool
    statistics: RowStatistics
    personal: bool | None = None
    unranked: str = ""
    rank_changes: bool | None = None
    frontier: bool | None = None
    training: TrainingFigures | None = None

    @property
    def letter(self) -> str:
        """Names the row in superscripts."""
        return self.statistics.letter

    @property
    def leader(self) -> bool | None:
        """Whether no row is significantly better; None if this was not tested."""
        is_tested = self.statistics.estimates and self.statistics.all_pairs
        return self.statistics.leader if is_tested else None

    @property
    def emphasized(self) -> bool:
        """Whether no row is significantly better, and it beats at least one: then it is bold."""
        return bool(self.leader and self.statistics.beats)

    @property
    def seed_sd(self) -> float | None:
        """Standard deviation of the primary metric over seeds."""
        values = self.statistics.seed_values
        return stdev(values) if len(values) > 1 else None

    @property
    def gain(self) -> Contrast | None:
        """The contrast with the baseline."""
        return self.statistics.contrasts.get("baseline")

    @property
    def estimate(self) -> Estimate | None:
        """The primary metric with its interval."""
        return self.statistics.estimates.get(self.primary)

    @property
    def frontier_score(self) -> float | None:
        """The primary metric on the samples that rows share; on the row's own if unknown."""
        if self.primary not in self.statistics.aligned:
            return self.scores.get(self.primary)
        shared = self.statistics.aligned[self.primary]
        return shared.value if shared else None

    @cached_property
    def columns(self) -> dict[str, Any]:
        """The row as plain values by column name.

        Every row of a board has the same columns, except those of metrics that it lacks and of
        training.
        """
        columns = {name: getattr(self, name) for name in _LEADING}
        columns |= self.scores
        columns |= self.extra_metrics
        columns |= {name: getattr(self, name) for name in _COUNTS}
        columns |= {field.name: getattr(self.costs, field.name) for field in fields(Costs)}
        columns |= {name: getattr(self, name) for name in ("seconds", "run", "folder", "published")}

        statistics = self.statistics
        columns |= {
            "letter": statistics.letter,
            "beats": statistics.beats,
            "leader": self.leader,
            "tests": statistics.tests,
            "controls": statistics.controls,
            "draws": statistics.draws,
            "sample_set": statistics.sample_set,
            "seed_values": statistics.seed_values,
            "seed_sd": self.seed_sd,
        }
        for metric, estimate in statistics.estimates.items():
            columns |= self._metric_columns(metric, estimate)
        for opponent, prefix in CONTRAST_COLUMNS.items():
            columns |= _contrast_columns(prefix, statistics.contrasts.get(opponent))
        if statistics.mask:
            columns |= self._audited_columns()
        columns |= _user_columns(self.gain)
        columns |= {
            "personal": self.personal,
            "ranked": not self.unranked,
            "emphasized": self.emphasized,
            "frontier": self.frontier,
        }
        if self.rank_changes is not None:
            columns["rank_changes"] = self.rank_changes
        if self.training is not None:
            columns |= asdict(self.training)
        return columns

    def _audited_columns(self) -> dict[str, Any]:
        """Scores without the samples of a mask: `audited` of the primary metric, others by name."""
        statistics = self.statistics
        columns: dict[str, Any] = {"mask": statistics.mask}
        for metric, estimate in statistics.audited.items():
            name = "audited" if metric == self.primary else f"{metric}/audited"
            columns |= _estimate_columns(name, estimate)
            columns[f"{name}/of"] = statistics.counted.get(metric)
        return columns

    def _metric_columns(self, metric: str, estimate: Estimate) -> dict[str, Any]:
        columns: dict[str, Any] = {
            f"{metric}/low": estimate.low,
            f"{metric}/high": estimate.high,
            f"{metric}/n": self.statistics.counted.get(metric, estimate.n),
        }
        columns |= _estimate_columns(f"{metric}/common", self.statistics.aligned.get(metric))
        if metric == self.primary:
            columns["no_interval"] = estimate.reason
        columns |= _estimate_columns(f"{metric}/gain", self.statistics.gains.get(metric))
        return columns


_LEADING = (
    "task",
    "separation",
    "split",
    "source",
    "sample",
    "data_hash",
    "method",
    "params",
    "history",
    "selection",
    "seed",
    "seeds",
    "label",
    "model",
    "status",
    "n",
    "users",
    "setting",
    "fit",
    "differs",
    "primary",
)


# Gives a row without a baseline the same columns, all of them empty.
_NOTHING = Comparison(
    gain=Estimate(None, None, None, None, 0, 0),
    p=None,
    exact=False,
    samples=None,
    by_user=None,
    quantiles=None,
    detectable=None,
)


def _estimate_columns(prefix: str, estimate: Estimate | None) -> dict[str, Any]:
    return {
        prefix: estimate and estimate.value,
        f"{prefix}/low": estimate and estimate.low,
        f"{prefix}/high": estimate and estimate.high,
        f"{prefix}/n": estimate and estimate.n,
    }


def _contrast_columns(prefix: str, contrast: Contrast | None) -> dict[str, Any]:
    gain = contrast and contrast.gain
    return {
        prefix: gain and gain.value,
        f"{prefix}_low": gain and gain.low,
        f"{prefix}_high": gain and gain.high,
        f"{prefix}_n": gain and gain.n,
        f"{prefix}_p": contrast and contrast.corrected,
        f"{prefix}_p_raw": contrast and contrast.comparison.p,
        f"{prefix}_over": contrast and contrast.over,
    }


def _user_columns(contrast: Contrast | None) -> dict[str, Any]:
    """Columns on the spread of the gain over the baseline, over samples and users."""
    comparison = contrast.comparison if contrast else _NOTHING
    low, median, high = comparison.quantiles or (None, None, None)
    return {
        "detectable": comparison.detectable,
        **_count_columns("samples", comparison.samples),
        **_count_columns("users", comparison.by_user),
        "gain_p10": low,
        "gain_p50": median,
        "gain_p90": high,
    }


def _count_columns(unit: str, count: Count | None) -> dict[str, Any]:
    return {
        f"win_{unit}": count and count.win,
        f"tie_{unit}": count and count.tie,
        f"loss_{unit}": count and count.loss,
        f"hurt_{unit}": count and count.hurt,
    }


def frontier(rows: Sequence[Row], higher: bool) -> list[bool | None]:
    """Decide for each row whether it is on the cost frontier of its setting.

    It is unless another row is at least as good for at most its cost, and better in one of both.
    Scores are those on the samples that the rows share, if these are known; cost is the price per
    query if all rows of the setting have one, else tokens per query. None without either, for rows
    without a rank, and for controls, which are no choice that a user of methods has.
    """
    return [_on_frontier(row, rows, higher) for row in rows]


def _is_choice(row: Row) -> bool:
    return row.history == "own" and not row.unranked


def _on_frontier(row: Row, rows: Sequence[Row], higher: bool) -> bool | None:
    peers = [peer for peer in rows if peer.setting == row.setting and _is_choice(peer)]
    if not _is_choice(row):
        return None
    priced = all(peer.costs.query_price is not None for peer in peers)

    def locate(peer: Row) -> tuple[float, float] | None:
        cost = peer.costs.query_price if priced else peer.costs.query_tokens
        score = peer.frontier_score
        if score is None or cost is None:
            return None
        return (score if higher else -score), cost

    point = locate(row)
    if point is None:
        return None

    score, cost = point
    for rival in filter(None, map(locate, peers)):
        if rival[0] >= score and rival[1] <= cost and rival != point:
            return False
    return True
