"""Metrics of PRELUDE and PLUME: cost of edits, distance of texts, and the inferred preferences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from personabench.api.task import JsonObject
from personabench.errors import UsageError
from personabench.metrics.edits import Edit
from personabench.metrics.metric import Metric, Value

if TYPE_CHECKING:
    from personabench.metrics.metric import Floats

Accuracy = Literal["off", "wordllama", "bertscore"]


def average_total_cost(values: Floats) -> float:
    """Mean total cost of a trajectory, from rows of (cost of a round, 1 / number of rounds)."""
    # The second column sums to the number of trajectories, also in a bootstrap resample of them.
    total_cost = values[:, 0].sum()
    trajectories = values[:, 1].sum()
    return float(total_cost / trajectories)


_PREFERENCES = (
    Metric("preference_coverage"),
    Metric("preference_accuracy_wordllama"),
    Metric("preference_accuracy_bertscore"),
    Metric("learned_accuracy_wordllama"),
    Metric("learned_accuracy_bertscore"),
)
METRICS: tuple[Metric, ...] = (
    Metric("cumulative_cost", higher_is_better=False, aggregate=average_total_cost),
    Metric("cost_per_draft_token", higher_is_better=False),
    Metric("cost_per_longer_text", higher_is_better=False),
    Metric("draft_tokens", higher_is_better=False),
    Metric("accepted"),
    *_PREFERENCES,
)
PLUME: tuple[Metric, ...] = (
    Metric("distance", higher_is_better=False),
    Metric("edit_cost", higher_is_better=False),
    Metric("bertscore"),
    *_PREFERENCES,
)
PLUME_JUDGED = (
    Metric("component_match"),
    Metric("set_match"),
    Metric("preference_similarity"),
)


def select_metrics(metrics: Sequence[Metric], accuracy: Accuracy) -> tuple[Metric, ...]:
    """The metrics without those of another measure of similarity than the chosen one."""
    measures = [measure for measure in _MEASURES if measure != accuracy]
    return tuple(metric for metric in metrics if not metric.name.endswith(tuple(measures)))


def measure_round(
    interaction: JsonObject, liked: Sequence[str], accuracy: Accuracy
) -> dict[str, Value]:
    """Values of a round of PRELUDE.

    Raises:
        UsageError: a package that `accuracy` needs is not installed.
    """
    edit = _read_edit(interaction)
    return {
        "cumulative_cost": [edit.cost, 1 / interaction["rounds"]],
        "cost_per_draft_token": edit.per_draft_token,
        "cost_per_longer_text": edit.per_longer_text,
        "draft_tokens": edit.draft_tokens,
        "accepted": float(interaction["decision"] == "accepted"),
        **_measure_preferences(interaction, liked, accuracy),
    }


def measure_texts(
    interaction: JsonObject, liked: Sequence[str], accuracy: Accuracy
) -> dict[str, Value]:
    """Values of a round of PLUME: how far the method's text is from the user's own.

    Raises:
        UsageError: a package that `accuracy` needs is not installed.
    """
    edit = _read_edit(interaction)
    values: dict[str, Value] = {
        "distance": edit.per_longer_text,
        "edit_cost": edit.cost,
        **_measure_preferences(interaction, liked, accuracy),
    }
    if accuracy == "bertscore":
        (values["bertscore"],) = _compare_by_bertscore(
            interaction["draft"], (interaction["final"],)
        )
    return values


def _read_edit(interaction: JsonObject) -> Edit:
    return Edit(interaction["cost"], interaction["draft_tokens"], interaction["final_tokens"])


def _measure_preferences(
    interaction: JsonObject, liked: Sequence[str], accuracy: Accuracy
) -> dict[str, Value]:
    """Coverage and accuracy of inferred preferences, the latter only if there is one to compare.

    `preference_accuracy` is of the preference that the draft was made with, `learned_accuracy` of
    the one that the method holds after the round, which is the same if nothing was inferred.
    """
    notes = interaction.get("method", {})
    preference = notes.get("preference", "")
    learned = notes.get("inferred") or preference
    values: dict[str, Value] = {"preference_coverage": float(bool(preference))}
    if accuracy == "off":
        return values

    true = list(liked).index(interaction["preference"])
    for name, text in (("preference", preference), ("learned", learned)):
        if text:
            is_right = _is_nearest(text, true, liked, accuracy)
            values[f"{name}_accuracy_{accuracy}"] = float(is_right)
    return values


def _is_nearest(preference: str, true: int, liked: Sequence[str], accuracy: str) -> bool:
    """Whether the true preference, by its index, is the nearest to a preference.

    A tie is not a hit: a preference as near to two true ones tells them apart no better than
    chance.
    """
    similarities = _MEASURES[accuracy](preference, tuple(liked))
    highest = max(similarities)
    nearest = [index for index, value in enumerate(similarities) if value == highest]
    return nearest == [true]


@lru_cache(maxsize=1)
def _load_embedder() -> Any:
    from personabench.retrieval.local_embedders import WordLlama

    return WordLlama()


# Methods infer the same few preferences again and again, and every round is measured.
@lru_cache(maxsize=4096)
def _compare_by_wordllama(preference: str, liked: tuple[str, ...]) -> list[float]:
    """Cosine similarity of WordLlama vectors."""
    vectors = _load_embedder().embed_now([preference, *liked])
    similarities = vectors[1:] @ vectors[0]
    return [float(value) for value in similarities]


@lru_cache(maxsize=1)
def _load_bertscore() -> Any:
    try:
        from bert_score import BERTScorer  # type: ignore[import-not-found]
    except ImportError as error:
        raise UsageError(
            "task.accuracy=bertscore needs a package that is not installed; "
            "run: pip install bert-score"
        ) from error
    return BERTScorer(lang="en")


@lru_cache(maxsize=4096)
def _compare_by_bertscore(preference: str, liked: tuple[str, ...]) -> list[float]:
    """BERTScore F1 (arXiv 1904.09675) of the inferred preference against each true one."""
    candidates = [preference] * len(liked)
    _, _, f1 = _load_bertscore().score(candidates, list(liked))
    return [float(value) for value in f1]


_MEASURES: dict[str, Callable[[str, tuple[str, ...]], list[float]]] = {
    "wordllama": _compare_by_wordllama,
    "bertscore": _compare_by_bertscore,
}
