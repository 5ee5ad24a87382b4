"""Registry of methods and tasks: list them, and load their classes by name or path.

A name is an explicit path (`./mine.py`, `./mine.py:MyMethod`), an installed entry point
(`personabench.methods`, `personabench.tasks`) or a built-in file, in this order.  `rag+remind` is
a method inside of a wrapper, which is found in the same ways (`personabench.wrappers`).  Built-ins
are described from their source without importing them: every class with a literal `name` counts.
A new method is therefore one file, and `list` stays fast.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.util
import logging
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from personabench.api.capabilities import check_declarations
from personabench.api.guard import (
    describe_value,
    explain_result,
    is_fault,
    locate,
    params_of,
)
from personabench.api.own_data.declaration import ENDING
from personabench.api.plugin_files import (
    explain_import,
    import_plugin,
    import_reference,
    is_reference,
)
from personabench.api.source import PLUGIN, read_literals, source_hash
from personabench.errors import PluginError, UsageError

__all__ = [
    "Entry",
    "Kind",
    "class_reference",
    "describe",
    "example_task",
    "find_described",
    "find_source_hash",
    "is_file",
    "list_entries",
    "load_class",
    "load_if",
    "load_recorded",
    "source_hash",
    "split_composed",
]

Kind = Literal["method", "task", "wrapper"]
_log = logging.getLogger("personabench.registry")

_FILE_ENDINGS = (".py", ENDING)

# The class attributes that decide fit, and those that a table of results reads.
_FACTS: Mapping[Kind, tuple[str, ...]] = {
    "method": ("needs", "designed_for", "privileged", "rule"),
    "task": ("offers", "kind", "labels", "protocol"),
    "wrapper": ("needs",),
}

# The packages of built-ins.
_PACKAGES: Mapping[Kind, str] = {
    "method": "personabench.methods",
    "task": "personabench.tasks",
    "wrapper": "personabench.methods.wrappers",
}

# Classes loaded by path in this process.  Their user chose to run the code, so results may refer to
# them by name.
_given: dict[tuple[Kind, str], type[Any]] = {}

# Installed classes that were checked: a table of many runs loads the class of each.
_checked: list[tuple[Kind, Any]] = []


@dataclass(frozen=True)
class Entry:
    """An available method, task or wrapper.

    Attributes:
        origin: "built-in" or the distribution of an entry point.
        about: the first docstring line; empty for entry points.
        facts: literal class attributes, read from the source without importing it; empty for entry
            points.
        described: whether the facts are known; those of an entry point are after an import.
    """

    kind: Kind
    name: str
    module: str
    attribute: str
    origin: str
    about: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    described: bool = True


def list_entries(kind: Kind, mention: str = "") -> dict[str, Entry]:
    """List the installed methods or tasks by name; entry points replace built-ins.

    Args:
        mention: built-ins are only looked for in files that hold this text in quotes, as a
            literal name is.
    """
    by_name = {entry.name: entry for entry in _list_built_ins(kind, mention)}

    for point in _find_entry_points(kind):
        module, _, attribute = point.value.partition(":")
        by_name[point.name] = Entry(
            kind=kind,
            name=point.name,
            module=module,
            attribute=attribute,
            origin=point.dist.name if point.dist else "plugin",
            described=False,
        )

    return dict(sorted(by_name.items()))


@functools.cache
def _find_entry_points(kind: Kind) -> Sequence[EntryPoint]:
    # Every installed package is read for it, and tables look up a task for each of their metrics.
    return tuple(entry_points(group=f"personabench.{kind}s"))


def describe(kind: Kind, name: str) -> Entry:
    """Describe a method or a task by name or path; plugins are imported.

    Raises:
        UsageError: as `load_class`.
    """
    entry = list_entries(kind).get(name)
    if entry is not None and entry.described:
        return entry

    return _describe_class(kind, load_class(kind, name), entry.origin if entry else name)


def find_described(kind: Kind, name: str) -> Entry | None:
    """Describe a name that was read from data, as far as that takes no import; None otherwise."""
    entry = list_entries(kind).get(name)
    if entry is not None:
        return entry if entry.described else None

    cls = _given.get((kind, name))
    return None if cls is None else _describe_class(kind, cls, class_reference(cls))


def _describe_class(kind: Kind, cls: type[Any], origin: str) -> Entry:
    return Entry(
        kind=kind,
        name=cls.name,
        module=cls.__module__,
        attribute=cls.__name__,
        origin=origin,
        facts={fact: getattr(cls, fact) for fact in _FACTS[kind]},
    )


def load_class(kind: Kind, name: str) -> type[Any]:
    """Load the class of a name or path from the command line.

    Names that were read from data go through `recorded`.

    Raises:
        UsageError: unknown name, or a plugin that cannot be imported; the message lists the nearest
            names.
    """
    parts = split_composed(kind, name)
    if parts:
        cls = _load_composed(name, parts)
    elif not is_file(name):
        if kind != "method" or not is_reference(name):
            return _load_installed(kind, name)
        cls = _load_reference(name)
    else:
        cls = _load_from_path(kind, name)
    _given[kind, cls.name] = cls
    return cls


def split_composed(kind: Kind, name: str) -> list[str]:
    """Split `rag+remind` into a method and wrappers; empty for anything else."""
    parts = name.split("+")
    if kind != "method" or len(parts) == 1:
        return []
    # A plus sign may be part of an installed name or of a path, but not of a class.
    path, class_name = _split_path(name)
    if is_file(name) and path.is_file() and "+" not in class_name:
        return []
    return [] if name in list_entries("method") else parts


def _load_composed(name: str, parts: Sequence[str]) -> type[Any]:
    """Load a method inside of wrappers.

    Raises:
        UsageError: an unknown part, or parts that do not fit.
    """
    # Imported late: few commands wrap methods.
    from personabench.api.composition import compose

    if not all(parts):
        raise UsageError(f"--method {name}: write METHOD+WRAPPER, such as rag+remind")
    base, *wrappers = parts
    return compose(load_class("method", base), [_load_wrapper(name, part) for part in wrappers])


def _load_wrapper(name: str, part: str) -> type[Any]:
    wrappers = list_entries("wrapper")
    if not is_file(part) and part not in wrappers and part in list_entries("method"):
        raise UsageError(
            f"--method {name}: '{part}' is a method and no wrapper; the method stands first and "
            f"wrappers follow: METHOD+WRAPPER with one of {', '.join(wrappers)}"
        )
    return load_class("wrapper", part)


def load_if(path: Path, wanted: Collection[tuple[str, str]]) -> None:
    """Load a declared task if its name and the hash of its source are wanted.

    Raises:
        PersonabenchError: the file is damaged.
    """
    cls = _load_from_path("task", str(path))
    if (cls.name, source_hash(cls)) in wanted:
        _given["task", cls.name] = cls


def is_file(name: str) -> bool:
    """Whether a name from the command line is a path, with or without a class."""
    return name.endswith(_FILE_ENDINGS) or ".py:" in name


def _load_reference(name: str) -> type[Any]:
    """Load `module:Class`, a method or the provider of a memory."""
    cls: Any = _adapt_provider(import_reference(name))
    if isinstance(cls, type) and not hasattr(cls, "name"):
        cls.name = cls.__name__  # type: ignore[attr-defined]
    _check_class("method", cls, name)
    return cls  # type: ignore[no-any-return]


def _adapt_provider(cls: Any) -> Any:
    """Make a memory of a class that is none, but has the methods of a provider."""
    from personabench.api.python_memory import is_provider, make_memory_class

    if is_provider(cls) and not issubclass(cls, _base_class("method")):
        return make_memory_class(cls)
    return cls


def load_recorded(
    kind: Kind,
    name: str,
    source: str,
) -> type[Any]:
    """Load the class of a name that was read from data.

    It is installed, or from a file that this process has already loaded from the command line.

    `source` is the hash that a run recorded; a loaded file must have the same.

    Raises:
        UsageError: unknown name, or the file has changed since the run.
    """
    # Data never names a file to run: a results folder may come from anywhere.
    cls = _given.get((kind, name))
    if cls is None:
        if name not in list_entries(kind, mention=name):
            raise UsageError(
                f"{kind} '{name}' is not installed here; name its file with --{kind} FILE"
            )
        return _load_installed(kind, name)

    current = source_hash(cls)
    if current != source:
        raise UsageError(
            f"{class_reference(cls)} is not the code that made the runs of {kind} '{name}': their "
            f"source hash is {source[:8] or 'unknown'}, the file's {current[:8]}; "
            "restore the file, or run it again"
        )
    return cls


def find_source_hash(kind: Kind, name: str) -> str:
    """Return the source hash of a name's loaded file, "installed", or "" for an unknown name.

    Nothing is imported.
    """
    cls = _given.get((kind, name))
    if cls is not None:
        return source_hash(cls)

    return "installed" if name in list_entries(kind, mention=name) else ""


def example_task() -> str:
    """Return the task that is used when none is named.

    Raises:
        UsageError: no installed task declares itself an example.
    """
    for entry in list_entries("task").values():
        if entry.facts.get("example"):
            return entry.name

    raise UsageError("no task is named and none installed is an example; name one with --task")


def class_reference(cls: type[Any]) -> str:
    """Return the text by which `load` finds a class from any folder: its name or its path."""
    if not cls.__module__.startswith(PLUGIN):
        return str(cls.name)

    module = sys.modules[cls.__module__]
    path = Path(str(module.__file__)).resolve()
    # A declaration defines one task, which needs no name inside its file.
    return str(path) if path.suffix == ENDING else f"{path}:{cls.__name__}"


def _load_installed(kind: Kind, name: str) -> type[Any]:
    entry = list_entries(kind, mention=name).get(name)
    if entry is None:
        hint = _suggest_names(name, list_entries(kind))
        raise UsageError(f"no {kind} named '{name}'; {hint}")

    location = f"{kind} '{name}' ({entry.origin}, {entry.module}:{entry.attribute})"
    try:
        module = importlib.import_module(entry.module)
        cls: type[Any] = getattr(module, entry.attribute)
    # A plugin's module may raise anything while it is imported.
    except BaseException as error:
        if not is_fault(error):
            raise
        raise explain_import(location, error) from error

    # A class without a name is called as its entry point is.
    if isinstance(cls, type) and not hasattr(cls, "name"):
        cls.name = name
    if (kind, cls) not in _checked:
        _check_class(kind, cls, location)
        _checked.append((kind, cls))
    if cls.name != name:
        # Runs record the class's own name, by which they are to be found again.
        problem = f"the entry point is called '{name}'; give both one name"
        raise explain_result(cls, "name", f"'{name}'", f"it is '{cls.name}': {problem}")
    return cls


def _suggest_names(name: str, candidates: Collection[str]) -> str:
    # Papers and users write Persona-DB and LaMP_2M: try the two usual spellings before fuzzy
    # matching.
    plain = name.lower().replace("-", "_")
    joined = plain.replace("_", "")
    matches = [
        candidate for candidate in candidates if candidate.startswith(plain) or candidate == joined
    ]
    if not matches:
        matches = difflib.get_close_matches(plain, candidates, n=3, cutoff=0.5)

    if matches:
        return f"did you mean {' or '.join(matches)}?"
    return f"known: {', '.join(candidates)}"


def _list_built_ins(kind: Kind, mention: str) -> Iterable[Entry]:
    package = _PACKAGES[kind]
    spec = importlib.util.find_spec(package)
    if spec is None:
        return

    for folder in map(Path, spec.submodule_search_locations or []):
        paths = sorted([*folder.glob("*.py"), *folder.glob("*/__init__.py")])
        for path in paths:
            if path == folder / "__init__.py":
                continue
            modified = path.stat().st_mtime_ns
            # Reading a file takes a hundredth of the time that parsing it takes.
            if mention and not _quotes(_read_source(path, modified), mention):
                continue
            stem = path.parent.name if path.name == "__init__.py" else path.stem
            yield from _described(kind, path, f"{package}.{stem}", modified)


def _quotes(source: bytes, text: str) -> bool:
    return any(f"{mark}{text}{mark}".encode() in source for mark in "\"'")


@functools.lru_cache(maxsize=512)
def _read_source(path: Path, modified: int) -> bytes:
    # `modified` only serves the cache: a changed file is read again.
    return path.read_bytes()


@functools.cache
def _described(
    kind: Kind,
    path: Path,
    module: str,
    modified: int,
) -> tuple[Entry, ...]:
    """Describe the classes of a source file that have a literal name."""
    # `modified` only serves the cache: a changed file is read again.
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        _log.warning("%s is skipped: line %s: %s", path, error.lineno, error.msg)
        return ()

    described = []
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        facts = read_literals(node)
        name = facts.pop("name", None)
        if not isinstance(name, str):
            continue

        docstring = ast.get_docstring(node) or ""
        about, _, _ = docstring.partition("\n")
        described.append(
            Entry(
                kind=kind,
                name=name,
                module=module,
                attribute=node.name,
                origin="built-in",
                about=about,
                facts=facts,
            )
        )
    return tuple(described)


def _load_from_path(kind: Kind, text: str) -> type[Any]:
    path, class_name = _split_path(text)
    if not path.is_file():
        raise UsageError(f"no file {path} to load a {kind} from")

    if path.suffix == ENDING:
        cls = _make_declared(kind, path)
        classes = {cls.__name__: cls}
    else:
        module = import_plugin(path)
        classes = _classes_in(kind, module)
        cls = _choose_class(kind, path, classes, class_name)

    if getattr(cls, "name", None) is None:
        cls.name = path.stem if len(classes) == 1 else cls.__name__
    _check_class(kind, cls, text)
    if cls.name in list_entries(kind):
        raise UsageError(
            f"{path} is called '{cls.name}', as an installed {kind} is: "
            "their runs could not be distinguished; give it another `name`"
        )
    return cls


def _make_declared(kind: Kind, path: Path) -> type[Any]:
    if kind != "task":
        raise UsageError(f"--method {path}: a {kind} is Python code; name a file.py")
    # Imported late: listing needs no tasks, which bring numpy.
    from personabench.api.own_data.task import make_task_class

    return make_task_class(path)


def _split_path(text: str) -> tuple[Path, str]:
    """Split `mine.py:MyMethod` into the file and the class name, which may be empty."""
    # At ".py:" rather than ":", which Windows paths contain as well.
    stem, separator, class_name = text.partition(".py:")
    if not separator or not class_name:
        return Path(stem), ""
    return Path(f"{stem}.py"), class_name


def _classes_in(
    kind: Kind,
    module: ModuleType,
) -> dict[str, type[Any]]:
    """Return the methods or tasks that a module defines itself, by class name."""
    base = _base_class(kind)
    candidates = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    }
    if kind == "method":
        candidates = {name: _adapt_provider(value) for name, value in candidates.items()}
    return {name: value for name, value in candidates.items() if issubclass(value, base)}


def _choose_class(
    kind: Kind,
    path: Path,
    classes: Mapping[str, type[Any]],
    class_name: str,
) -> type[Any]:
    class_names = ", ".join(classes) or "none"
    if class_name:
        if class_name not in classes:
            raise UsageError(f"{path} defines no {kind} class '{class_name}'; found: {class_names}")
        return classes[class_name]

    base = f"personabench.{kind.capitalize()}"
    if not classes:
        raise PluginError(f"{path}, line 1: expected one subclass of {base}, but it defines none")
    if len(classes) > 1:
        second = list(classes.values())[1]
        raise PluginError(
            f"{locate(second, '')}: expected one subclass of {base}, "
            f"but the file defines {class_names}; name one as {path}:Class"
        )
    (cls,) = classes.values()
    return cls


def _base_class(kind: Kind) -> type[Any]:
    # Imported late: listing needs neither, and tasks bring numpy.
    from personabench.api.method import Method
    from personabench.api.task import Task
    from personabench.api.wrapper import Wrapper

    bases: Mapping[Kind, type[Any]] = {"method": Method, "task": Task, "wrapper": Wrapper}
    return bases[kind]


def _check_class(kind: Kind, cls: Any, place: str) -> None:
    """Check that a class is a method, a task or a wrapper that can be used.

    Raises:
        PluginError: a missing method or a wrong attribute.
    """
    # Imported late: listing needs no class.
    from personabench.api import declarations
    from personabench.api.contracts import METHOD
    from personabench.api.task import CONTRACTS
    from personabench.api.wrapper import WRAPPER

    base = _base_class(kind)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise PluginError(
            f"{place}: expected a subclass of personabench.{kind.capitalize()}, "
            f"but it is {describe_value(cls)}"
        )

    contracts = {"method": METHOD, "task": CONTRACTS, "wrapper": WRAPPER}
    declared = {
        "method": declarations.METHOD,
        "task": declarations.TASK,
        "wrapper": declarations.WRAPPER,
    }
    declarations.check_abstract(cls, contracts[kind])
    declarations.check_declarations(cls, declared[kind])
    if kind == "task":
        declarations.check_protocol(cls)
    params_of(cls)
    attribute = "offers" if kind == "task" else "needs"
    check_declarations(kind, f"{cls.__name__} ({locate(cls, attribute)})", cls)
