"""Measure whether a run's reviews differ between users as the real ones do.

Usage: `python -m personabench.tasks.reviews RUN`. Prints EGISES and PerSEval (arXiv 2407.00453)
over the items with questions of several users, with 1 - ROUGE-L as distance and the item's title
and description as the document. Rating and review title are given too and differ by user.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from personabench.api.dataset import Dataset
from personabench.errors import PersonabenchError, UsageError
from personabench.metrics.perseval import Distances, evaluate, measure_distances
from personabench.results.run_folder import RunFolder
from personabench.tasks.reviews import Reviews


@dataclass(frozen=True)
class _Pair:
    """A user's real and generated review of an item, with the item's description."""

    gold: str
    generated: str
    stimulus: str | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the numbers; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m personabench.tasks.reviews",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="a run folder")
    options = parser.parse_args(arguments)

    try:
        documents = _read_documents(options.run)
        _print_scores(documents)
    except PersonabenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _print_scores(documents: Sequence[Distances]) -> None:
    # Items without a description have no distance to the document.
    simplified = any(document.references_source is None for document in documents)
    scores = evaluate(documents, simplified=simplified)
    reviews = sum(len(document.references) for document in documents)
    print(f"{len(documents)} items with {reviews} reviews by several users each")
    print(f"EGISES {scores.egises:.4f} (lower is better), DEGRESS {scores.degress:.4f}")
    print(
        f"PerSEval {scores.perseval:.4f} (higher is better), "
        f"mean distance to the user's own review {scores.distance:.4f}"
    )


def _read_documents(path: Path) -> list[Distances]:
    """Compute the distances around each item with reviews of at least two users."""
    folder = RunFolder(path)
    spec = folder.spec()
    if spec.task != Reviews.name:
        raise UsageError(f"{path} is a run of {spec.task}, not of {Reviews.name}")

    task = Reviews(msgspec.convert(dict(spec.task_params), Reviews.Params))
    data = None if spec.sample else Path(folder.summary().data or "")
    dataset = task.open(f"{spec.separation}/{spec.split}", data)
    folder.verify_all()
    outputs = {
        prediction.sample_id: prediction.output
        for prediction in folder.iter_predictions()
        if prediction.error is None
    }
    return [
        measure_distances(
            [pair.gold for pair in pairs],
            [pair.generated for pair in pairs],
            # The reviews are of one item, so all pairs have the same description.
            pairs[0].stimulus,
        )
        for pairs in _group_by_item(task, dataset, outputs).values()
        if len(pairs) > 1
    ]


def _group_by_item(
    task: Reviews,
    dataset: Dataset,
    outputs: Mapping[str, str | None],
) -> dict[str, list[_Pair]]:
    groups: dict[str, list[_Pair]] = {}
    for sample in dataset.samples():
        if sample.id not in outputs or sample.item is None:
            continue
        generated = task.parse(outputs[sample.id] or "", sample, "official")
        if generated is None:
            continue
        pair = _Pair(sample.references[0], generated, sample.stimulus)
        groups.setdefault(sample.item, []).append(pair)
    return groups


if __name__ == "__main__":
    sys.exit(main())
