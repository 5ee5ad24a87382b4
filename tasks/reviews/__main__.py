"""`python -m personabench.tasks.reviews RUN`: do the reviews of a run differ between people as the real ones do?

EGISES and PerSEval (arXiv 2407.00453) over the items that several people are asked about, with 1 - ROUGE-L as distance
and the item's title and description as the document.  Rating and review title, which are given too, differ by person.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from personabench.errors import PersonabenchError, UsageError
from personabench.metrics.perseval import Distances, evaluate, measure_distances
from personabench.results.run_folder import RunFolder
from personabench.tasks.reviews import Reviews


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the numbers; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m personabench.tasks.reviews", description=__doc__
    )
    parser.add_argument("run", type=Path, help="a run folder")
    given = parser.parse_args(arguments)
    try:
        documents = _documents(given.run)
        found = evaluate(
            documents, simplified=any(document.references_source is None for document in documents)
        )
    except PersonabenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    people = sum(len(document.references) for document in documents)
    print(f"{len(documents)} items with {people} reviews by several people each")
    print(f"EGISES {found.egises:.4f} (lower is better), DEGRESS {found.degress:.4f}")
    print(
        f"PerSEval {found.perseval:.4f} (higher is better), mean distance to the own review {found.distance:.4f}"
    )
    return 0


def _documents(path: Path) -> list[Distances]:
    """The distances around each item for which the run has reviews of at least two people."""
    folder = RunFolder(path)
    spec, summary = folder.spec(), folder.summary()
    if spec.task != Reviews.name:
        raise UsageError(f"{path} is a run of {spec.task}, not of {Reviews.name}")
    task = Reviews(msgspec.convert(dict(spec.task_params), Reviews.Params))
    dataset = task.open(
        f"{spec.separation}/{spec.split}", None if spec.sample else Path(summary["data"])
    )
    folder.verify_all()
    outputs = {
        line.sample_id: line.output for line in folder.iter_predictions() if line.error is None
    }
    items: dict[str, list[tuple[str, str, str | None]]] = {}
    for sample in dataset.samples():
        text = (
            task.parse(outputs.get(sample.id) or "", sample, "official")
            if sample.id in outputs
            else None
        )
        if text is not None and sample.item is not None:
            items.setdefault(sample.item, []).append((sample.references[0], text, sample.stimulus))
    shared = [group for group in items.values() if len(group) > 1]
    return [
        measure_distances([gold for gold, _, _ in each], [text for _, text, _ in each], each[0][2])
        for each in shared
    ]


if __name__ == "__main__":
    sys.exit(main())
