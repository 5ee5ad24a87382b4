"""Options of the models beside the one under test: the simulated user and the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.help import ROLES_PANEL

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
SimulatorTemperature = Annotated[
    float | None,
    typer.Option(
        "--simulator-temperature",
        min=0.0,
        metavar="T",
        help="Temperature of the simulated user (default: set by the task).",
        rich_help_panel=ROLES_PANEL,
    ),
]
SimulatorOmit = Annotated[
    str | None,
    typer.Option(
        "--simulator-omit-params",
        metavar="NAME,..",
        help="Fields not to send to the simulated user.",
        rich_help_panel=ROLES_PANEL,
    ),
]
SimulatorExtra = Annotated[
    list[str] | None,
    typer.Option(
        "--simulator-extra",
        metavar="KEY=JSON",
        help="Further field of requests to the simulated user. Repeatable.",
        rich_help_panel=ROLES_PANEL,
    ),
]
SimulatorReasoning = Annotated[
    str | None,
    typer.Option(
        "--simulator-reasoning",
        metavar="LEVEL",
        help="How much the simulated user thinks, as in --reasoning.",
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
JudgeRubric = Annotated[
    Path | None,
    typer.Option(
        "--judge-rubric",
        metavar="FILE",
        help="Criteria and scale (YAML) by which the judge scores the answers of text tasks.",
        exists=True,
        dir_okay=False,
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
JudgeTemperature = Annotated[
    float | None,
    typer.Option(
        "--judge-temperature",
        min=0.0,
        metavar="T",
        help="Temperature of the judge (default: set by the task).",
        rich_help_panel=ROLES_PANEL,
    ),
]
JudgeOmit = Annotated[
    str | None,
    typer.Option(
        "--judge-omit-params",
        metavar="NAME,..",
        help="Fields not to send to the judge.",
        rich_help_panel=ROLES_PANEL,
    ),
]
JudgeExtra = Annotated[
    list[str] | None,
    typer.Option(
        "--judge-extra",
        metavar="KEY=JSON",
        help="Further field of requests to the judge. Repeatable.",
        rich_help_panel=ROLES_PANEL,
    ),
]
JudgeReasoning = Annotated[
    str | None,
    typer.Option(
        "--judge-reasoning",
        metavar="LEVEL",
        help="How much the judge thinks, as in --reasoning.",
        rich_help_panel=ROLES_PANEL,
    ),
]
