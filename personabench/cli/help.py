"""Help pages of the command line, options in panels, and options from the environment."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperOption

from personabench.cli.console import echo

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter
    from typer._click.core import Parameter


METHOD_PANEL = "Method"
DATA_PANEL = "Data"
MODEL_PANEL = "Model"
ROLES_PANEL = "Further models"
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


OFFLINE_HELP = "Use no network; fail where something would be fetched."


def describe_variables(variables: dict[str, str]) -> str:
    """A line about options that came from the environment."""
    settings = [f"{name}={value}" for name, value in variables.items()]
    return f"from the environment: {', '.join(settings)}"


class PlainCommand(TyperCommand):
    """A command whose help shows arguments without Python types, and `--offline`."""

    offline_panel = "Options"

    def invoke(self, ctx: Context) -> Any:
        """Say which of the command's models came from the environment, and run it."""
        # A folder that only says where to read changes no result.
        variables = self.find_variables(ctx, without=("results",))
        if variables:
            echo(describe_variables(variables), err=True)
        return super().invoke(ctx)

    def find_variables(self, ctx: Context, without: tuple[str, ...] = ()) -> dict[str, str]:
        """The environment variables that gave options, with their values without passwords."""
        variables = {}
        for option in self.params:
            source = ctx.get_parameter_source(option.name)
            if source is None or source.name != "ENVIRONMENT" or option.name in without:
                continue
            if isinstance(option, TyperOption):
                # Up to the last @, since passwords are often not encoded.
                value = re.sub("://.*@", "://***@", option.resolve_envvar_value(ctx) or "")
                variables[str(option.envvar)] = value
        return variables

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

        # Every command takes it: `app.main` reads it before the command.
        sections.setdefault(self.offline_panel, []).append(("--offline", OFFLINE_HELP))
        for section, records in sections.items():
            if records:
                with formatter.section(section):
                    formatter.write_dl(records)

    def find_panel(self, parameter: Parameter) -> str:
        """Return the heading of an option; one heading is enough for a short list."""
        return "Options"


class PanelCommand(PlainCommand):
    """A command whose help groups its options by panel."""

    offline_panel = EXECUTION_PANEL

    # Typer groups options with rich only, whose import takes longer than a help page should.
    def find_panel(self, parameter: Parameter) -> str:
        """Return the panel of an option."""
        # `--help` is added by the parser and has no panel.
        return getattr(parameter, "rich_help_panel", None) or OUTPUT_PANEL
