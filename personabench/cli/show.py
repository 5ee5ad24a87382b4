"""`personabench show`: a run's protocol and scores, or everything about one of its samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personabench.cli.options import RESULTS, Json, Results, emit

if TYPE_CHECKING:
    from personabench.runfolder import RunFolder


def show(
    run: Annotated[str, typer.Argument(help="Run folder, the first characters of its fingerprint, or 'last'.")],
    sample: Annotated[str | None, typer.Argument(help="A sample's id.", show_default=False)] = None,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Show a run, or one sample of it: messages, answer, references, scores, calls."""
    folder = find_run(run, results)
    if sample is None:
        summary = folder.summary()
        if json:
            emit(summary)
        else:
            _print_run(folder, summary)
        return
    facts = about_sample(folder, sample, results)
    if json:
        emit(facts)
    else:
        _print_sample(facts)


def find_run(name: str, results: Path) -> RunFolder:
    """The run a person means by a folder, the start of a fingerprint, or "last".

    Raises:
        UsageError: no run, or several, fit.
    """
    from personabench.errors import UsageError
    from personabench.runfolder import RunFolder

    if (Path(name) / "spec.json").is_file():
        return RunFolder(Path(name))
    found = sorted(results.glob("runs/*/*/*/*/spec.json"), key=lambda path: path.stat().st_mtime)
    if name == "last" and found:
        return RunFolder(found[-1].parent)
    fitting = [path.parent for path in found if len(name) >= 4 and path.parent.name.startswith(name[:8])]
    if len(fitting) != 1:
        what = "several runs" if fitting else "no run"
        raise UsageError(f"{what} under {results}/runs fit '{name}'; `personabench list runs` names them")
    return RunFolder(fitting[0])


def about_sample(folder: RunFolder, sample_id: str, results: Path) -> dict[str, Any]:
    """Everything known of one sample of a run.

    Raises:
        UsageError: the run has no such sample.
    """
    from personabench.cache import Cache
    from personabench.errors import UsageError
    from personabench.types import to_json

    prediction = folder.prediction(sample_id)
    if prediction is None:
        raise UsageError(f"{folder.path} has no prediction for sample '{sample_id}'")
    score = next((line for line in folder.scores() if line.sample_id == sample_id), None)
    profile = next((line for line in folder.profiles().values() if line.user_id == prediction.user_id), None)
    cache_path = results / "cache.sqlite"
    cache = Cache(cache_path) if cache_path.exists() else None
    calls = []
    for call in [*(profile.calls if profile else ()), *prediction.calls]:
        request = cache.request(call.key) if cache else None
        response = cache.get(call.key) if cache else None
        calls.append(
            {
                "key": call.key,
                "phase": call.phase,
                "cached": call.cached,
                "input_tokens": call.input_tokens,
                "output_tokens": call.output_tokens,
                "messages": request and [{"role": m.role, "content": m.content} for m in request.messages],
                "reply": response and response.text,
            }
        )
    if cache is not None:
        cache.close()
    import msgspec

    return {
        "sample_id": sample_id,
        "user_id": prediction.user_id,
        "profile": profile.state if profile else None,
        "calls": calls,
        "output": prediction.output,
        "parsed": prediction.parsed,
        "references": _references(folder, sample_id),
        "values": score and msgspec.json.decode(to_json(score.values)),
        "flags": dict(prediction.flags),
        "error": prediction.error,
    }


def _references(folder: RunFolder, sample_id: str) -> list[str] | None:
    """Gold outputs, where the run's data is still at its place and unchanged."""
    from personabench.errors import PersonabenchError
    from personabench.registry import load

    spec, summary = folder.spec(), folder.summary()
    try:
        task = load("task", spec.task)()
        place = summary.get("data")
        dataset = task.open(f"{spec.separation}/{spec.split}", Path(place) if place else None)
    except PersonabenchError:
        return None
    if dataset.hash != spec.data_hash:
        return None
    position = next((at for at, (name, _) in enumerate(dataset.index()) if name == sample_id), None)
    return None if position is None else list(dataset.load(position).references)


def _print_run(folder: RunFolder, summary: dict[str, Any]) -> None:
    from rich.console import Console

    from personabench.cli.board import print_boards
    from personabench.leaderboard import boards

    console = Console(highlight=False)
    print_boards(boards([summary]), console)
    for name in ("status", "seed", "fingerprint", "data_hash", "sampling", "params", "parse_failures", "counters"):
        console.print(f"{name:14} {summary.get(name)}", markup=False, soft_wrap=True)
    for phase, spent in summary["usage"].items():
        console.print(f"{phase:14} {spent}", markup=False, soft_wrap=True)
    console.print(f"{'folder':14} {folder.path}", markup=False, soft_wrap=True)


def _print_sample(facts: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False)

    def head(text: str) -> None:
        console.rule(text, align="left", style="dim")

    for call in facts["calls"]:
        origin = "stored" if call["cached"] else "paid"
        head(
            f"{call['phase']} call {call['key'][:12]}, {origin}, {call['input_tokens']} + {call['output_tokens']} tokens"
        )
        for message in call["messages"] or []:
            console.print(message["role"], style="bold")
            console.print(message["content"], markup=False, soft_wrap=True)
        if call["messages"] is None:
            console.print("the messages are no longer in the cache", style="dim")
        else:
            console.print("reply", style="bold")
            console.print(call["reply"] or "", markup=False, soft_wrap=True)
    head(f"sample {facts['sample_id']} of user {facts['user_id']}")
    for name in ("output", "parsed", "references", "values", "flags", "error"):
        console.print(f"{name:11} {facts[name]}", markup=False, soft_wrap=True)
