"""Options that several verbs share, spelled once."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from personabench.models.backends.base import BackendOptions
    from personabench.models.roles import RoleName

Results = Annotated[Path, typer.Option("--results", help="Folder of runs and cache.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder with the benchmark's files, or a copy of its official tree; else the bundled sample.",
        exists=True,
        file_okay=False,
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split", help="Separation/split, such as user/dev or time/dev; else the task's own."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Parameter as [method.]key=value or task.key=value; repeatable."),
]
Method = Annotated[str, typer.Option("--method", "-m", help="Method or file.py[:Class].")]
Task = Annotated[str, typer.Option("--task", "-t", help="Task or file.py[:Class].")]
OwnTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        "-t",
        help="The run's task as file.py[:Class], where it is not installed.",
        show_default=False,
    ),
]
OnlyTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        "-t",
        help="Only this task; as file.py[:Class] one that is not installed.",
        show_default=False,
    ),
]
Backend = Annotated[str, typer.Option("--backend", "-b", help="local, openai, vllm or scripted.")]
Model = Annotated[
    str | None,
    typer.Option("--model", help="Model name; for local a .gguf file or a hub repository."),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url", help="An OpenAI-compatible server, such as http://localhost:8000/v1."
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        help="Served LoRA adapter that answers, such as '{user_id}' for one per user; vllm.",
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        "--context-length", min=1, help="Context window in tokens, where the model cannot be asked."
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of all randomness.")]
History = Annotated[
    str, typer.Option("--history", help="Control: own, none, shuffled (another user's) or size=N.")
]
Temperature = Annotated[float, typer.Option("--temperature", min=0.0, help="Sampling temperature.")]
TopP = Annotated[float, typer.Option("--top-p", min=0.0, max=1.0, help="Nucleus sampling.")]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", min=1, help="Allowance of an answer; else the task's own."),
]
SimulatorBackend = Annotated[
    str | None,
    typer.Option(
        "--simulator-backend", help="Backend of the simulated user; else the model under test."
    ),
]
SimulatorModel = Annotated[
    str | None, typer.Option("--simulator-model", help="Model of the simulated user.")
]
SimulatorUrl = Annotated[
    str | None, typer.Option("--simulator-base-url", help="Server of the simulated user.")
]
JudgeBackend = Annotated[
    str | None,
    typer.Option("--judge-backend", help="Backend of the judge; else the model under test."),
]
JudgeModel = Annotated[str | None, typer.Option("--judge-model", help="Model of the judge.")]
JudgeUrl = Annotated[str | None, typer.Option("--judge-base-url", help="Server of the judge.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", min=0.001, help="Seconds one call to a server may take; 600 by default."
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        help="A further HTTP header, 'Name: value', kept secret; repeatable. openai, vllm.",
    ),
]
SimulatorHeaders = Annotated[
    list[str] | None,
    typer.Option(
        "--simulator-header",
        help="A further HTTP header for the simulated user's server; repeatable.",
    ),
]
JudgeHeaders = Annotated[
    list[str] | None,
    typer.Option(
        "--judge-header", help="A further HTTP header for the judge's server; repeatable."
    ),
]
VllmArgs = Annotated[
    str | None,
    typer.Option(
        "--vllm-args", help="Arguments for the server that --backend vllm starts, in quotes."
    ),
]
ApiVersion = Annotated[
    str | None,
    typer.Option(
        "--api-version", help="Azure: its API version, with --base-url and --model; openai."
    ),
]
Omit = Annotated[
    str | None,
    typer.Option(
        "--omit-params", help="Of temperature,top_p,seed, what a model will not be told; openai."
    ),
]
Rpm = Annotated[
    float | None, typer.Option("--rpm", min=0.001, help="Calls per minute at most; openai.")
]
Tpm = Annotated[
    float | None, typer.Option("--tpm", min=1.0, help="Tokens per minute at most; openai.")
]
Batch = Annotated[
    bool,
    typer.Option(
        "--batch", help="Send calls as batch jobs, cheaper and within a day each; openai."
    ),
]
Prices = Annotated[
    Path | None,
    typer.Option(
        "--prices", help='JSON {"MODEL": {"input": .., "output": ..}}, per million tokens.'
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", min=0.0, help="Stop before more than this is spent; with --prices."),
]
Metrics = Annotated[
    list[str] | None, typer.Option("--metric", help="A further metric, evaluate:NAME; repeatable.")
]
RESULTS = Path("results")


class CachePolicy(StrEnum):
    """What to do with stored responses."""

    use = "use"
    refresh = "refresh"
    off = "off"
    only = "only"


def names(text: str) -> list[str]:
    """A comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def words(vllm_args: str | None) -> tuple[str, ...]:
    """The words of `--vllm-args`.

    Raises:
        UsageError: a quote is not closed.
    """
    import shlex

    from personabench.errors import UsageError

    try:
        return tuple(shlex.split(vllm_args or ""))
    except ValueError as error:
        raise UsageError(f"--vllm-args: {error}") from error


def role_backends(
    backend: str,
    under: BackendOptions,
    headers: Mapping[str, Sequence[str] | None] | None = None,
    **asked: tuple[str | None, str | None, str | None],
) -> dict[RoleName, tuple[str, BackendOptions]]:
    """Backend and options of each role for which its backend, model or server was named.

    What is not named of a role's backend and server is as for the model under test.  A role on the same server sends
    the same headers, and each role those of its own: lines of `Name: value` in `headers`.

    Raises:
        UsageError: a line that is no header, or headers of a role that the model under test plays.
    """
    from personabench.errors import UsageError
    from personabench.models.backends import read_headers
    from personabench.models.backends.base import BackendOptions

    players: dict[str, tuple[str, BackendOptions]] = {}
    for role, (kind, model, url) in asked.items():
        lines = (headers or {}).get(role) or ()
        own = read_headers(lines, f"--{role}-header")
        if kind or model or url:
            options = BackendOptions(model, url, timeout=under.timeout, headers=own)
            if url is None and kind in (None, backend):
                shared = {**under.headers, **own}
                options = replace(
                    options, base_url=under.base_url, headers=shared, api_version=under.api_version
                )
            players[role] = (kind or backend, options)
        elif lines:
            raise UsageError(
                f"--{role}-header: the {role} is the model under test; name another with --{role}-model"
            )
    return cast("dict[RoleName, tuple[str, BackendOptions]]", players)


def emit(value: Any) -> None:
    """Print a value as indented JSON."""
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def screen() -> Console:
    """Standard output for people; as wide as it takes where it is no terminal, so that files are never cut."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
    return Console(highlight=False, width=wide)


class Executor(StrEnum):
    """Where a run is done."""

    process = "process"
    ray = "ray"


AnyResults = Annotated[
    str,
    typer.Option(
        "--results",
        help="Folder of runs and cache; with --executor ray also a URL, such as s3://..",
    ),
]


Grid = Annotated[
    list[str] | None,
    typer.Option(
        "--grid",
        help="Parameter as [method.]key=value,value: a run for each; repeatable, all combinations.",
    ),
]


Part = Annotated[
    str | None,
    typer.Option("--shard", help="i/n: only the i-th of n parts of the users; see merge."),
]


Where = Annotated[
    Executor, typer.Option("--executor", help="This process, or --shards tasks on a Ray cluster.")
]


Shards = Annotated[
    int | None, typer.Option("--shards", min=1, help="With --executor ray: into how many shards.")
]


RayOptions = Annotated[
    str | None,
    typer.Option(
        "--ray-options",
        help="Options of each shard's Ray task as JSON, such as '{\"num_gpus\": 1}'.",
    ),
]
