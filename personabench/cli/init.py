"""`personabench init`: write a commented run file to start from."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from personabench.cli.console import echo

DEFAULT = Path("experiment.toml")

TEMPLATE = """\
# An experiment: options of `personabench run`, named as on the command line.
#   personabench run {file} --dry-run     calls, tokens and time; calls no model
#   personabench run {file}               runs it; the same command resumes
# Typed options win over this file, and this file over PERSONABENCH_MODEL and its like.
# All options: personabench run --help

# Methods and tasks: names (`personabench list`), or files of your own such as "./mine.py".
# `none` answers without the user's history: gains are measured against it.
method = ["none", "rag"]
task = "lamp4"

# The benchmark's files; without them the task's example data is used, which proves nothing.
# `personabench download TASK` gets them.
# data = "data/lamp4"
# split = "user/dev"

# So many users, with all their samples; an interval needs 6. Raising it extends the runs.
users = 8

# The model under test. Without these lines: the small model that is installed with personabench.
# backend = "openai"
# base-url = "http://localhost:8000/v1"
# model = "Qwen/Qwen2.5-7B-Instruct"
# concurrency = 16

# Controls. With "shuffled", each user gets another user's history: a method that gains as much then
# has learned the format and not the person. To compare both, run the file twice, the second time
# with --method rag --history shuffled.
# history = "shuffled"
# seeds = [0, 1, 2]

# Parameters of methods (`personabench list methods rag` shows them) and, as task.NAME, of tasks.
# [set]
# "rag.k" = 4
# "task.template" = "lamp-official"

# Several values make a run each, and so does every combination.
# [grid]
# "rag.k" = [2, 4, 8]

# Further models, for tasks with a judge or a simulated user. [profile] writes profiles.
# [judge]
# model = "gpt-5-mini"
# [simulator]
# model = "gpt-5-mini"

# Money per million tokens, {{"MODEL": {{"input": 0.15, "output": 0.6}}}}, and the most to spend.
# prices = "prices.json"
# max-cost = 5
"""


def init(
    file: Annotated[
        Path, typer.Argument(help="File to write, ending in .toml.", metavar="FILE")
    ] = DEFAULT,
) -> None:
    """Write a commented run file to start from.

    `personabench run experiment.toml` runs it.
    """
    from personabench.cli.run_file import ENDING
    from personabench.errors import UsageError

    if file.suffix != ENDING:
        raise UsageError(f"{file}: name a file that ends in {ENDING}")
    if file.exists():
        raise UsageError(f"{file} exists; name another file, or run it: personabench run {file}")
    name = quote(str(file))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(TEMPLATE.format(file=name), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}") from error
    echo(f"wrote {file}")
    echo("next:")
    echo(f"  personabench run {name} --dry-run    # calls, tokens and time")
    echo(f"  personabench run {name}              # runs it; the same command resumes")
    echo("  personabench report                           # the page of all runs")
