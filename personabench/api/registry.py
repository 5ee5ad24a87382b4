"""Where methods and tasks are found.

First match wins: an explicit path (`./mine.py`, `./mine.py:MyMethod`), an installed entry point
(`personabench.methods`, `personabench.tasks`), a built-in file.  Built-ins are described by reading their source, not
by importing it: a class with a literal `name` is on offer, so a new method is one file and `list` stays light.
"""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from personabench.api.source import PLUGIN, source_hash
from personabench.errors import UsageError

__all__ = [
    "Entry",
    "Kind",
    "entries",
    "example_task",
    "is_file",
    "load",
    "recorded",
    "reference",
    "source_hash",
    "standing",
]

Kind = Literal["method", "task"]
_log = logging.getLogger("personabench.registry")
_given: dict[tuple[Kind, str], type[Any]] = {}
"""The classes that were loaded by path in this process, which is to say by somebody who chose to run their code."""


@dataclass(frozen=True)
class Entry:
    """Something on offer: its name, where it is, and what its source says of it without being imported."""

    kind: Kind
    name: str
    module: str
    attribute: str
    origin: str
    about: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def entries(kind: Kind) -> dict[str, Entry]:
    """Everything installed of a kind, by name; entry points shadow built-ins."""
    found = {entry.name: entry for entry in _built_in(kind)}
    for point in entry_points(group=f"personabench.{kind}s"):
        module, _, attribute = point.value.partition(":")
        found[point.name] = Entry(
            kind, point.name, module, attribute, point.dist.name if point.dist else "plugin"
        )
    return dict(sorted(found.items()))


def load(kind: Kind, name: str) -> type[Any]:
    """The class behind a name or path that a person gave.  What is read from data goes through `recorded`.

    Raises:
        UsageError: nothing has that name, or the plugin does not import; the message says what was tried.
    """
    if is_file(name):
        cls = _from_path(kind, name)
        _given[kind, cls.name] = cls
        return cls
    return _installed(kind, name)


def is_file(name: str) -> bool:
    """Whether what a person gave is a path, with a class or without."""
    return name.endswith(".py") or ".py:" in name


def recorded(kind: Kind, name: str, source: str) -> type[Any]:
    """The class behind a name that was read from data: an installed one, or one whose file was named in this process.

    Data never says which file to run: a results folder may be anybody's.  `source` is the hash that a run recorded;
    of a file that was named it has to be the same.

    Raises:
        UsageError: it is neither, or the file has changed since the run.
    """
    cls = _given.get((kind, name))
    if cls is None:
        if name not in entries(kind):
            raise UsageError(
                f"{kind} '{name}' is not installed here; name its file with --{kind} FILE"
            )
        return _installed(kind, name)
    if source_hash(cls) != source:
        raise UsageError(
            f"{reference(cls)} is not the code that made the runs of {kind} '{name}': their source hash is "
            f"{source[:8] or 'unknown'}, the file's {source_hash(cls)[:8]}; give the file as it was, or run it again"
        )
    return cls


def standing(kind: Kind, name: str) -> str:
    """What is known of a name without importing anything: the source hash of its file, "installed", or ""."""
    cls = _given.get((kind, name))
    if cls is not None:
        return source_hash(cls)
    return "installed" if name in entries(kind) else ""


def _installed(kind: Kind, name: str) -> type[Any]:
    known = entries(kind)
    entry = known.get(name)
    if entry is None:
        plain = name.lower().replace("-", "_")
        close = [
            other for other in known if other.startswith(plain) or other == plain.replace("_", "")
        ]
        close = close or difflib.get_close_matches(plain, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
        raise UsageError(f"no {kind} named '{name}'; {hint}")
    try:
        found = getattr(importlib.import_module(entry.module), entry.attribute)
    except Exception as error:
        raise UsageError(
            f"{kind} '{name}' ({entry.origin}, {entry.module}:{entry.attribute}) does not import: {error!r}"
        ) from error
    return _checked(kind, found, name)


def example_task() -> str:
    """The task that stands in where none is named.

    Raises:
        UsageError: none installed calls itself an example.
    """
    found = next(
        (entry.name for entry in entries("task").values() if entry.facts.get("example")), None
    )
    if found is None:
        raise UsageError("no task is named and none installed is an example; name one with --task")
    return found


def reference(cls: type[Any]) -> str:
    """The text that `load` finds a class by from any folder: its name, or its file's whole path and its class name."""
    if not cls.__module__.startswith(PLUGIN):
        return str(cls.name)
    return f"{Path(str(sys.modules[cls.__module__].__file__)).resolve()}:{cls.__name__}"


def _built_in(kind: Kind) -> Iterable[Entry]:
    package = f"personabench.{kind}s"
    spec = importlib.util.find_spec(package)
    for folder in map(Path, spec.submodule_search_locations or [] if spec else []):
        for path in sorted([*folder.glob("*.py"), *folder.glob("*/__init__.py")]):
            if path != folder / "__init__.py":
                stem = path.parent.name if path.name == "__init__.py" else path.stem
                yield from _described(kind, path, f"{package}.{stem}", path.stat().st_mtime_ns)


@functools.cache
def _described(kind: Kind, path: Path, module: str, changed: int) -> tuple[Entry, ...]:
    """What a source file offers as of its last change, which is here so that a changed file is read again."""
    found = []
    try:
        body = ast.parse(path.read_bytes(), str(path)).body
    except SyntaxError as error:
        _log.warning("%s is skipped: line %s: %s", path, error.lineno, error.msg)
        return ()
    for node in body:
        if not isinstance(node, ast.ClassDef):
            continue
        facts: dict[str, Any] = {}
        for statement in node.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                try:
                    facts[statement.targets[0].id] = ast.literal_eval(statement.value)
                except ValueError:
                    continue
        if isinstance(facts.get("name"), str):
            about = (ast.get_docstring(node) or "").partition("\n")[0]
            found.append(
                Entry(kind, facts.pop("name"), module, node.name, "built-in", about, facts)
            )
    return tuple(found)


def _from_path(kind: Kind, text: str) -> type[Any]:
    location, _, wanted = text.partition(".py:")
    path = Path(location if not wanted else f"{location}.py")
    if not path.is_file():
        raise UsageError(f"no file {path} to load a {kind} from")
    try:
        module = _imported(path)
    except Exception as error:
        where = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        raise UsageError(
            f"{path}{where} does not import: {type(error).__name__}: {error}"
        ) from error
    offered = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and issubclass(value, _base(kind))
    }
    if wanted and wanted not in offered:
        raise UsageError(
            f"{path} defines no {kind} class '{wanted}'; found: {', '.join(offered) or 'none'}"
        )
    if not wanted and len(offered) != 1:
        raise UsageError(
            f"{path} should define one subclass of personabench.{kind.capitalize()}, found "
            f"{', '.join(offered) or 'none'}; name one as {path}:Class"
        )
    cls: Any = offered[wanted] if wanted else next(iter(offered.values()))
    if not isinstance(getattr(cls, "name", None), str):
        cls.name = path.stem if len(offered) == 1 else cls.__name__
    if cls.name in entries(kind):
        raise UsageError(
            f"{path} is called '{cls.name}', as an installed {kind} is: their runs could not be told apart; "
            "give it another `name`"
        )
    return _checked(kind, cls, text)


def _imported(path: Path) -> ModuleType:
    name = f"{PLUGIN}{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _base(kind: Kind) -> type[Any]:
    from personabench.api.method import Method
    from personabench.api.task import Task

    return Method if kind == "method" else Task


def _checked(kind: Kind, cls: type[Any], name: str) -> type[Any]:
    if not (isinstance(cls, type) and issubclass(cls, _base(kind))):
        raise UsageError(f"{kind} '{name}' is not a subclass of personabench.{kind.capitalize()}")
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise UsageError(f"{kind} '{name}' does not implement {', '.join(missing)}")
    return cls
