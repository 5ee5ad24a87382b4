"""`python -m personabench.tasks.prefdisco RUN [OTHER]`: a run's report by condition, and its lift over another run."""

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
from personabench.tasks.prefdisco.scoring import by_problem, normalign

CONDITIONS = {
    "base": "no preference",
    "known": "known persona",
    "final": "final",
    "ask": "final, asking",
}
TASKS = ("prefdisco", "prefdisco_warm")


class Report(NamedTuple):
    """A run as text, and the final PrefAlign of each of its judged records."""

    text: str
    aligned: Mapping[str, float]
    history: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m personabench.tasks.prefdisco", description=__doc__
    )
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument(
        "other", type=Path, nargs="?", help="a run folder to compare with, such as a shuffled one"
    )
    given = parser.parse_args(arguments)
    try:
        own = report(given.run)
        print(own.text)
        if given.other:
            other = report(given.other)
            both = sorted(own.aligned.keys() & other.aligned.keys())
            if not both:
                raise UsageError(f"{given.run} and {given.other} have no judged record in common")
            gain = np.mean([own.aligned[name] - other.aligned[name] for name in both])
            print(f"\n{other.text}\n")
            print(
                f"lift in PrefAlign: {gain:+.3f} ({own.history} over {other.history} history, n={len(both)})"
            )
    except PersonabenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def report(path: Path) -> Report:
    """What is to be told of a run.

    Raises:
        UsageError: the folder holds no judged run of either task.
    """
    folder = RunFolder(path)
    if not (path / "summary.json").is_file():
        raise UsageError(f"{path} is not a finished run folder")
    summary, spec = folder.summary(), folder.spec()
    if spec.task not in TASKS:
        raise UsageError(f"{path} is a run of {spec.task}; this tells of {' and '.join(TASKS)}")
    folder.verify_all()
    lines = {line.sample_id: line for line in folder.iter_predictions()}
    judged = {
        name: each.values
        for name, each in folder.judgements(summary["judge"]).items()
        if each.values is not None and name in lines and lines[name].error is None
    }
    if not judged:
        raise UsageError(f"{path} has no judged record")
    values: dict[str, Any] = {name: told["conditions"] for name, told in judged.items()}
    failed = sum(line.error is not None for line in lines.values())
    players = {"model": spec.model["name"]} | {
        role: summary["roles"][role]["model"]
        for role in ("simulator", "judge")
        if role in summary["roles"]
    }
    told = [
        f"{spec.task} {spec.separation}/{spec.split}, {spec.method}, history {spec.history}, "
        + ", ".join(f"{role} {name}" for role, name in players.items()),
        f"scored {len(values)}, skipped {failed}, unjudged {len(lines) - failed - len(values)}; "
        f"criteria of a record: {_most(judged)}; options: {summary['task_changed'] or 'default'}",
        *(f"warning: {each}" for each in summary["warnings"]),
        f"{'':18}PrefAlign  accuracy",
    ]
    present = [name for name in CONDITIONS if name in next(iter(values.values()))]
    for name in present:
        right = [
            each[name]["correct"] for each in values.values() if each[name]["correct"] is not None
        ]
        share = f"{np.mean(right):8.3f}" if right else f"{'n/a':>8}"
        told.append(f"{CONDITIONS[name]:18}{_mean(values, name):9.3f}  {share} (n={len(right)})")
    problems = [problem_of(name, lines[name].user_id) for name in values]
    for name in present[2:]:
        rows = np.array(
            [
                [each[key]["prefalign"] for key in ("base", "known", name)]
                for each in values.values()
            ]
        )
        low_high = by_problem(rows, problems)
        span = (
            f"95 % interval over problems {low_high[0]:.1f} to {low_high[1]:.1f}"
            if low_high
            else "no interval"
        )
        found = normalign(rows)
        told.append(
            f"NormAlign, {CONDITIONS[name]}: "
            + ("n/a (known is not better than none)" if np.isnan(found) else f"{found:.1f}, {span}")
        )
    questions = [
        each["questions"]
        for name in values
        for each in lines[name].record["conditions"].values()
        if "questions" in each
    ]
    if questions:
        told.append(
            f"questions: mean {np.mean(questions):.2f}, none in {np.mean([not each for each in questions]):.0%}"
        )
    decided = Counter(each[name]["decided"] for each in values.values() for name in present)
    told.append(
        "correctness decided by: "
        + ", ".join(f"{who} {count}" for who, count in decided.most_common())
    )
    for phase, spent in sorted(summary["usage"].items()):
        tokens = spent["input_tokens"] + spent["output_tokens"]
        told.append(f"{phase}: {spent['calls']:,.0f} calls, {tokens:,.0f} tokens")
    return Report(
        "\n".join(told),
        {name: each["final"]["prefalign"] for name, each in values.items()},
        spec.history,
    )


def problem_of(record: str, persona: str) -> str:
    """What the names of a problem's records share: `problem_<i>_`, else all but the persona at the end."""
    named = re.match(r"problem_\d+_", record)
    return named[0] if named else record.removesuffix(persona)


def _mean(values: Mapping[str, Any], condition: str) -> float:
    return float(np.mean([each[condition]["prefalign"] for each in values.values()]))


def _most(judged: Mapping[str, Any]) -> str:
    counts = sorted({len(told["weights"]) for told in judged.values()})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


if __name__ == "__main__":
    sys.exit(main())
