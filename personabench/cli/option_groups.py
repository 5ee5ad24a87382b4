"""Groups of options: a command takes a group as one parameter, and each option is declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class NamedGroup:
    """Marks a parameter as a group whose options carry a name, such as those of a role.

    Attributes:
        name: precedes the fields' names, so that a command may have several groups of one class.
        options: the declaration of the option of each field.
    """

    name: str
    options: Mapping[str, Any]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with an option for each field of the groups that it takes.

    A group is a parameter whose type is a dataclass of `Annotated` fields, or a dataclass that is
    itself annotated with a `NamedGroup`.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type[Any], dict[str, str]]] = {}
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        group = _find_group(hint)
        if group is None:
            parameters.append(
                parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)
            )
            continue
        expanded = _expand(group, hint)
        parameters += expanded.values()
        names = {field: option.name for field, option in expanded.items()}
        groups[parameter.name] = group, names

    @functools.wraps(command)
    def expanded_command(**values: Any) -> None:
        for name, (group, names) in groups.items():
            values[name] = group(**{field: values.pop(option) for field, option in names.items()})
        command(**values)

    # The parser of the command line reads both.
    expanded_command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded_command.__annotations__ = {
        parameter.name: parameter.annotation for parameter in parameters
    }
    return expanded_command


def _find_group(hint: Any) -> type[Any] | None:
    """The class of a group; None for a single option."""
    cls = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return cls if isinstance(cls, type) and is_dataclass(cls) else None


def _expand(group: type[Any], hint: Any) -> dict[str, inspect.Parameter]:
    """The options of a group by the names of its fields."""
    marks = [mark for mark in get_args(hint)[1:] if isinstance(mark, NamedGroup)]
    prefix = f"{marks[0].name}_" if marks else ""
    options = marks[0].options if marks else get_type_hints(group, include_extras=True)
    return {
        field.name: inspect.Parameter(
            prefix + field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=options[field.name],
        )
        for field in fields(group)
    }
