"""What `personabench run` prints: facts before a run, its outcomes, and how to resume it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from personabench.cli.console import echo, emit, screen

if TYPE_CHECKING:
    from rich.console import Console

    from personabench.results.summary import Summary
    from personabench.run.options import Options
    from personabench.run.ray_executor import RayExecutor
    from personabench.run.runner import Outcome, ResolvedRun

# Their values are credentials, so the command to repeat is printed without them.
_SECRET_OPTIONS = ("--header", "--simulator-header", "--judge-header")


def print_outcomes(
    outcomes: Sequence[Outcome], results: Path, json: bool, cluster: RayExecutor | None
) -> None:
    """Print summaries as JSON, or the leaderboard and the run folders."""
    from personabench.cli.tables import print_boards
    from personabench.leaderboard import BoardOptions, boards
    from personabench.results.index import Run
    from personabench.results.summary import to_dict

    paths = [str(outcome.folder) for outcome in outcomes]
    if cluster:
        paths = [cluster.locate(outcome.folder) for outcome in outcomes]
    if json:
        summaries = [to_dict(outcome.summary) for outcome in outcomes]
        emit([{**summary, "folder": path} for summary, path in zip(summaries, paths, strict=True)])
        return

    finished = [Run(outcome.summary, outcome.folder) for outcome in outcomes]
    print_boards(boards(finished, options=BoardOptions(results=results)), screen())
    echo("run folders:" if len(outcomes) > 1 else "run folder:")
    for path in paths:
        echo(f"  {path}")


def print_notices(outcomes: Sequence[Outcome], announced: set[str], console: Console) -> None:
    """Print the warnings of runs that were not announced, and notices about their results."""
    from personabench.results.notices import collect_notices

    summaries = [outcome.summary for outcome in outcomes]
    for warning in dict.fromkeys(warning for summary in summaries for warning in summary.warnings):
        if warning not in announced:
            console.print(f"warning: {warning}", style="yellow", markup=False)
    for notice in collect_notices(summaries):
        console.print(f"warning: {notice}", style="yellow", markup=False, soft_wrap=True)


def describe_interrupted_state(summary: Summary) -> str:
    """Describe the work that an interrupt has left."""
    if summary.owed:
        return f"{summary.owed} samples are owed"
    unjudged_answers = summary.counters.get("unjudged", 0)
    if unjudged_answers:
        return f"{unjudged_answers} answers are not judged"
    return "not every call was repeated"


def print_failed_samples(outcomes: Sequence[Outcome], console: Console) -> bool:
    """Print how many samples failed, with the first error; return whether any is pending."""
    pending = sum(outcome.summary.owed for outcome in outcomes)
    if not pending:
        return False

    failed = sum(outcome.summary.counters["request_errors"] for outcome in outcomes)
    rest = f" and {pending - failed} more are owed" if pending > failed else ""
    failed_folders = [outcome.folder for outcome in outcomes if outcome.summary.owed]
    first = _first_error(failed_folders)
    console.print(
        f"error: {failed} samples failed{rest}; the first: {first}", markup=False, soft_wrap=True
    )
    logs = [log for folder in failed_folders for log in sorted(folder.glob("attempts/*.log"))[-1:]]
    console.print(f"log    {' '.join(map(str, logs))}", markup=False, soft_wrap=True)
    console.print(
        "All other samples are kept. Mend what the message names, or repeat the command as it is "
        "if a server failed: only the failed samples are tried again.",
        soft_wrap=True,
    )
    return True


def create_announcer(
    options_by_seed: Sequence[Options], console: Console, announced: set[str]
) -> Callable[[Sequence[ResolvedRun]], None]:
    """Return a function that prints the facts of a run before it starts.

    Args:
        options_by_seed: the options of the command, one for each seed.
        console: the console to print on.
        announced: receives the warnings that were printed.
    """
    options = options_by_seed[0]

    def announce(jobs: Sequence[ResolvedRun]) -> None:
        spec = jobs[0].spec
        if len(options_by_seed) > 1:
            console.print(f"seed   {spec.seed}", markup=False)
        # All seeds share data and model, which are announced once.
        if spec.seed != options.seed:
            return

        for source in dict.fromkeys(job.dataset.source for job in jobs):
            console.print(f"data   {source}", markup=False)
        if options.shard:
            console.print(
                f"shard  {options.shard}; join the shards with `personabench merge`", markup=False
            )
        console.print(f"model  {spec.model['name']}", markup=False)

        for job in jobs:
            for warning in (*job.dataset.warnings, *job.role_warnings):
                if warning not in announced:
                    console.print(f"warning: {warning}", style="yellow", markup=False)
                    announced.add(warning)
        _announce_limit(jobs, options.limit, console)

    return announce


def _announce_limit(jobs: Sequence[ResolvedRun], limit: int | None, console: Console) -> None:
    """Print the number of samples if whole users are more than `--limit` asks for."""
    for job in jobs:
        if limit and len(job.positions) > limit:
            index = job.dataset.index()
            users = len({index[position][1] for position in job.positions})
            user_count = f"{users} user{'s' * (users > 1)}"
            console.print(
                f"limit  {limit} rounded up to whole users: n={len(job.positions)}, {user_count}"
            )
            return


def print_interrupted(console: Console, state: str) -> None:
    """Print how to resume an interrupted command."""
    message, command = describe_interrupt(state).splitlines()
    console.print(message, style="yellow")
    console.print(command, markup=False, soft_wrap=True)


def describe_interrupt(state: str) -> str:
    """Say in two lines that a command was interrupted and how to resume it."""
    return f"interrupted; {state}. Go on with the same command:\n  {command_line()}"


def command_line() -> str:
    """Return the command as it was typed, without the values of headers and passwords of URLs."""
    import re
    import shlex

    words = ["personabench"]
    value_is_secret = False
    for word in sys.argv[1:]:
        option, equals, _ = word.partition("=")
        if value_is_secret or (equals and option in _SECRET_OPTIONS):
            words.append(re.sub(r":.*", ": ***", word, flags=re.S))
        else:
            # Up to the last @, since passwords are often not encoded.
            words.append(re.sub(r"://.*@", "://***@", word, flags=re.S))
        value_is_secret = word in _SECRET_OPTIONS
    return shlex.join(words)


def _first_error(folders: Sequence[Path]) -> str:
    """Return the first sample that failed, with its error."""
    from personabench.results.run_folder import RunFolder

    for folder in folders:
        # A sample that was tried again has several lines, of which the last counts.
        latest = {line.sample_id: line.error for line in RunFolder(folder).iter_predictions()}
        for sample_id, error in latest.items():
            if error:
                return f"{sample_id}: {error}"
    return "see predictions.jsonl"
