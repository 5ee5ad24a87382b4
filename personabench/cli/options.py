"""Options that several commands share, each declared once, and the help that groups them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from rich.console import Console
    from typer._click import Context, HelpFormatter
    from typer._click.core import Parameter

    from personabench.models.backends.base import BackendOptions
    from personabench.models.roles import RoleName

RESULTS = Path("results")

METHOD_PANEL = "Method"
DATA_PANEL = "Data"
MODEL_PANEL = "Model"
ROLES_PANEL = "Simulator and judge"
CONTROLS_PANEL = "Controls"
EXECUTION_PANEL = "Execution"
COST_PANEL = "Cost"
OUTPUT_PANEL = "Output"

# The order of the help page: the two required options come first.
PANELS = (
    METHOD_PANEL,
    DATA_PANEL,
    MODEL_PANEL,
    ROLES_PANEL,
    CONTROLS_PANEL,
    EXECUTION_PANEL,
    COST_PANEL,
    OUTPUT_PANEL,
)


class PlainCommand(TyperCommand):
    """A command whose help shows arguments without Python types."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write a section for the arguments and one for each group of options."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", *PANELS)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue

            name, text = record
            if parameter.param_type_name == "argument":
                # Typer appends the type, such as `<list[str]>`, even to an argument with a metavar.
                plain_name = name.partition(" <")[0]
                sections["Arguments"].append((plain_name, text))
            else:
                panel = self.find_panel(parameter)
                sections.setdefault(panel, []).append((name, text))

        for section, records in sections.items():
            if records:
                with formatter.section(section):
                    formatter.write_dl(records)

    def find_panel(self, parameter: Parameter) -> str:
        """Return the heading of an option; one heading is enough for a short list."""
        return "Options"


class PanelCommand(PlainCommand):
    """A command whose help groups its options by panel."""

    # Typer groups options with rich only, whose import takes longer than a help page should.
    def find_panel(self, parameter: Parameter) -> str:
        """Return the panel of an option."""
        # `--help` is added by the parser and has no panel.
        return getattr(parameter, "rich_help_panel", None) or OUTPUT_PANEL


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


# Runs -------------------------------------------------------------------------------------------

RunName = Annotated[
    str,
    typer.Argument(help="Run folder, first characters of a run id, or 'last'.", metavar="RUN"),
]

# Method -----------------------------------------------------------------------------------------

Method = Annotated[
    str,
    typer.Option(
        "--method",
        "-m",
        metavar="METHOD",
        help="Method name or file.py[:Class].",
        rich_help_panel=METHOD_PANEL,
    ),
]
Methods = Annotated[
    str,
    typer.Option(
        "--method",
        "-m",
        metavar="METHOD,..",
        help="Methods, separated by commas; each a name or file.py[:Class].",
        rich_help_panel=METHOD_PANEL,
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a parameter: [method.]key=value or task.key=value. Repeatable.",
        rich_help_panel=METHOD_PANEL,
    ),
]
Grid = Annotated[
    list[str] | None,
    typer.Option(
        "--grid",
        metavar="KEY=VALUE,..",
        help="Values to try: [method.]key=value,value. Repeatable; one run per combination.",
        rich_help_panel=METHOD_PANEL,
    ),
]

# Data -------------------------------------------------------------------------------------------

Task = Annotated[
    str,
    typer.Option(
        "--task",
        "-t",
        metavar="TASK",
        help="Task name or file.py[:Class].",
        rich_help_panel=DATA_PANEL,
    ),
]
Tasks = Annotated[
    str,
    typer.Option(
        "--task",
        "-t",
        metavar="TASK,..",
        help="Tasks, separated by commas; each a name or file.py[:Class].",
        rich_help_panel=DATA_PANEL,
    ),
]
OwnTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        "-t",
        metavar="FILE",
        help="The run's task as file.py[:Class], if it is not installed.",
        show_default=False,
        rich_help_panel=DATA_PANEL,
    ),
]
OnlyTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        "-t",
        metavar="TASK",
        help="Only this task; use file.py[:Class] if it is not installed.",
        show_default=False,
        rich_help_panel=DATA_PANEL,
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="SPLIT",
        help="Separation and split, such as user/dev or time/dev (default: set by the task).",
        rich_help_panel=DATA_PANEL,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FOLDER",
        help="Folder with the benchmark's files (default: the bundled example data).",
        exists=True,
        file_okay=False,
        rich_help_panel=DATA_PANEL,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        "-n",
        min=1,
        metavar="N",
        help="Number of samples, rounded up to whole users; raising it extends a run.",
        rich_help_panel=DATA_PANEL,
    ),
]
Target = Annotated[
    Path,
    typer.Option("--target", metavar="FOLDER", help="Folder to write the data set to."),
]

# Model ------------------------------------------------------------------------------------------

Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        "-b",
        metavar="BACKEND",
        help="local, openai, vllm or scripted.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Model name; for local, a .gguf file or a hub repository.",
        rich_help_panel=MODEL_PANEL,
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="URL",
        help="OpenAI-compatible server, such as http://localhost:8000/v1.",
        rich_help_panel=MODEL_PANEL,
    ),
]
ContextLength = Annotated[
    int | None,
    typer.Option(
        "--context-length",
        min=1,
        metavar="TOKENS",
        help="Context window, if the server does not report it.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Temperature = Annotated[
    float,
    typer.Option(
        "--temperature",
        min=0.0,
        metavar="T",
        help="Sampling temperature.",
        rich_help_panel=MODEL_PANEL,
    ),
]
TopP = Annotated[
    float,
    typer.Option(
        "--top-p",
        min=0.0,
        max=1.0,
        metavar="P",
        help="Nucleus sampling probability.",
        rich_help_panel=MODEL_PANEL,
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        min=1,
        metavar="TOKENS",
        help="Maximum tokens per answer (default: set by the task).",
        rich_help_panel=MODEL_PANEL,
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        metavar="NAME",
        help="vllm: served LoRA adapter, such as '{user_id}' for one per user.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="HEADER",
        help="openai, vllm: HTTP header as 'Name: value', kept secret. Repeatable.",
        rich_help_panel=MODEL_PANEL,
    ),
]
ApiVersion = Annotated[
    str | None,
    typer.Option(
        "--api-version",
        metavar="VERSION",
        help="openai: Azure API version; needs --base-url and --model.",
        rich_help_panel=MODEL_PANEL,
    ),
]
OmitParams = Annotated[
    str | None,
    typer.Option(
        "--omit-params",
        metavar="NAME,..",
        help="openai: parameters not to send, from temperature,top_p,seed.",
        rich_help_panel=MODEL_PANEL,
    ),
]
VllmArgs = Annotated[
    str | None,
    typer.Option(
        "--vllm-args",
        metavar="ARGS",
        help="vllm: arguments for the server to start, in quotes.",
        rich_help_panel=MODEL_PANEL,
    ),
]
EmbedderUrl = Annotated[
    str | None,
    typer.Option(
        "--embedder-base-url",
        metavar="URL",
        help="Embedding server (default: --base-url).",
        rich_help_panel=MODEL_PANEL,
    ),
]

# Simulator and judge ----------------------------------------------------------------------------

SimulatorBackend = Annotated[
    str | None,
    typer.Option(
        "--simulator-backend",
        metavar="BACKEND",
        help="Backend of the simulated user (default: the model under test).",
        rich_help_panel=ROLES_PANEL,
    ),
]
SimulatorModel = Annotated[
    str | None,
    typer.Option(
        "--simulator-model",
        metavar="MODEL",
        help="Model of the simulated user.",
        rich_help_panel=ROLES_PANEL,
    ),
]
SimulatorUrl = Annotated[
    str | None,
    typer.Option(
        "--simulator-base-url",
        metavar="URL",
        help="Server of the simulated user.",
        rich_help_panel=ROLES_PANEL,
    ),
]
SimulatorHeaders = Annotated[
    list[str] | None,
    typer.Option(
        "--simulator-header",
        metavar="HEADER",
        help="HTTP header for the simulated user's server. Repeatable.",
        rich_help_panel=ROLES_PANEL,
    ),
]
JudgeBackend = Annotated[
    str | None,
    typer.Option(
        "--judge-backend",
        metavar="BACKEND",
        help="Backend of the judge (default: the model under test).",
        rich_help_panel=ROLES_PANEL,
    ),
]
JudgeModel = Annotated[
    str | None,
    typer.Option(
        "--judge-model",
        metavar="MODEL",
        help="Model of the judge.",
        rich_help_panel=ROLES_PANEL,
    ),
]
JudgeUrl = Annotated[
    str | None,
    typer.Option(
        "--judge-base-url",
        metavar="URL",
        help="Server of the judge.",
        rich_help_panel=ROLES_PANEL,
    ),
]
JudgeHeaders = Annotated[
    list[str] | None,
    typer.Option(
        "--judge-header",
        metavar="HEADER",
        help="HTTP header for the judge's server. Repeatable.",
        rich_help_panel=ROLES_PANEL,
    ),
]

# Controls ---------------------------------------------------------------------------------------

History = Annotated[
    str,
    typer.Option(
        "--history",
        metavar="CONTROL",
        help="History given to the method: own, none, shuffled (another user's) or size=N.",
        rich_help_panel=CONTROLS_PANEL,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="N",
        help="Random seed.",
        rich_help_panel=CONTROLS_PANEL,
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        "--seeds",
        metavar="N,..",
        help="Several seeds, such as 0,1,2: one run per seed, pooled.",
        rich_help_panel=CONTROLS_PANEL,
    ),
]

# Execution --------------------------------------------------------------------------------------

Concurrency = Annotated[
    int | None,
    typer.Option(
        "--concurrency",
        "-j",
        min=1,
        metavar="N",
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

# Cost -------------------------------------------------------------------------------------------

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only print the expected calls, tokens and cost.",
        rich_help_panel=COST_PANEL,
    ),
]
Prices = Annotated[
    Path | None,
    typer.Option(
        "--prices",
        metavar="FILE",
        help='JSON {"MODEL": {"input": .., "output": ..}}, per million tokens.',
        rich_help_panel=COST_PANEL,
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        "--max-cost",
        min=0.0,
        metavar="AMOUNT",
        help="Stop before the cost exceeds this; needs --prices.",
        rich_help_panel=COST_PANEL,
    ),
]

# Output -----------------------------------------------------------------------------------------

Results = Annotated[
    Path,
    typer.Option(
        "--results",
        metavar="FOLDER",
        help="Folder of runs and cache.",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
ResultsOrUrl = Annotated[
    str,
    typer.Option(
        "--results",
        metavar="FOLDER",
        help="Folder of runs and cache; with --executor ray also a URL, such as s3://...",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar="METRIC",
        help="Additional metric, evaluate:NAME. Repeatable.",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON.", rich_help_panel=OUTPUT_PANEL),
]


def split_names(text: str) -> list[str]:
    """Split a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def split_vllm_args(vllm_args: str | None) -> tuple[str, ...]:
    """Split the value of `--vllm-args` as a shell would.

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
    **roles: tuple[str | None, str | None, str | None],
) -> dict[RoleName, tuple[str, BackendOptions]]:
    """Backend and options of each role that has its own backend, model or server.

    Args:
        backend: backend of the model under test.
        under: its options, which are the defaults of a role's backend and server.
        headers: `Name: value` lines for each role's server.
        roles: backend, model and URL of each role, as given on the command line.

    Raises:
        UsageError: a malformed header, or headers of a role that the model under test plays.
    """
    from personabench.errors import UsageError
    from personabench.models.backends import read_headers
    from personabench.models.backends.base import BackendOptions

    backends: dict[str, tuple[str, BackendOptions]] = {}
    for role, (role_backend, model, url) in roles.items():
        header_lines = (headers or {}).get(role) or ()
        role_headers = read_headers(header_lines, f"--{role}-header")

        if not (role_backend or model or url):
            if header_lines:
                raise UsageError(
                    f"--{role}-header: the {role} is the model under test; "
                    f"name another with --{role}-model"
                )
            continue

        options = BackendOptions(model, url, timeout=under.timeout, headers=role_headers)
        # Secrets of the model's server go to a role only if the role calls the same server.
        if url is None and role_backend in (None, backend):
            options = replace(
                options,
                base_url=under.base_url,
                headers={**under.headers, **role_headers},
                api_version=under.api_version,
            )
        backends[role] = (role_backend or backend, options)
    return cast("dict[RoleName, tuple[str, BackendOptions]]", backends)


def emit(value: Any) -> None:
    """Print a value as indented JSON."""
    import msgspec

    encoded = msgspec.json.encode(value)
    typer.echo(msgspec.json.format(encoded, indent=2).decode())


def screen() -> Console:
    """Open a console on standard output."""
    from rich.console import Console

    # Without a terminal rich assumes 80 columns, which would truncate tables written to a file.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
    return Console(highlight=False, width=width)
