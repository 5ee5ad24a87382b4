"""`personabench doctor`: check the installation."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.console import echo, emit
from personabench.cli.options import RESULTS, Json, Results

_OPTIONAL_MODULES = {
    "xllamacpp": "local backend",
    "wordllama": "dense retrieval",
    "vllm": "vllm extra",
}

_KEYS = {
    "OPENAI_API_KEY": "OpenAI's API",
    "AZURE_OPENAI_API_KEY": "models on Azure",
    "VLLM_API_KEY": "vLLM servers that ask for a key",
    "SIMULATOR_API_KEY": "a simulator on a server of its own",
    "JUDGE_API_KEY": "a judge on a server of its own",
    "EMBEDDER_API_KEY": "an embedder on a server of its own",
}


# The lengths of a question of LaMP-4 without and with eight records, in words of one token.
_SHORT_PROMPT = 80
_LONG_PROMPT = 640
_REPLY_TOKENS = 20


def doctor(
    results: Results = RESULTS,
    skip_model: Annotated[
        bool, typer.Option("--skip-model", help="Do not time the local model.")
    ] = False,
    json: Json = False,
) -> None:
    """Check installation, local model, tasks and results folder."""
    from personabench.run.run_facts import versions

    rows = [_row(name, "ok", version) for name, version in versions().items()]
    rows.append(_check_local_model(timed=not skip_model))
    for module, purpose in _OPTIONAL_MODULES.items():
        # Looked up without importing, which takes seconds for vllm.
        state = "ok" if importlib.util.find_spec(module) else "missing"
        rows.append(_row(module, state, purpose))

    rows += _check_tasks()
    rows += [_check_key(variable, purpose) for variable, purpose in _KEYS.items()]
    rows.append(_check_results(results))

    if json:
        emit(rows)
    else:
        for row in rows:
            echo(f"{row['state']:8} {row['what']:22} {row['detail']}")
    # A missing optional part is no failure: other backends and methods work without it.
    if any(row["state"] == "broken" for row in rows):
        sys.exit(1)


def _row(what: str, state: str, detail: str) -> dict[str, str]:
    return {"what": what, "state": state, "detail": detail}


def _check_key(variable: str, purpose: str) -> dict[str, str]:
    """Check whether a key is set, without a word of its value."""
    is_set = os.environ.get(variable, "").strip()
    return _row(variable, "ok", "set" if is_set else f"not set; for {purpose}")


def _check_tasks() -> list[dict[str, str]]:
    """Check installed tasks on their example data for missing requirements."""
    from personabench.api.registry import list_entries

    return [_check_task(name) for name in list_entries("task")]


def _check_task(name: str) -> dict[str, str]:
    from personabench.api.guard import create
    from personabench.api.registry import load_class
    from personabench.api.users import open_split
    from personabench.errors import PersonabenchError

    what = f"task {name}"
    try:
        task = create(load_class("task", name))
        dataset = open_split(task, task.default_split, None)
    except PersonabenchError as error:
        # The task's own code is at fault, or it has no example data.
        return _row(what, "missing", str(error))

    if dataset.missing_requirement:
        return _row(what, "missing", dataset.missing_requirement)
    lacks = task.describe_missing()
    detail = f"{len(dataset.index())} samples of {dataset.source}"
    return _row(what, "partly" if lacks else "ok", lacks or detail)


def _check_local_model(timed: bool) -> dict[str, str]:
    """Check that a model file for the local backend exists, and how long its calls take."""
    from personabench.errors import PersonabenchError
    from personabench.models.backends.local import find_model

    try:
        name = find_model(None).name
        if not timed:
            return _row("local model", "ok", name)
        short, long = asyncio.run(_time_calls())
    except PersonabenchError as error:
        return _row("local model", "missing", str(error))
    seconds = f"{short:.1f} s a call, {long:.1f} s with eight records of a user"
    return _row("local model", "ok", f"{name}: {seconds}")


async def _time_calls() -> tuple[float, float]:
    """Seconds of a short and of a long call of the local model, one at a time."""
    import tempfile

    from personabench.models.backends.base import BackendOptions
    from personabench.models.backends.local import Local
    from personabench.types import Message, Request

    backend = Local(BackendOptions())
    await backend.identify()
    with tempfile.TemporaryDirectory() as folder:
        await backend.open(Path(folder) / "llama.log")
        try:
            seconds = []
            for length in (_SHORT_PROMPT, _LONG_PROMPT):
                # Prompts that differ from the first word share no cached prefix.
                prompt = f"{length}" + " time" * length
                request = Request((Message("user", prompt),), max_tokens=_REPLY_TOKENS)
                start = time.perf_counter()
                await backend.complete(request, "")
                seconds.append(time.perf_counter() - start)
        finally:
            await backend.aclose()
    return seconds[0], seconds[1]


def _check_results(results: Path) -> dict[str, str]:
    """Check that the results folder can be written."""
    import tempfile

    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            return _row("results folder", "ok", str(results))
    except OSError as error:
        return _row("results folder", "broken", f"{results}: {error.strerror}")
