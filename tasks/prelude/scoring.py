"""The numbers of PRELUDE: what the user had to change, and whether the inferred preference is the true one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from personabench.api.task import JsonObject
from personabench.errors import UsageError
from personabench.metrics.edits import Edit
from personabench.metrics.metric import Metric, Value

if TYPE_CHECKING:
    from personabench.api.task import Floats

Accuracy = Literal["off", "wordllama", "bertscore"]


def per_trajectory(values: Floats) -> float:
    """Total cost over the number of trajectories, from rows of (cost of a round, 1 / rounds of a trajectory)."""
    return float(values[:, 0].sum() / values[:, 1].sum())


METRICS = (
    Metric("cumulative_cost", higher_is_better=False, aggregate=per_trajectory),
    Metric("cost_per_draft_token", higher_is_better=False),
    Metric("cost_per_longer_text", higher_is_better=False),
    Metric("draft_tokens", higher_is_better=False),
    Metric("accepted"),
    Metric("preference_coverage"),
    Metric("preference_accuracy_wordllama"),
    Metric("preference_accuracy_bertscore"),
)


def metrics(accuracy: Accuracy) -> tuple[Metric, ...]:
    """The metrics with one way of telling whether a preference is the true one, or none."""
    kept = f"preference_accuracy_{accuracy}"
    return tuple(
        each
        for each in METRICS
        if not each.name.startswith("preference_accuracy") or each.name == kept
    )


def values(record: JsonObject, liked: Sequence[str], accuracy: Accuracy) -> dict[str, Value]:
    """What a round contributes.  Rounds in which no preference was used have no accuracy.

    Raises:
        UsageError: what `accuracy` needs is not installed.
    """
    edit = Edit(record["cost"], record["draft_tokens"], record["final_tokens"])
    preference = record.get("method", {}).get("preference", "")
    found: dict[str, Value] = {
        "cumulative_cost": [edit.cost, 1 / record["rounds"]],
        "cost_per_draft_token": edit.per_draft_token,
        "cost_per_longer_text": edit.per_longer_text,
        "draft_tokens": edit.draft_tokens,
        "accepted": float(record["decision"] == "accepted"),
        "preference_coverage": float(bool(preference)),
    }
    if preference and accuracy != "off":
        likeness = (_wordllama if accuracy == "wordllama" else _bertscore)(preference, tuple(liked))
        true = list(liked).index(record["preference"])
        best = [place for place, value in enumerate(likeness) if value == max(likeness)]
        found[f"preference_accuracy_{accuracy}"] = float(best == [true])
    return found


@lru_cache(maxsize=1)
def _embedder() -> Any:
    from personabench.retrieval.local_embedders import WordLlama

    return WordLlama()


@lru_cache(maxsize=4096)
def _wordllama(preference: str, liked: tuple[str, ...]) -> list[float]:
    """Cosine similarity of WordLlama vectors."""
    vectors = _embedder().embed_now([preference, *liked])
    return [float(value) for value in vectors[1:] @ vectors[0]]


@lru_cache(maxsize=1)
def _scorer() -> Any:
    try:
        from bert_score import BERTScorer  # type: ignore[import-not-found]
    except ImportError as error:
        raise UsageError(
            "task.accuracy=bertscore needs a package that is not installed; run: pip install bert-score"
        ) from error
    return BERTScorer(lang="en")


@lru_cache(maxsize=4096)
def _bertscore(preference: str, liked: tuple[str, ...]) -> list[float]:
    """BERTScore F1 (arXiv 1904.09675) of the inferred preference against each true one."""
    _, _, f1 = _scorer().score([preference] * len(liked), list(liked))
    return [float(value) for value in f1]
