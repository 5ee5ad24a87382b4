"""`personabench judge`: two runs' answers before a judge; `personabench judge-report`: what a judge is worth."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personabench.cli.options import (
    RESULTS,
    CachePolicy,
    Json,
    OwnTask,
    Results,
    Seed,
    Timeout,
    emit,
    screen,
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
        help='JSON lines {"id", "label"} with a, b or tie, as people see it.',
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
        str, typer.Argument(help="Run folder, first characters of a run's id, or 'last'.")
    ],
    b: Annotated[str, typer.Argument(help="The run it is compared with, named likewise.")],
    judge_backend: Annotated[
        str, typer.Option("--judge-backend", help="Backend of the judge.")
    ] = "local",
    judge_model: Annotated[
        str | None, typer.Option("--judge-model", help="Model of the judge.")
    ] = None,
    judge_base_url: Annotated[
        str | None, typer.Option("--judge-base-url", help="Server of the judge.")
    ] = None,
    form: Annotated[
        JudgeProtocol,
        typer.Option(
            "--protocol",
            help="FairEval's scores in both orders, or a choice in the person's place.",
        ),
    ] = JudgeProtocol.scores,
    samples: Annotated[
        int, typer.Option("--samples", min=1, help="With scores: replies in each order.")
    ] = 3,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="With scores: of the replies.")
    ] = 1.0,
    records: Annotated[
        int,
        typer.Option(
            "--records", min=0, help="The person's newest records that the judge is shown."
        ),
    ] = 5,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Samples, in file order; else all.")
    ] = None,
    task: OwnTask = None,
    labels: Labels = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", help="Write the fifth of the items with most spread, for people."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency", "-j", min=1, help="Calls in flight; else the backend's own number."
        ),
    ] = None,
    seed: Seed = 0,
    timeout: Timeout = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            "--judge-header",
            help="A further HTTP header, 'Name: value', kept secret; repeatable.",
        ),
    ] = None,
    results: Results = RESULTS,
    cache: Annotated[
        CachePolicy,
        typer.Option("--cache", help="Use stored responses, renew them, or call never."),
    ] = CachePolicy.use,
    json: Json = False,
) -> None:
    """Have a judge compare two runs sample by sample.

    Wins, ties and losses with an interval over users, and how the judge behaves: conflicts between the two orders,
    spread, share of first places. Verdicts are kept, so the same command asks only for what is missing.
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
    from personabench.models.roles import Role
    from personabench.results.index import find_run, label
    from personabench.results.locate import named
    from personabench.run import pairwise_judging

    runs = find_run(a, results), find_run(b, results)
    doubts = pairwise_judging.check(*runs)
    people = pairwise_judging.read_labels(labels) if labels else {}
    if task is not None:
        named(task, [folder.spec() for folder in runs])
    opened, dataset = _opened(*runs)
    wanted = list(pairwise_judging.pairs(*runs, dataset))[:limit]
    if not wanted:
        raise UsageError("the runs have no answered sample in common")
    own = BackendOptions(
        judge_model,
        judge_base_url,
        timeout=timeout or BackendOptions.timeout,
        headers=backends.read_headers(header or []),
    )
    _, played = credentials.share("", BackendOptions(), {"judge": (judge_backend, own)})
    _, options = played["judge"]

    async def ask() -> tuple[pairwise_judging.JudgeConfig, Path, list[Verdict], int]:
        async with contextlib.AsyncExitStack() as stack:
            backend = backends.create(judge_backend, options)
            stack.push_async_callback(backend.aclose)
            await backend.identify()
            agreed = pairwise_judging.terms(
                backend.identity,
                form.value,
                samples=samples,
                temperature=temperature,
                seed=seed,
                records=records,
                task=source_hash(type(opened)),
            )
            path = pairwise_judging.place(results, *runs, agreed)
            with pairwise_judging.writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            await backend.open(
                path.with_suffix(".log") if judge_backend in ("local", "vllm") else None
            )
            store = None
            if cache is not CachePolicy.off:
                store = stack.enter_context(
                    contextlib.closing(Cache(results / "cache.sqlite", writing=True))
                )
            client = Client(backend, store, cache.value, concurrency or backend.concurrency)
            with _progress(len(wanted)) as done:
                verdicts, failed = await pairwise_judging.duel(
                    wanted,
                    opened,
                    agreed,
                    path,
                    lambda user: Role("judge", client, user, seed),
                    workers=client.concurrency,
                    done=done,
                )
            return agreed, path, verdicts, failed

    if export is not None:
        _check_writable(export)
    try:
        agreed, path, verdicts, failed = asyncio.run(ask())
    except PersonabenchError as error:
        error.args = (re.sub(r"(?<!\w)--(?=(model|base-url)\b)", "--judge-", str(error)),)
        raise
    sides = {}
    for side, folder in zip("ab", runs, strict=True):
        run = folder.summary()
        sides[side] = {"label": label(run), "model": run.model, "run": run.fingerprint[:8]}
    found = {**summary(verdicts, agreed, sides, people), "failed": failed, "file": str(path)}
    found["warnings"] = [*doubts, *found["warnings"]]
    for warning in found["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    if export is not None:
        typer.echo(f"{_export(export, verdicts, people)} items for people: {export}", err=True)
    if json:
        emit(found)
    else:
        _print(found)
    if failed:
        typer.echo(
            f"error: {failed} samples could not be judged; repeat the command to try them again",
            err=True,
        )
        sys.exit(1)


def judge_report(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Verdicts of `personabench judge`, or judgements of a run.",
            exists=True,
            dir_okay=False,
        ),
    ],
    labels: Labels = None,
    json: Json = False,
) -> None:
    """Report on a judge from its verdicts.

    It says biases, noise, accuracy against people, calibration and cost. Of judgements of single answers it says what
    stayed unjudged, what was repeated, and the cost.
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
    """The task and the data of two runs, where the data still lies unchanged at the place of either.

    Raises:
        UsageError: it does not.
    """
    import msgspec

    from personabench.api.registry import recorded
    from personabench.results.locate import find_dataset

    spec = a.spec()
    cls = recorded("task", spec.task, spec.task_hash)
    task: Task = cls(msgspec.convert(dict(spec.task_params), cls.Params))
    places = [None] if spec.sample else [folder.summary().data for folder in (a, b)]
    for place in places:
        if dataset := find_dataset(task, spec, place):
            return task, dataset
    looked = " and ".join(dict.fromkeys(place or "the bundled sample" for place in places))
    raise UsageError(f"the data of the runs has changed or moved since: {looked}")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, silence elsewhere; what comes out is called after each item."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("judging", total=total)
        yield lambda: bar.advance(task)


def _check_writable(path: Path) -> None:
    """See before anything is paid for that a file can be written.

    Raises:
        UsageError: it cannot.
    """
    import tempfile

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
    """Write the items that people should look at, labels that are known filled in; returns how many.

    Raises:
        UsageError: the file cannot be written.
    """
    from personabench.metrics.judges.faireval import select_for_review
    from personabench.results.export import replacing
    from personabench.types import to_json

    picks = {verdict.sample_id: verdict.pick for verdict in verdicts}
    lines = [
        to_json({"id": name, "label": people.get(name), "judge": picks[name]}) + "\n"
        for name in select_for_review(verdicts)
    ]
    with replacing(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return len(lines)


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
    """A report card in lines; what was not asked for is left out."""
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
