"""`python -m personabench.tasks.prefdisco RUN [OTHER]`: report a run by condition.

With a second run, also the difference in PrefAlign between the two.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from personabench.errors import PersonabenchError, UsageError
from personabench.results.run_folder import RunFolder
from personabench.results.spec import RunSpec
from personabench.results.summary import Summary
from personabench.tasks.prefdisco.scoring import bootstrap_normalign, compute_normalign
from personabench.types import Prediction

CONDITIONS = {
    "base": "no preference",
    "known": "known persona",
    "final": "final",
    "ask": "final, asking",
}
TASKS = ("prefdisco", "prefdisco_warm")

Assessment = Mapping[str, Any]
"""The judge's values of a record: grades and correctness by condition, and the weights."""


class Report(NamedTuple):
    """A run as text, and the final PrefAlign of each of its judged records."""

    text: str
    prefaligns: Mapping[str, float]
    history: str


class _Run(NamedTuple):
    """The parts of a finished run that the report needs, by sample id."""

    spec: RunSpec
    summary: Summary
    predictions: Mapping[str, Prediction]
    assessments: Mapping[str, Assessment]

    @property
    def conditions(self) -> dict[str, Mapping[str, Any]]:
        """The assessed conditions of each judged record."""
        return {name: values["conditions"] for name, values in self.assessments.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m personabench.tasks.prefdisco", description=__doc__
    )
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument(
        "other",
        type=Path,
        nargs="?",
        help="a run folder to compare with, such as one with shuffled histories",
    )
    options = parser.parse_args(arguments)

    try:
        report = make_report(options.run)
        print(report.text)
        if options.other:
            baseline = make_report(options.other)
            print(f"\n{baseline.text}\n")
            print(_compare_reports(report, baseline, options.run, options.other))
    except PersonabenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def make_report(path: Path) -> Report:
    """Describe a run by condition.

    Raises:
        UsageError: the folder holds no judged run of either task.
    """
    run = _read_run(path)
    sections = [
        *_describe_run(run),
        *_tabulate_conditions(run),
        *_describe_normalign(run),
        *_describe_questions(run),
        _describe_deciders(run),
        *_describe_usage(run.summary),
    ]
    prefaligns = {
        name: conditions["final"]["prefalign"] for name, conditions in run.conditions.items()
    }
    return Report("\n".join(sections), prefaligns, run.spec.history)


def find_problem(record: str, persona: str) -> str:
    """The part of a record's name that all records of a problem share.

    That is `problem_<i>_`, else everything but the persona at the end.
    """
    match = re.match(r"problem_\d+_", record)
    return match[0] if match else record.removesuffix(persona)


def _compare_reports(report: Report, baseline: Report, path: Path, baseline_path: Path) -> str:
    """The mean difference in final PrefAlign over the records judged in both runs."""
    shared_ids = sorted(report.prefaligns.keys() & baseline.prefaligns.keys())
    if not shared_ids:
        raise UsageError(f"{path} and {baseline_path} have no judged record in common")
    differences = [report.prefaligns[name] - baseline.prefaligns[name] for name in shared_ids]
    return (
        f"lift in PrefAlign: {np.mean(differences):+.3f} "
        f"({report.history} over {baseline.history} history, n={len(shared_ids)})"
    )


def _read_run(path: Path) -> _Run:
    """Read a judged run of either task.

    Raises:
        UsageError: the folder holds something else.
    """
    folder = RunFolder(path)
    if not (path / "summary.json").is_file():
        raise UsageError(f"{path} is not a finished run folder")
    summary = folder.summary()
    spec = folder.spec()
    if spec.task not in TASKS:
        raise UsageError(f"{path} is a run of {spec.task}; this reports {' and '.join(TASKS)}")
    folder.verify_all()

    predictions = {prediction.sample_id: prediction for prediction in folder.iter_predictions()}
    assessments: dict[str, Assessment] = {}
    for name, judgement in folder.judgements(summary.judge or "").items():
        # A sample that failed again after it was judged leaves its judgement behind.
        finished = name in predictions and predictions[name].error is None
        if finished and judgement.values is not None:
            assessments[name] = judgement.values
    if not assessments:
        raise UsageError(f"{path} has no judged record")
    return _Run(spec, summary, predictions, assessments)


def _describe_run(run: _Run) -> list[str]:
    """Setting, models, numbers of records, and warnings."""
    spec = run.spec
    summary = run.summary
    models = {"model": spec.model["name"]}
    for role in ("simulator", "judge"):
        if role in summary.roles:
            models[role] = summary.roles[role].model
    model_list = ", ".join(f"{role} {name}" for role, name in models.items())

    total = len(run.predictions)
    scored = len(run.assessments)
    failed = sum(prediction.error is not None for prediction in run.predictions.values())
    return [
        f"{spec.task} {spec.separation}/{spec.split}, {spec.method}, "
        f"history {spec.history}, {model_list}",
        f"scored {scored}, skipped {failed}, unjudged {total - failed - scored}; "
        f"criteria of a record: {_count_criteria(run.assessments)}; "
        f"options: {summary.task_changed or 'default'}",
        *(f"warning: {warning}" for warning in summary.warnings),
    ]


def _list_conditions(run: _Run) -> list[str]:
    """The conditions of a run in the order of the report; all records have the same."""
    first = next(iter(run.conditions.values()))
    return [name for name in CONDITIONS if name in first]


def _tabulate_conditions(run: _Run) -> list[str]:
    """PrefAlign and accuracy of each condition as a table."""
    table = [f"{'':18}PrefAlign  accuracy"]
    for name in _list_conditions(run):
        assessed = [conditions[name] for conditions in run.conditions.values()]
        prefalign = np.mean([values["prefalign"] for values in assessed])
        correct = [values["correct"] for values in assessed if values["correct"] is not None]
        accuracy = f"{np.mean(correct):8.3f}" if correct else f"{'n/a':>8}"
        table.append(f"{CONDITIONS[name]:18}{prefalign:9.3f}  {accuracy} (n={len(correct)})")
    return table


def _describe_normalign(run: _Run) -> list[str]:
    """NormAlign of each condition in which the method is at work."""
    problems = [find_problem(name, run.predictions[name].user_id) for name in run.assessments]
    descriptions = []
    for name in _list_conditions(run):
        if name in ("base", "known"):
            continue
        rows = np.array(
            [
                [conditions[column]["prefalign"] for column in ("base", "known", name)]
                for conditions in run.conditions.values()
            ]
        )
        descriptions.append(f"NormAlign, {CONDITIONS[name]}: {_format_normalign(rows, problems)}")
    return descriptions


def _format_normalign(rows: Any, problems: Sequence[str]) -> str:
    normalign = compute_normalign(rows)
    if np.isnan(normalign):
        return "n/a (known is not better than none)"
    interval = bootstrap_normalign(rows, problems)
    if interval is None:
        return f"{normalign:.1f}, no interval"
    low, high = interval
    return f"{normalign:.1f}, 95 % interval over problems {low:.1f} to {high:.1f}"


def _describe_questions(run: _Run) -> list[str]:
    """Mean number of questions, and the share of conversations without any."""
    counts = []
    for name in run.assessments:
        for condition in run.predictions[name].interaction["conditions"].values():
            if "questions" in condition:
                counts.append(condition["questions"])
    if not counts:
        return []
    without = np.mean([count == 0 for count in counts])
    return [f"questions: mean {np.mean(counts):.2f}, none in {without:.0%}"]


def _describe_deciders(run: _Run) -> str:
    """How often parser and judge decided correctness."""
    deciders: Counter[str] = Counter()
    for name in _list_conditions(run):
        deciders.update(conditions[name]["decided"] for conditions in run.conditions.values())
    counts = ", ".join(f"{decider} {count}" for decider, count in deciders.most_common())
    return f"correctness decided by: {counts}"


def _describe_usage(summary: Summary) -> list[str]:
    """Calls and tokens of each phase."""
    descriptions = []
    for phase, usage in sorted(summary.usage.items()):
        tokens = usage.input_tokens + usage.output_tokens
        descriptions.append(f"{phase}: {usage.calls:,.0f} calls, {tokens:,.0f} tokens")
    return descriptions


def _count_criteria(assessments: Mapping[str, Assessment]) -> str:
    """The number of judged criteria of a record, or its range."""
    counts = sorted({len(assessment["weights"]) for assessment in assessments.values()})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


if __name__ == "__main__":
    sys.exit(main())
