"""`personabench run` as a command whose options may also stand in a run file.

Typed options win over the file, and the file over the environment. Of options that take pairs,
such as `--set KEY=VALUE`, a typed key replaces that key alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer
from typer.core import TyperCommand

from personabench.cli.help import PanelCommand, describe_variables
from personabench.cli.run_file import (
    ENDING,
    Setting,
    is_pairs,
    list_options,
    read_key,
    read_run_file,
    write_settings,
)
from personabench.errors import UsageError

if TYPE_CHECKING:
    from typer._click import Context

# Options of which a command has one.
_ALTERNATIVES = {"seed": "seeds", "seeds": "seed", "limit": "users", "users": "limit"}
# What a file says about a run is not how its command prints.
_NOT_WRITTEN = ("dry-run", "json", "quiet")
_WORDS = "personabench.words"


class RunCommand(PanelCommand):
    """A command that reads the options of a run file before those that are typed."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Parse the words of the file and the typed ones.

        Raises:
            UsageError: the file is wrong, or is no run file.
        """
        words = list(args)
        # A shell that completes a word has no use for the file.
        if not ctx.resilient_parsing:
            words = [*self._read_file(ctx, args), *args]
            # A copy, since parsing empties the list.
            ctx.meta[_WORDS] = list(words)
        return super().parse_args(ctx, words)

    def invoke(self, ctx: Context) -> Any:
        """Run the command, which says itself what came from the environment."""
        return TyperCommand.invoke(self, ctx)

    def _read_file(self, ctx: Context, args: list[str]) -> list[str]:
        typed, _, _ = self.make_parser(ctx).parse_args(list(args))
        if typed.get("file") is None:
            return []
        path = Path(typed["file"])
        if path.suffix != ENDING:
            raise UsageError(
                f"'{path}' is no run file (FILE{ENDING}); write several methods or tasks with "
                "commas, such as --method none,rag"
            )

        words = []
        for setting in read_run_file(path, list_options(self.params), cast(typer.Context, ctx)):
            words += _drop_typed(setting, typed).words
        if "method" not in typed and not any(word.startswith("--method=") for word in words):
            raise UsageError(f"run file {path} has no method; write method = [..], or add --method")
        return words


def _drop_typed(setting: Setting, typed: Mapping[str, Any]) -> Setting:
    """A setting of a file without the values that the command line replaces."""
    values = typed.get(setting.option.name)
    if _ALTERNATIVES.get(setting.name) in typed:
        return Setting(setting.name, setting.option, [])
    if values is None:
        return setting
    if is_pairs(setting.name):
        return setting.without([read_key(setting.name, value) for value in values])
    return Setting(setting.name, setting.option, [])


@dataclass(frozen=True)
class GivenOptions:
    """The options of a command beyond its defaults.

    Attributes:
        run_file: all of them as a run file, without secrets.
        environment: a line about those from the environment; empty if there are none.
    """

    run_file: str
    environment: str


def read_given_options(ctx: typer.Context) -> GivenOptions:
    """Read the options that were typed, or came from a run file or the environment."""
    command = cast(RunCommand, ctx.command)
    context = cast("Context", ctx)
    words: list[str] = ctx.meta[_WORDS]
    parsed, _, _ = command.make_parser(context).parse_args(list(words))
    options = list_options(command.params)
    values: dict[str, Sequence[str]] = {}
    for name, option in options.items():
        value = parsed.get(option.name)
        if value is None and option.envvar:
            value = option.resolve_envvar_value(context)
        if value is None or name in _NOT_WRITTEN:
            continue
        texts = value if isinstance(value, list) else [value]
        values[name] = [str(text).lower() if isinstance(text, bool) else text for text in texts]
    variables = command.find_variables(context)
    return GivenOptions(
        write_settings(values, options),
        describe_variables(variables) if variables else "",
    )


def save_run_file(path: Path, text: str) -> None:
    """Write the run file of a command.

    Raises:
        UsageError: the name has another ending, the file has other content already, or it cannot
            be written.
    """
    if path.suffix != ENDING:
        raise UsageError(f"--save {path}: name a file that ends in {ENDING}")
    try:
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise UsageError(f"--save {path}: the file exists; choose another name or delete it")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--save {path}: {error}") from error
