"""Execute runs for a command, with progress, and say what came of them and how to resume."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from personabench.cli.console import screen
from personabench.cli.interruption import describe_interrupt, print_interrupted

if TYPE_CHECKING:
    from rich.console import Console

    from personabench.models.backends.base import Backend
    from personabench.run.options import Options
    from personabench.run.ray_executor import RayExecutor
    from personabench.run.runner import Outcome, ResolvedRun


def execute(
    options_by_seed: Sequence[Options],
    console: Console,
    announced: set[str],
    cluster: RayExecutor | None = None,
    notify: Callable[[Sequence[ResolvedRun]], None] | None = None,
    backend: Backend | None = None,
    *,
    quiet: bool = False,
) -> list[Outcome]:
    """Execute runs in this process or on a cluster; an interrupt ends the command.

    Args:
        options_by_seed: of each seed or, in a recipe, of each group of rows.
        announced: receives the warnings that were printed.
        notify: called with the runs of each of the options before their first call.
        backend: the model under test, in place of that of the options.
        quiet: print no progress, facts or warnings.
    """
    from personabench.cli.display import watching
    from personabench.run import runner
    from personabench.run.interrupts import run_command

    notices = screen(err=True, quiet=True) if quiet else console
    if cluster:
        return cluster.run(options_by_seed, functools.partial(notices.print, markup=False))

    announce_runs = _announcer(options_by_seed, notices, announced)

    def announce(jobs: Sequence[ResolvedRun]) -> None:
        announce_runs(jobs)
        if notify:
            notify(jobs)

    try:
        return run_command(
            runner.run(
                *options_by_seed,
                backend=backend,
                watch=watching(notices),
                announce=announce,
                tell=functools.partial(notices.print, markup=False, soft_wrap=True),
            ),
            farewell=describe_interrupt("finished samples are kept"),
        )
    except KeyboardInterrupt:
        print_interrupted(console, "finished samples are kept")
        sys.exit(130)


def conclude(
    outcomes: Sequence[Outcome],
    options: Options,
    announced: set[str],
    console: Console,
    *,
    quiet: bool = False,
) -> None:
    """Print warnings, costs and errors of runs; exit unless everything was done.

    Args:
        quiet: print errors only.
    """
    if not quiet:
        _print_notices(outcomes, announced, console)
    if options.prices and not quiet:
        spent = sum(outcome.summary.spent or 0.0 for outcome in outcomes)
        console.print(f"spent  {spent:.6g}", markup=False)
    if any(outcome.interrupted for outcome in outcomes):
        print_interrupted(console, _interrupted_state(outcomes))
        sys.exit(130)

    failed = _print_failed_samples(outcomes, console)
    missing_values = dict.fromkeys(outcome.missing_values for outcome in outcomes)
    for error in filter(None, missing_values):
        console.print(f"error: {error}", markup=False, soft_wrap=True)
    if failed or any(missing_values):
        sys.exit(1)


def _print_notices(outcomes: Sequence[Outcome], announced: set[str], console: Console) -> None:
    """Print the warnings of runs that were not announced, and notices about their results."""
    from personabench.results.notices import collect_notices

    summaries = [outcome.summary for outcome in outcomes]
    for warning in dict.fromkeys(warning for summary in summaries for warning in summary.warnings):
        if warning not in announced:
            console.print(f"warning: {warning}", style="yellow", markup=False)
    # A terminal breaks lines anywhere; a log should not have broken lines at all.
    soft_wrap = not console.is_terminal
    for notice in collect_notices(summaries):
        console.print(f"warning: {notice}", style="yellow", markup=False, soft_wrap=soft_wrap)


def _interrupted_state(outcomes: Sequence[Outcome]) -> str:
    """Describe the work that an interrupt has left, in the runs that it has kept from beginning
    as well."""
    summary, ahead = outcomes[-1].summary, outcomes[-1].ahead
    owed = sum(outcome.summary.owed for outcome in outcomes)
    if owed + ahead:
        rest = f", {ahead} of them in runs that have not begun" if ahead else ""
        return f"{owed + ahead} samples are owed{rest}"
    unjudged_answers = summary.counters.get("unjudged", 0)
    if unjudged_answers:
        return f"{unjudged_answers} answers are not judged"
    return "not every call was repeated"


def _print_failed_samples(outcomes: Sequence[Outcome], console: Console) -> bool:
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


def _announcer(
    options_by_seed: Sequence[Options], console: Console, announced: set[str]
) -> Callable[[Sequence[ResolvedRun]], None]:
    """Return a function that prints the facts of a run before it starts.

    Args:
        options_by_seed: the options of the command, one for each seed.
        console: the console to print on.
        announced: receives the warnings that were printed.
    """
    options = options_by_seed[0]
    seeds = {seed_options.seed for seed_options in options_by_seed}
    printed: set[str] = set()

    def print_once(line: str) -> None:
        if line not in printed:
            printed.add(line)
            console.print(line, markup=False, soft_wrap=True)

    def announce(jobs: Sequence[ResolvedRun]) -> None:
        spec = jobs[0].spec
        if len(seeds) > 1:
            console.print(f"seed   {spec.seed}", markup=False)
        # All seeds share data and model, which are announced once.
        if spec.seed != options.seed:
            return

        if options.environment:
            print_once(options.environment)
        for job in jobs:
            print_once(f"data   {job.dataset.source}")
        if options.shard:
            console.print(
                f"shard  {options.shard}; join the shards with `personabench merge`", markup=False
            )
        print_once(f"model  {spec.model['name']}")

        for job in jobs:
            for warning in job.warnings:
                if warning not in announced:
                    console.print(f"warning: {warning}", style="yellow", markup=False)
                    announced.add(warning)
        _announce_limit(jobs, options, console)

    return announce


def _announce_limit(jobs: Sequence[ResolvedRun], options: Options, console: Console) -> None:
    """Print the number of samples and users that a limit selects, if it does not say it itself."""
    limit, max_users = options.limit, options.users
    for job in jobs:
        index = job.dataset.index() if limit or max_users else ()
        users = len({index[position][1] for position in job.positions}) if index else 0
        size = f"n={len(job.positions)}, {users} user{'s' * (users != 1)}"
        if limit and len(job.positions) > limit:
            console.print(f"limit  {limit} rounded up to whole users: {size}")
            return
        if max_users:
            fewer = "; the data has no more" if users < max_users else ""
            chosen = " with the longest histories" if options.longest else ""
            console.print(f"users  {size}{chosen}{fewer}")
            return


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
