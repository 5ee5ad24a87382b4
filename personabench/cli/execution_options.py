"""Options about the execution of calls and runs: concurrency, cache, time limits, shards."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from personabench.cli.help import EXECUTION_PANEL


class CachePolicy(StrEnum):
    """What to do with stored responses."""

    use = "use"
    refresh = "refresh"
    off = "off"
    only = "only"


class Executor(StrEnum):
    """What executes a run."""

    process = "process"
    ray = "ray"


Concurrency = Annotated[
    int | None,
    typer.Option(
        "--concurrency",
        "-j",
        min=1,
        metavar="N",
        envvar="PERSONABENCH_CONCURRENCY",
        help="Calls in flight (default: set by the backend).",
        rich_help_panel=EXECUTION_PANEL,
    ),
]
Cache = Annotated[
    CachePolicy,
    typer.Option(
        "--cache",
        metavar="POLICY",
        help="Response cache: use, refresh (call again, overwrite), off, only (fail on a miss).",
        rich_help_panel=EXECUTION_PANEL,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        min=0.001,
        metavar="SECONDS",
        help="Time limit of one call to a server (default: 600).",
        rich_help_panel=EXECUTION_PANEL,
    ),
]
SampleTimeout = Annotated[
    float | None,
    typer.Option(
        "--sample-timeout",
        min=0.001,
        metavar="SECONDS",
        help="Time limit of one sample, profile included; a sample over it fails (default: none).",
        rich_help_panel=EXECUTION_PANEL,
    ),
]
StartTimeout = Annotated[
    float,
    typer.Option(
        "--start-timeout",
        min=1.0,
        metavar="SECONDS",
        help="vllm: time limit for the server to start.",
        rich_help_panel=EXECUTION_PANEL,
    ),
]
RequestsPerMinute = Annotated[
    float | None,
    typer.Option(
        "--rpm",
        min=0.001,
        metavar="N",
        help="openai: maximum calls per minute.",
        rich_help_panel=EXECUTION_PANEL,
    ),
]
TokensPerMinute = Annotated[
    float | None,
    typer.Option(
        "--tpm",
        min=1.0,
        metavar="N",
        help="openai: maximum tokens per minute.",
        rich_help_panel=EXECUTION_PANEL,
    ),
]
Batch = Annotated[
    bool,
    typer.Option(
        "--batch",
        help="openai: send calls as batch jobs, cheaper, each done within a day.",
        rich_help_panel=EXECUTION_PANEL,
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Run only part I of N of the users; join the parts with `merge`.",
        rich_help_panel=EXECUTION_PANEL,
    ),
]
ExecutorOption = Annotated[
    Executor,
    typer.Option(
        "--executor",
        metavar="EXECUTOR",
        help="process (this one) or ray (--shards tasks on a Ray cluster).",
        rich_help_panel=EXECUTION_PANEL,
    ),
]
Shards = Annotated[
    int | None,
    typer.Option(
        "--shards",
        min=1,
        metavar="N",
        help="ray: number of shards.",
        rich_help_panel=EXECUTION_PANEL,
    ),
]
RayOptions = Annotated[
    str | None,
    typer.Option(
        "--ray-options",
        metavar="JSON",
        help="ray: options of each shard's task, such as '{\"num_gpus\": 1}'.",
        rich_help_panel=EXECUTION_PANEL,
    ),
]
