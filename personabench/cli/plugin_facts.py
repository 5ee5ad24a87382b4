"""Facts of one method, task or wrapper for `list methods NAME` and its like."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from personabench.api.registry import Kind


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of `--set`: its type and default as they are written, and its meaning."""

    name: str
    type: str
    default: Any
    about: str


def list_parameters(cls: type[Any]) -> list[Parameter]:
    """List the parameters of a method, a task or a wrapper, in the order of its code."""
    from personabench.api.guard import params_of

    params = params_of(cls)
    about = read_meanings(inspect.getdoc(params) or "")
    parameters = []
    for field in dataclasses.fields(params):
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", "")
        parameters.append(Parameter(field.name, str(kind), default, about.get(field.name, "")))
    return parameters


def read_meanings(docstring: str) -> dict[str, str]:
    """Read the meanings of names from the lines `name: meaning` or `one, two: meaning`."""
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in docstring.splitlines():
        match = re.match(r"\s*((?:\w+, )*\w+): (.+)", line)
        if match:
            names = match[1].split(", ")
            text = match[2]
        elif line.strip() and names:
            text = line.strip()
        else:
            names = []
            continue
        for name in names:
            meanings[name] = f"{meanings.get(name, '')} {text}".strip()
    return meanings


def describe_plugin(kind: Kind, name: str) -> dict[str, Any]:
    """Collect everything that a command line says about a method, a task or a wrapper.

    Raises:
        UsageError: there is none of that name.
    """
    from personabench.api import registry

    cls = registry.load_class(kind, name)
    docstring = inspect.getdoc(cls) or ""
    entry = registry.list_entries(kind).get(cls.name)
    facts: dict[str, Any] = {
        "name": cls.name,
        "about": docstring.partition("\n")[0],
        "origin": entry.origin if entry else name,
    }
    describe = {"method": _method_facts, "task": _task_facts, "wrapper": _wrapper_facts}
    facts |= describe[kind](cls)
    facts["parameters"] = [dataclasses.asdict(parameter) for parameter in list_parameters(cls)]
    return facts


def _method_facts(cls: type[Any]) -> Mapping[str, Any]:
    return {
        "paper": cls.paper,
        "needs": list(cls.needs),
        "designed_for": list(cls.designed_for),
        "settings": [name for name in ("privileged", "rule") if getattr(cls, name)],
    }


def _wrapper_facts(cls: type[Any]) -> Mapping[str, Any]:
    return {
        "paper": cls.paper,
        "needs": list(cls.needs),
        "acts": [stage for stage in ("select", "reword", "revise") if cls.acts(stage)],
    }


def _task_facts(cls: type[Any]) -> Mapping[str, Any]:
    return {
        "title": cls.title,
        "kind": cls.kind,
        "labels": list(cls.labels),
        "metrics": [metric.name for metric in cls.metrics],
        "scorers": list(cls.scorers),
        "splits": list(cls.splits) or [cls.default_split],
        "offers": list(cls.offers),
        "max_tokens": cls.max_tokens,
        "source": cls.source,
        "licence": cls.licence,
    }


def format_plugin(facts: Mapping[str, Any], owner: str) -> list[str]:
    """Format the facts as lines; `owner` is the prefix of its parameters in `--set`."""
    lines = []
    for name, value in facts.items():
        if name != "parameters":
            text = ", ".join(value) if isinstance(value, list) else str(value)
            lines.append(f"{name.replace('_', ' '):14}{text or '–'}")
    lines.append("")
    parameters = facts["parameters"]
    if not parameters:
        lines.append("no parameters")
        return lines

    assignments = [f"{owner}.{item['name']}={_format(item['default'])}" for item in parameters]
    width = max(map(len, assignments))
    lines.append("parameters with their defaults, for --set")
    for assignment, item in zip(assignments, parameters, strict=True):
        lines.append(f"  {assignment:{width}}  {item['type']}  {item['about']}".rstrip())
    return lines


def _format(value: Any) -> str:
    return "none" if value is None else str(value)
