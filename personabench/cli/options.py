"""Options that several commands share, each declared once, and the help that groups them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.completion import (
    complete_backends,
    complete_methods,
    complete_models,
    complete_runs,
    complete_tasks,
)
from personabench.cli.help import (
    CONTROLS_PANEL,
    COST_PANEL,
    DATA_PANEL,
    METHOD_PANEL,
    MODEL_PANEL,
    OUTPUT_PANEL,
)
from personabench.cli.user_choice import UserChoice, read_users

RESULTS = Path("results")


class Reading(StrEnum):
    """The part of a reply that is scored."""

    answer = "answer"
    raw = "raw"


class Refusals(StrEnum):
    """How a refused reply is scored."""

    reply = "reply"
    empty = "empty"


# Runs -------------------------------------------------------------------------------------------

RunName = Annotated[
    str,
    typer.Argument(
        help="Run folder, first characters of a run id, or 'last'.",
        metavar="RUN",
        autocompletion=complete_runs,
    ),
]

# Run files --------------------------------------------------------------------------------------

RunFile = Annotated[
    Path | None,
    typer.Argument(
        help='Run file (TOML) with options by their names, such as task = "lamp4".',
        metavar="FILE",
        show_default=False,
    ),
]
SaveRunFile = Annotated[
    Path | None,
    typer.Option(
        "--save",
        metavar="FILE",
        help="Write the options of this command to a run file, without secrets.",
        dir_okay=False,
        rich_help_panel=OUTPUT_PANEL,
    ),
]

# Method -----------------------------------------------------------------------------------------

Method = Annotated[
    str,
    typer.Option(
        "--method",
        "-m",
        metavar="METHOD",
        autocompletion=complete_methods,
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
        autocompletion=complete_methods,
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
        autocompletion=complete_tasks,
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
        autocompletion=complete_tasks,
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
        autocompletion=complete_tasks,
        help="The run's task as file.py[:Class] or file.toml, if it is not installed.",
        show_default=False,
        rich_help_panel=DATA_PANEL,
    ),
]
OnlyMethod = Annotated[
    str | None,
    typer.Option(
        "--method",
        "-m",
        metavar="METHOD",
        autocompletion=complete_methods,
        help="Only this method; use file.py[:Class] if it is not installed.",
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
        autocompletion=complete_tasks,
        help="Only this task; use file.py[:Class] or file.toml if it is not installed.",
        show_default=False,
        rich_help_panel=DATA_PANEL,
    ),
]
WithReference = Annotated[
    bool,
    typer.Option(
        "--with-reference",
        help="Show published results (results/reference) as well.",
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
        metavar="PATH",
        help="Folder with the benchmark's files, or one file (default: the example data).",
        exists=True,
        rich_help_panel=DATA_PANEL,
    ),
]
MovedData = Annotated[
    list[Path] | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Folder or file of the runs' data, if it has moved. Repeatable.",
        exists=True,
        show_default=False,
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
Users = Annotated[
    UserChoice | None,
    typer.Option(
        "--users",
        parser=read_users,
        metavar="N|longest:N",
        help="Number of users, drawn or with the longest histories; raising it extends a run.",
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
        envvar="PERSONABENCH_BACKEND",
        autocompletion=complete_backends,
        help="local, openai, vllm or scripted.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        envvar="PERSONABENCH_MODEL",
        autocompletion=complete_models,
        help="Model name; for local, a .gguf file, a hub repository or packaged:q8_0.",
        rich_help_panel=MODEL_PANEL,
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="URL",
        envvar="PERSONABENCH_BASE_URL",
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
        envvar="PERSONABENCH_CONTEXT_LENGTH",
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
AdapterMap = Annotated[
    Path | None,
    typer.Option(
        "--adapter-map",
        metavar="FILE",
        help="Adapter of each user, by name (vllm) or folder (JSON; '*': all others).",
        exists=True,
        dir_okay=False,
        rich_help_panel=MODEL_PANEL,
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        metavar="MODEL",
        help="local: checkpoint that adapters were trained on, for trained methods.",
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
        help="openai, vllm: fields not to send, such as temperature,top_p,seed.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Extra = Annotated[
    list[str] | None,
    typer.Option(
        "--extra",
        metavar="KEY=JSON",
        help="Further field of every request, such as 'service_tier=\"flex\"'. Repeatable.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Reasoning = Annotated[
    str | None,
    typer.Option(
        "--reasoning",
        metavar="LEVEL",
        help="How much the model thinks: off, low, medium, high or a number of tokens.",
        rich_help_panel=MODEL_PANEL,
    ),
]
ReadingOption = Annotated[
    Reading,
    typer.Option(
        "--reading",
        metavar="READING",
        help="What is scored: the answer, or raw: the reply as it came, with its thought.",
        rich_help_panel=MODEL_PANEL,
    ),
]
RefusalsOption = Annotated[
    Refusals,
    typer.Option(
        "--refusals",
        metavar="KIND",
        help="Replies that a filter withholds or the model refuses: a reply as it came, or empty.",
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
        envvar="PERSONABENCH_PRICES",
        help='JSON {"MODEL": {"input": .., "output": ..}}, per million tokens.',
        rich_help_panel=COST_PANEL,
    ),
]
MaskFile = Annotated[
    Path | None,
    typer.Option(
        "--mask",
        metavar="FILE",
        help="Ids of samples with wrong golds, for an audited score beside.",
        dir_okay=False,
        show_default=False,
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
        envvar="PERSONABENCH_RESULTS",
        help="Folder of runs and cache.",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
ResultsOrUrl = Annotated[
    str,
    typer.Option(
        "--results",
        metavar="FOLDER",
        envvar="PERSONABENCH_RESULTS",
        help="Folder of runs and cache; with --executor ray also a URL, such as s3://BUCKET/FOLDER",
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
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Print the table and errors only.",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON.", rich_help_panel=OUTPUT_PANEL),
]
