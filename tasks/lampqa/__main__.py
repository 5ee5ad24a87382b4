"""Write the scores of a run in LaMP-QA's own form, with the ids of the data.

Usage: `python -m personabench.tasks.lampqa RUN`, which prints
`{"score", "per_question_scores": [{"id", "score", "details": [{"aspect", "score"}]}]}`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from personabench.errors import DataError, PersonabenchError, UsageError
from personabench.results.run_folder import RunFolder
from personabench.tasks.lampqa import judging
from personabench.types import to_json


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the result file; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m personabench.tasks.lampqa", description=__doc__
    )
    parser.add_argument("run", type=Path, help="a run folder")
    options = parser.parse_args(arguments)
    try:
        print(to_json(make_result(RunFolder(options.run))))
    except PersonabenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def make_result(folder: RunFolder) -> dict[str, Any]:
    """The scores of a run's questions in the benchmark's form.

    `score` is the mean over questions, as the benchmark computes it for one subset. An aspect that
    the judge failed on counts as 0 and has the score null; an answer outside of its form is empty.

    Raises:
        UsageError: the run is of another task.
        DataError: the run has no judgements.
    """
    if folder.spec().task != "lampqa":
        raise UsageError(f"{folder.path} is a run of {folder.spec().task}, not of lampqa")
    judge = folder.summary().judge
    judgements = folder.judgements(judge) if judge else {}
    questions: list[dict[str, Any]] = []
    for sample_id, judgement in judgements.items():
        if not judgement.values or not judgement.values["scores"]:
            continue
        aspects, scores = judgement.values["aspects"], judgement.values["scores"]
        if not judgement.values.get("in_form", True):
            scores = [0] * len(scores)
        details = [
            {"aspect": aspect, "score": score}
            for aspect, score in zip(aspects, scores, strict=True)
        ]
        official = judging.score_question(scores).official
        questions.append({"id": sample_id, "score": official, "details": details})
    if not questions:
        raise DataError(f"{folder.path} has no judgements; finish the run with a judge")
    mean = sum(question["score"] for question in questions) / len(questions)
    return {"score": mean, "per_question_scores": questions}


if __name__ == "__main__":
    sys.exit(main())
