"""The name of a method's or task's code: a hash that follows what runs, and nothing that only people read.

Comments, docstrings, import lines and formatting are not in it, nor are the names of modules, so that a remark, a
formatter or a file that moves leaves every finished run what it is.  docs/files.md says what is hashed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

PLUGIN = "personabench_plugin_"
"""How the modules of files that were named by path begin."""

ENGINE = "personabench"
BUILT_IN = (f"{ENGINE}.methods", f"{ENGINE}.tasks")
FILE_NAME = re.compile(r"[\w.+/-]{1,200}\.\w+")
UNSEEN = frozenset(("ctx", "kind", "type_comment", "type_ignores"))
"""Fields of a syntax tree that change nothing or that its other fields decide."""


@dataclass(frozen=True)
class Module:
    """What counts of a source file: the digest of its code, the names it imports, and its strings that may name files.

    `code` is empty where nothing is left, as in an `__init__.py` of imports.  An import is its level, its module and
    the names it takes from that.
    """

    code: str
    imports: tuple[tuple[int, str, tuple[str, ...]], ...] = ()
    names: frozenset[str] = frozenset()


def source_hash(cls: type[Any]) -> str:
    """SHA-256 of the code behind a class: of its module and of the bases it builds on, and of what these import.

    Followed are imports from the module's own package, from the folder of a file that was named by path, and from the
    built-in methods and tasks.  The engine and other packages are not in it.
    """
    digests: set[str] = set()
    pending = [file for module in _modules(cls) for file in _with_package(_file(module))]
    homes = _homes(cls)
    done: set[Path] = set()
    while pending:
        path = pending.pop()
        if path in done:
            continue
        done.add(path)
        module = _read(path)
        digests.add(module.code)
        digests |= {_digest(file.read_bytes()) for file in _templates(path, module)}
        for wanted in module.imports:
            pending += _resolved(path, wanted, homes)
    return _digest("\0".join(sorted(digests - {""})).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _modules(cls: type[Any]) -> Iterator[ModuleType]:
    """The modules of a class and its bases, but for the engine's and Python's own."""
    for base in cls.__mro__:
        name = base.__module__
        root = name.partition(".")[0]
        engine = root == ENGINE and not name.startswith(BUILT_IN)
        module = sys.modules.get(name)
        if (
            module
            and getattr(module, "__file__", None)
            and not engine
            and root not in sys.stdlib_module_names
        ):
            yield module


def _file(module: ModuleType) -> Path:
    return Path(str(module.__file__))


def _with_package(path: Path) -> list[Path]:
    """A module, or every module of a package but the one that is a command of its own."""
    if path.name != "__init__.py":
        return [path]
    return [file for file in sorted(path.parent.glob("*.py")) if file.name != "__main__.py"]


def _homes(cls: type[Any]) -> Mapping[str, Path]:
    """Where the modules are that count, by the package they are named after; "" is the folder of a file by path."""
    homes = dict(_built_in())
    for module in _modules(cls):
        root = module.__name__.partition(".")[0]
        if root.startswith(PLUGIN):
            homes[""] = _file(module).parent
        elif root != ENGINE and (package := sys.modules.get(root)) and hasattr(package, "__path__"):
            homes[root] = Path(next(iter(package.__path__)))
    return homes


@functools.cache
def _built_in() -> Mapping[str, Path]:
    """The folders of the built-in methods and tasks, whether or not one is imported yet."""
    specs = {name: importlib.util.find_spec(name) for name in BUILT_IN}
    return {
        name: Path(next(iter(spec.submodule_search_locations or ())))
        for name, spec in specs.items()
        if spec
    }


def _resolved(
    path: Path, wanted: tuple[int, str, tuple[str, ...]], homes: Mapping[str, Path]
) -> list[Path]:
    """The files behind an import, as far as they are in one of the homes."""
    level, name, taken = wanted

    def locate(module: str) -> Path | None:
        return _module_in(path.parents[level - 1], module) if level else _located(module, homes)

    files = [file for part in taken if (file := locate(f"{name}.{part}".strip(".")))]
    if len(files) < max(len(taken), 1) and (whole := locate(name)):
        files.append(whole)
    return [module for file in files for module in _with_package(file)]


def _located(name: str, homes: Mapping[str, Path]) -> Path | None:
    for prefix, home in homes.items():
        if prefix and name.startswith(f"{prefix}."):
            return _module_in(home, name.removeprefix(f"{prefix}."))
    root = name.partition(".")[0]
    if root in homes:
        return _module_in(homes[root], "")
    if "" in homes and root != ENGINE and root not in sys.stdlib_module_names:
        return _module_in(homes[""], name)
    return None


def _module_in(folder: Path, name: str) -> Path | None:
    """The file of a module below a folder; None where it is not there."""
    stem = folder.joinpath(*name.split(".")) if name else folder
    for path in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")):
        if path.is_file():
            return path
    return None


def _templates(path: Path, module: Module) -> Iterator[Path]:
    """The files beside a module that its code names, such as the text of a prompt."""
    for name in sorted(module.names):
        beside = path.parent / name
        if beside.suffix != ".py" and beside.is_file():
            yield beside


def _read(path: Path) -> Module:
    about = path.stat()
    return _parsed(path, about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=512)
def _parsed(path: Path, changed: int, size: int) -> Module:
    """A source file as of its last change, which is here so that a changed file is read again."""
    content = path.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return Module(_digest(content))
    imports: list[tuple[int, str, tuple[str, ...]]] = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports.append(
                (node.level, node.module or "", tuple(alias.name for alias in node.names))
            )
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and FILE_NAME.fullmatch(node.value)
        ):
            names.add(node.value)
    words: list[str] = []
    _spell(tree, words)
    code = _digest("\n".join(words).encode("utf-8", "backslashreplace")) if len(words) > 2 else ""
    return Module(code, tuple(imports), frozenset(names))


def _spell(value: Any, words: list[str]) -> None:
    """A syntax tree as words; unlike `ast.dump`, alike in all versions of Python."""
    if isinstance(value, ast.AST):
        words.append(f"({type(value).__name__}")
        for name in value._fields:
            part = getattr(value, name, None)
            kept = _kept(part) if isinstance(part, list) else part
            if name not in UNSEEN and kept is not None and kept != []:
                words.append(name)
                _spell(kept, words)
        words.append(")")
    elif isinstance(value, list):
        words.append("[")
        for part in value:
            _spell(part, words)
        words.append("]")
    else:
        words.append(repr(value))


def _kept(parts: Iterable[Any]) -> list[Any]:
    return [part for part in parts if not _idle(part)]


def _idle(part: Any) -> bool:
    """Whether a statement does nothing when it runs, or only imports."""
    if isinstance(part, ast.If) and not part.orelse:
        test = part.test
        return "TYPE_CHECKING" in (getattr(test, "id", None), getattr(test, "attr", None))
    text = (
        isinstance(part, ast.Expr)
        and isinstance(part.value, ast.Constant)
        and isinstance(part.value.value, str)
    )
    return text or isinstance(part, ast.Import | ast.ImportFrom | ast.Pass)
