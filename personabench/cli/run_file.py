"""Run files: the options of `personabench run` in a TOML file, named as on the command line.

    method = ["none", "rag"]
    task = "lamp4"

    [grid]
    "rag.k" = [2, 4]

    [judge]
    model = "gpt-5-mini"

A file becomes words that stand before the typed ones, so that every option is declared, read and
checked in one place. Lists stand for commas and for repeated options. A table holds the keys of an
option such as `--set KEY=VALUE`, or the options that begin with its name, such as `--judge-model`.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperOption

from personabench.cli.parsing import split_names
from personabench.errors import UsageError

ENDING = ".toml"

# Options of key and value, by the last part of their names, with what stands between the two.
_PAIRS = {"set": "=", "grid": "=", "map": "=", "extra": "=", "header": ": "}

# Options that describe no run.
_NO_KEYS = ("help", "save")

_SECRET = "header"
_ROLES = ("simulator", "judge", "profile")

Options = Mapping[str, TyperOption]
"""The options of a command by their long names, without the dashes."""


@dataclass(frozen=True)
class Setting:
    """An option in a run file, with its values as they would be typed.

    Attributes:
        values: one for each time that the option is given; of a switch, "true" or "false".
    """

    name: str
    option: TyperOption
    values: Sequence[str]

    @property
    def words(self) -> list[str]:
        """The setting as words of a command line."""
        if not self.option.is_flag:
            return [f"--{self.name}={value}" for value in self.values]
        if self.values == ["true"]:
            return [f"--{self.name}"]
        return list(self.option.secondary_opts[:1])

    def without(self, keys: Collection[str]) -> Setting:
        """The setting without the pairs of some keys."""
        values = [value for value in self.values if read_key(self.name, value) not in keys]
        return Setting(self.name, self.option, values)


def list_options(parameters: Sequence[Any]) -> dict[str, TyperOption]:
    """The options of a command that a run file may have, by their long names."""
    options = {}
    for parameter in parameters:
        if isinstance(parameter, TyperOption):
            (name,) = [word[2:] for word in parameter.opts if word.startswith("--")][:1]
            if name not in _NO_KEYS:
                options[name] = parameter
    return options


def is_pairs(name: str) -> bool:
    """Whether an option takes pairs of key and value."""
    return name.rpartition("-")[2] in _PAIRS


def read_key(name: str, value: str) -> str:
    """The key of a value of an option that takes pairs."""
    separator = _PAIRS[name.rpartition("-")[2]].strip()
    return value.partition(separator)[0].strip()


def read_run_file(path: Path, options: Options, ctx: typer.Context) -> list[Setting]:
    """Read a run file, and check each value as if it were typed.

    Raises:
        UsageError: the file cannot be read, is no TOML, or has an unknown key or a wrong value; the
            message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except OSError as error:
        raise UsageError(
            f"run file {path}: {error.strerror or error}; `personabench init` writes one"
        ) from error
    except ValueError as error:
        raise UsageError(f"run file {path}: {error}") from error

    settings = []
    for keys, value in _walk(tables, options):
        where = f"{path}, line {_find_line(text, keys)}: "
        name = "-".join(keys)
        if name not in options:
            raise UsageError(f"{where}{_explain_unknown(keys, options)}")
        try:
            setting = Setting(name, options[name], _read_values(name, options[name], value))
            _check(setting, ctx)
        except (ValueError, typer.BadParameter) as error:
            raise UsageError(f"{where}{'.'.join(keys)}: {error}") from error
        settings.append(setting)
    return settings


def _walk(
    tables: Mapping[str, Any], options: Options, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The keys of a file with their values; tables that are no option are opened."""
    for key, value in tables.items():
        keys = (*path, key)
        name = "-".join(keys)
        is_prefix = any(option.startswith(f"{name}-") for option in options)
        if name not in options and isinstance(value, dict) and is_prefix:
            yield from _walk(value, options, keys)
        else:
            yield keys, value


def _explain_unknown(keys: Sequence[str], options: Options) -> str:
    prefix = "".join(f"{key}-" for key in keys[:-1])
    known = [name.removeprefix(prefix) for name in options if name.startswith(prefix)]
    # Tables of a role, such as [judge].
    known += [] if prefix else list(_ROLES)
    matches = difflib.get_close_matches(keys[-1].replace("_", "-"), known, n=1)
    hint = f"did you mean '{matches[0]}'?" if matches else "`personabench run --help` has all"
    return f"no option '{'.'.join(keys)}'; {hint}"


def _find_line(text: str, keys: Sequence[str]) -> int:
    """The number of the line that sets a key, or of the table that does; 1 if neither is plain."""
    table: list[str] = []
    of_table = 1
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
        if header:
            table = _split_key(header[1])
            if table[: len(keys)] == list(keys):
                return number
            if table == list(keys[: len(table)]):
                of_table = number
            continue
        key = re.match(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[\w-]+)*)\s*=""", line)
        if key and [*table, *_split_key(key[1])][: len(keys)] == list(keys):
            return number
    return of_table


def _split_key(text: str) -> list[str]:
    return [part.strip().strip("\"'") for part in re.findall(r'"[^"]*"|\'[^\']*\'|[^.]+', text)]


def _read_values(name: str, option: TyperOption, value: Any) -> list[str]:
    """The values of an option, as typed.

    Raises:
        ValueError: the value has another form than the option.
    """
    from personabench.api.params import format_value

    if option.is_flag:
        if not isinstance(value, bool):
            raise ValueError("write true or false")
        return [format_value(value)]
    if isinstance(value, dict):
        if not is_pairs(name):
            raise ValueError("write a value, not a table")
        # An object of JSON is a value, not further keys.
        pairs = value.items() if name.endswith("extra") else _flatten(value)
        return [_join_pair(name, key, item) for key, item in pairs]
    if isinstance(value, list) and option.multiple:
        return [format_value(item) for item in value]
    return [format_value(value)]


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of a table with dots, so that `rag.k = 2` is one key."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _join_pair(name: str, key: str, value: Any) -> str:
    from personabench.api.params import format_value

    kind = name.rpartition("-")[2]
    text = json.dumps(value) if kind == "extra" else format_value(value)
    return f"{key}{_PAIRS[kind]}{text}"


def _check(setting: Setting, ctx: typer.Context) -> None:
    """Check values as those of the command line.

    Raises:
        BadParameter: a value is wrong.
    """
    if not setting.option.is_flag:
        values = list(setting.values)
        setting.option.process_value(ctx, values if setting.option.multiple else values[-1])


# Writing ----------------------------------------------------------------------------------------


def write_settings(values: Mapping[str, Sequence[str]], options: Options) -> str:
    """Write options as a run file, without secrets.

    Args:
        values: of each option that is given, as typed.
    """
    tables: dict[str, list[str]] = {"": []}
    secrets = []
    for name, texts in values.items():
        role, _, rest = name.partition("-")
        table, key = (role, rest) if role in _ROLES else ("", name)
        if key == _SECRET:
            secrets.append(f"--{name}")
            continue
        plain = [_strip_password(text) for text in texts]
        if plain != list(texts):
            secrets.append(f"the password in --{name}")

        if is_pairs(name) and all(_is_plain_pair(name, text) for text in plain):
            tables[f"{table}.{key}" if table else key] = _write_pairs(name, plain)
        else:
            line = f"{key} = {_write_values(options[name], plain)}"
            tables.setdefault(table, []).append(line)

    lines = ["# Options of `personabench run`; repeat it with: personabench run THIS_FILE"]
    if secrets:
        lines.append(f"# Left out, since they are secret: {', '.join(secrets)}")
    for table, content in tables.items():
        if content:
            lines += ["", f"[{table}]"] if table else [""]
            lines += content
    return "\n".join(lines) + "\n"


def _strip_password(text: str) -> str:
    # Up to the last @, since passwords are often not encoded.
    return re.sub(r"://.*@", "://", text, flags=re.S)


def _is_plain_pair(name: str, text: str) -> bool:
    """Whether a pair can be a line of a table."""
    _, equals, value = text.partition("=")
    if not name.endswith("extra"):
        return bool(equals)
    try:
        return isinstance(json.loads(value), str | bool | int | float)
    except ValueError:
        return False


def _write_pairs(name: str, texts: Sequence[str]) -> list[str]:
    pairs: dict[str, str] = {}
    for text in texts:
        # One --map may have several pairs.
        for pair in split_names(text) if name == "map" else [text]:
            key, _, value = pair.partition("=")
            pairs[key] = _write_pair_value(name, value)
    return [f"{_write_key(key)} = {value}" for key, value in pairs.items()]


def _write_pair_value(name: str, value: str) -> str:
    if name.endswith("extra"):
        return json.dumps(json.loads(value), ensure_ascii=False)
    if name == "grid" and "," in value:
        return f"[{', '.join(map(_write_value, value.split(',')))}]"
    return _write_value(value)


def _write_values(option: TyperOption, texts: Sequence[str]) -> str:
    if option.multiple and len(texts) > 1:
        return f"[{', '.join(map(_write_value, texts))}]"
    text = texts[-1]
    names = split_names(text) if str(option.metavar).endswith(",..") else [text]
    if len(names) > 1:
        return f"[{', '.join(map(_write_value, names))}]"
    return _write_value(text)


def _write_value(text: str) -> str:
    """A value as TOML: a number or a truth value as such if it reads back as typed."""
    if text in ("true", "false"):
        return text
    for kind in (int, float):
        try:
            if text[-1:].isdigit() and str(kind(text)) == text:
                return text
        except ValueError:
            continue
    # Texts are written alike in JSON and TOML.
    return json.dumps(text, ensure_ascii=False)


def _write_key(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else json.dumps(key, ensure_ascii=False)
