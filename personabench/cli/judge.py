"""`personabench judge` compares the answers of two runs; `judge-report` measures a judge."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personabench.cli.console import emit, screen
from personabench.cli.options import (
    RESULTS,
    CachePolicy,
    Concurrency,
    Json,
    OwnTask,
    Results,
    Seed,
    Timeout,
)
from personabench.cli.options import Cache as CacheOption
from personabench.cli.parsing import RoleArguments, role_options
from personabench.cli.role_options import (
    JudgeExtra,
    JudgeModel,
    JudgeOmit,
    JudgeReasoning,
    JudgeTemperature,
    JudgeUrl,
)
from personabench.errors import UsageError

if TYPE_CHECKING:
    from personabench.api.dataset import Dataset
    from personabench.api.task import Task
    from personabench.metrics.judges.verdict import Pick, Verdict
    from personabench.results.run_folder import RunFolder

Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help='Human labels: JSON lines {"id", "label"} with a, b or tie.',
        exists=True,
        dir_okay=False,
    ),
]


class JudgeProtocol(StrEnum):
    """How two answers are judged."""

    scores = "scores"
    certainty = "certainty"


def judge(
    a: Annotated[
        str,
        typer.Argument(help="Run folder, first characters of a run id, or 'last'.", metavar="A"),
    ],
    b: Annotated[
        str, typer.Argument(help="The run to compare it with, in the same form.", metavar="B")
    ],
    judge_backend: Annotated[
        str,
        typer.Option("--judge-backend", metavar="BACKEND", help="Backend of the judge."),
    ] = "local",
    judge_model: JudgeModel = None,
    judge_base_url: JudgeUrl = None,
    form: Annotated[
        JudgeProtocol,
        typer.Option(
            "--protocol",
            metavar="PROTOCOL",
            help="scores (FairEval, in both orders) or certainty (a choice as the user).",
        ),
    ] = JudgeProtocol.scores,
    samples: Annotated[
        int,
        typer.Option("--samples", min=1, metavar="N", help="scores: votes in each order."),
    ] = 3,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", min=0.0, metavar="T", help="scores: temperature of the votes."
        ),
    ] = 1.0,
    records: Annotated[
        int,
        typer.Option(
            "--records",
            min=0,
            metavar="N",
            help="Number of the user's newest records in the judge's prompt.",
        ),
    ] = 5,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            metavar="N",
            help="Number of samples, in file order (default: all).",
        ),
    ] = None,
    task: OwnTask = None,
    labels: Labels = None,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export",
            metavar="FILE",
            help="Write the fifth of the items with the most spread, for human labels.",
        ),
    ] = None,
    concurrency: Concurrency = None,
    seed: Seed = 0,
    timeout: Timeout = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            "--judge-header",
            metavar="HEADER",
            help="HTTP header as 'Name: value', kept secret. Repeatable.",
        ),
    ] = None,
    judge_temperature: JudgeTemperature = None,
    judge_omit: JudgeOmit = None,
    judge_extra: JudgeExtra = None,
    judge_reasoning: JudgeReasoning = None,
    results: Results = RESULTS,
    cache: CacheOption = CachePolicy.use,
    json: Json = False,
) -> None:
    """Have a judge compare two runs sample by sample.

    Prints wins, ties and losses with an interval over users, and the judge's conflicts between the two orders,
    spread and preference for the first answer. Verdicts are kept: repeat the command to add missing ones.
    """
    import asyncio
    import contextlib
    import re

    from personabench.api.source import source_hash
    from personabench.errors import PersonabenchError
    from personabench.leaderboard.pairwise_summary import summary
    from personabench.models import backends
    from personabench.models.backends import credentials
    from personabench.models.backends.base import BackendOptions
    from personabench.models.cache import Cache
    from personabench.models.client import Client
    from personabench.models.probe import Dialects, probe_request
    from personabench.models.roles import Role
    from personabench.results.index import find_run, label
    from personabench.results.locate import load_named_task
    from personabench.run import pairwise_judging

    runs = find_run(a, results), find_run(b, results)
    doubts = pairwise_judging.check(*runs)
    people = pairwise_judging.read_labels(labels) if labels else {}
    if task is not None:
        load_named_task(task, [folder.spec() for folder in runs])
    opened, dataset = _opened(*runs)
    wanted = list(pairwise_judging.pairs(*runs, dataset))[:limit]
    if not wanted:
        raise UsageError(
            "the two runs share no answered sample; run both on the same data and users"
        )
    arguments = RoleArguments(
        judge_backend,
        judge_model,
        judge_base_url,
        header,
        judge_temperature,
        judge_omit,
        judge_extra,
        judge_reasoning,
    )
    own = role_options("judge", arguments, timeout or BackendOptions.timeout)
    _, played = credentials.assign_secrets("", BackendOptions(), {"judge": (judge_backend, own)})
    _, options = played["judge"]

    async def ask() -> tuple[pairwise_judging.JudgeConfig, Path, list[Verdict], list[str]]:
        async with contextlib.AsyncExitStack() as stack:
            backend = backends.create(judge_backend, options)
            stack.push_async_callback(backend.aclose)
            await backend.identify()
            dialects = Dialects(results)
            request = probe_request(0.0, 1.0, seed)
            stored = dialects.recall(backend, request)
            if stored is not None:
                backend.adopt(stored.dialect)

            def agree() -> pairwise_judging.JudgeConfig:
                return pairwise_judging.terms(
                    backend.identity,
                    form.value,
                    samples=samples,
                    temperature=temperature,
                    seed=seed,
                    records=records,
                    task=source_hash(type(opened)),
                )

            path = pairwise_judging.path_of(results, *runs, agree())
            with pairwise_judging.writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            await backend.open(
                path.with_suffix(".log") if judge_backend in ("local", "vllm") else None
            )
            if stored is None and cache is not CachePolicy.only:
                await dialects.settle(backend, concurrency or backend.concurrency, request)
            agreed = agree()
            path = pairwise_judging.path_of(results, *runs, agreed)
            store = None
            if cache is not CachePolicy.off:
                store = stack.enter_context(
                    contextlib.closing(Cache(results / "cache.sqlite", writing=True))
                )
            client = Client(backend, store, cache.value, concurrency or backend.concurrency)
            with _progress(len(wanted)) as done:
                verdicts, failures = await pairwise_judging.duel(
                    wanted,
                    opened,
                    agreed,
                    path,
                    lambda user: Role("judge", client, user, seed),
                    workers=client.concurrency,
                    done=done,
                )
            return agreed, path, verdicts, failures

    if export is not None:
        _check_writable(export)
    try:
        agreed, path, verdicts, failures = asyncio.run(ask())
    except PersonabenchError as error:
        error.args = (re.sub(r"(?<!\w)--(?=(model|base-url)\b)", "--judge-", str(error)),)
        raise
    sides = {}
    for side, folder in zip("ab", runs, strict=True):
        run = folder.summary()
        sides[side] = {"label": label(run), "model": run.model, "run": run.fingerprint[:8]}
    found = {**summary(verdicts, agreed, sides, people), "failed": len(failures), "file": str(path)}
    found["warnings"] = [*doubts, *found["warnings"]]
    for warning in found["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    if export is not None:
        typer.echo(f"{_export(export, verdicts, people)} items to label: {export}", err=True)
    if json:
        emit(found)
    else:
        _print(found)
    if failures:
        typer.echo(
            f"error: {len(failures)} samples could not be judged; repeat the command to try them "
            f"again; the first: {failures[0]}",
            err=True,
        )
        sys.exit(1)


def judge_report(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Verdicts of `personabench judge`, or judgements of a run.",
            metavar="FILE",
            exists=True,
            dir_okay=False,
        ),
    ],
    labels: Labels = None,
    json: Json = False,
) -> None:
    """Report on a judge from its verdicts.

    For verdicts on pairs: biases, noise, accuracy against human labels, calibration and cost. For judgements of
    single answers: unjudged answers, repeated calls and cost.
    """
    import msgspec

    from personabench.metrics.judges.reliability import reliability_report, scoring_report
    from personabench.metrics.judges.verdict import Verdict
    from personabench.results.run_folder import RunFolder
    from personabench.run import pairwise_judging

    people = pairwise_judging.read_labels(labels) if labels else {}
    cards = {}
    for path in files:
        folder = RunFolder(path.absolute().parents[1])
        if folder.summary_path.exists() and f"judgements/{path.name}" in folder.summary().files:
            folder.verify(folder.path / "judgements" / path.name)
        lines = pairwise_judging.read_any(path)
        verdicts = [line for line in lines if isinstance(line, Verdict)]
        judgements = [line for line in lines if not isinstance(line, Verdict)]
        cards[str(path)] = msgspec.to_builtins(
            reliability_report(verdicts, people) if verdicts else scoring_report(judgements)
        )
    if json:
        emit(cards)
        return
    console = screen()
    for name, found in cards.items():
        console.print(name, style="bold", markup=False)
        for line in _card(found):
            console.print(f"  {line}", markup=False)


def _opened(a: RunFolder, b: RunFolder) -> tuple[Task, Dataset]:
    """Open the task and the data of two runs, if the data of either is unchanged.

    Raises:
        UsageError: the data of both has changed or moved.
    """
    import msgspec

    from personabench.api.registry import load_recorded
    from personabench.results.locate import find_dataset

    spec = a.spec()
    cls = load_recorded("task", spec.task, spec.task_hash)
    task: Task = cls(msgspec.convert(dict(spec.task_params), cls.Params))
    places = [None] if spec.sample else [folder.summary().data for folder in (a, b)]
    for place in places:
        if dataset := find_dataset(task, spec, place):
            return task, dataset
    looked = " and ".join(dict.fromkeys(place or "the bundled sample" for place in places))
    raise UsageError(f"the data of the runs has changed or moved since: {looked}")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal; the yielded function advances it by one item."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("judging", total=total)
        yield lambda: bar.advance(task)


def _check_writable(path: Path) -> None:
    """Check that `--export` can be written.

    Raises:
        UsageError: it cannot.
    """
    import tempfile

    # Checked before the first call, so that no verdict is paid for and then lost.
    if path.is_dir():
        raise UsageError(f"--export {path} is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UsageError(
            f"--export {path} cannot be written: {error.strerror or error}; name another file"
        ) from error


def _export(path: Path, verdicts: Sequence[Verdict], people: Mapping[str, Pick]) -> int:
    """Write the items worth a human label, with the labels given so far; return their number.

    Raises:
        UsageError: the file cannot be written.
    """
    from personabench.metrics.judges.faireval import select_for_review
    from personabench.results.export import replacing
    from personabench.types import to_json

    picks = {verdict.sample_id: verdict.pick for verdict in verdicts}
    items = []
    for sample_id in select_for_review(verdicts):
        item = {
            "id": sample_id,
            "label": people.get(sample_id),
            "judge": picks[sample_id],
        }
        items.append(to_json(item) + "\n")

    with replacing(path) as temporary:
        temporary.write_text("".join(items), encoding="utf-8")
    return len(items)


def _print(found: Mapping[str, Any]) -> None:
    console = screen()
    for side in "ab":
        run = found[side]
        console.print(
            f" {side.upper()}  {run['label']} · {run['model']} · {run['run']}", markup=False
        )
    terms, gain, shares = found["terms"], found["gain"], found["shares"]
    told = (
        f"{terms['samples']} replies in each order"
        if terms["form"] == "scores"
        else "a choice with a certainty"
    )
    labelled = ", people's labels in place of its own" if found["hitl"] else ""
    console.print(f" judge {terms['judge']['name']}: {told}{labelled}", markup=False)
    if found["n"]:
        wins = ", ".join(
            f"{word} {_share(shares[pick])}"
            for word, pick in (("wins", "a"), ("ties", "tie"), ("loses", "b"))
        )
        console.print(f" A {wins} of n={found['n']}, {found['users']} users", markup=False)
        span = (
            f"no interval: {gain['reason']}"
            if gain["low"] is None
            else f"{gain['low']:+.3f} … {gain['high']:+.3f}"
        )
        p = "–" if found["p"] is None else f"{found['p']:.4f}"
        console.print(
            f" wins minus losses {gain['value']:+.3f} ({span}; p {p}, sign-flip over users)",
            markup=False,
        )
    for line in _card(found["card"]):
        console.print(f" {line}", markup=False)
    console.print(f" {found['file']}", markup=False, style="dim", soft_wrap=True)


def _card(found: Mapping[str, Any]) -> list[str]:
    """Format a reliability report as lines, without the parts that were not measured."""
    unjudged = _share(found["unjudged"] / found["items"] if found["items"] else None)
    head = f"items {found['items']}, unjudged {found['unjudged']} ({unjudged})"
    tokens = f"{found['input_tokens']:,} tokens in, {found['output_tokens']:,} out"
    cost = f"calls {found['calls']:,}, {tokens}"
    if "votes" not in found:
        return [f"{head}; asked again {found['repeated']} times", cost]
    lines = [
        f"{head}; replies {found['votes']}, unread {found['unread']}",
        f"verdicts: a {found['win']}, tie {found['tie']}, b {found['loss']}",
    ]
    rates = (
        ("conflict", "orders that disagree, of items"),
        ("flip", "samples that disagree, of pairs in one order"),
        ("first", "votes for the answer shown first, of votes for either"),
    )
    for name, meaning in rates:
        if found[name]["n"]:
            lines.append(f"{name} {_share(found[name]['value'])} ({meaning}: {found[name]['n']})")
    if found["entropy"] is not None:
        lines.append(f"mean spread of votes {found['entropy']:.3f} of at most 1.099")
    for name, meaning in (
        ("agreement", "against people"),
        ("ties", "on items that people call a tie"),
    ):
        if each := found[name]:
            kappa = "undefined" if each["kappa"] is None else f"{each['kappa']:.3f}"
            lines.append(
                f"accuracy {_share(each['accuracy'])} {meaning}, kappa {kappa}, n={each['n']}"
            )
    for threshold, coverage, accuracy in found["coverage"]:
        lines.append(
            f"certainty ≥ {threshold}: covers {_share(coverage)}, accuracy {_share(accuracy)}"
        )
    if found["calibration"] is not None:
        lines.append(f"expected calibration error {found['calibration']:.3f}")
    return [*lines, cost]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
