"""Source hashes of methods and tasks: they identify the code that runs and ignore text for readers.

Comments, docstrings, import lines, formatting and the names of modules do not count, so that a
comment, a formatter or a moved file leaves finished runs valid.  docs/files.md lists the hashed
parts.
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
from typing import Any, NamedTuple, TypeGuard

PLUGIN = "personabench_plugin_"
"""Prefix of the names of modules that are loaded by path."""

ENGINE = "personabench"
BUILT_IN = (f"{ENGINE}.methods", f"{ENGINE}.tasks")

# A string that looks like a file name may name a template beside its module, or in a folder there
# that another string names.
FILE_NAME = re.compile(r"[\w.+/-]{1,200}\.\w+")
EXAMPLES = "sample"
FOLDER_NAME = re.compile(r"[\w+/-]{1,200}")

# Fields of a syntax tree that do not change the program or follow from its other fields.
UNSEEN = frozenset(("ctx", "kind", "type_comment", "type_ignores"))


class Import(NamedTuple):
    """An import statement: its relative level, its module and the symbols taken from it."""

    level: int
    module: str
    symbols: tuple[str, ...]


@dataclass(frozen=True)
class Module:
    """The parts of a source file that count.

    Attributes:
        code: the digest of its code; empty if nothing is left, as in an `__init__.py` of imports.
        imports: its import statements.
        file_names: its strings that may name files.
        folder_names: its strings that may name folders.
    """

    code: str
    imports: tuple[Import, ...] = ()
    file_names: frozenset[str] = frozenset()
    folder_names: frozenset[str] = frozenset()


def source_hash(cls: type[Any]) -> str:
    """Hash the code of a class, its bases and their imports; SHA-256 in hex.

    Imports are followed within the module's own package, the folder of a file loaded by path, and
    the built-in methods and tasks.  The engine and other packages do not count.
    """
    homes = _list_homes(cls)
    pending: list[Path] = []
    for module in _class_modules(cls):
        pending += _with_package(_module_file(module))

    # A task that is declared in a file has no code of its own, but a digest of the declaration.
    digests: set[str] = {str(getattr(cls, "code", ""))}
    visited: set[Path] = set()
    while pending:
        path = pending.pop()
        if path in visited:
            continue
        visited.add(path)

        source = _read(path)
        digests.add(source.code)
        for template in _list_templates(path, source):
            digests.add(_digest(template.read_bytes()))
        for statement in source.imports:
            pending += _resolve_import(path, statement, homes)

    # Sorted digests rather than paths: a moved file keeps the hash.
    digests.discard("")
    return _digest("\0".join(sorted(digests)).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _class_modules(cls: type[Any]) -> Iterator[ModuleType]:
    """Yield the modules of a class and its bases, without the engine's and Python's own."""
    for base in cls.__mro__:
        name = base.__module__
        root = _root_package(name)
        if root in sys.stdlib_module_names:
            continue
        if root == ENGINE and not name.startswith(BUILT_IN):
            continue

        module = sys.modules.get(name)
        # Modules without a file are made at run time, such as `__main__` of a shell.
        if module and str(getattr(module, "__file__", None) or "").endswith(".py"):
            yield module


def _root_package(name: str) -> str:
    return name.partition(".")[0]


def _module_file(module: ModuleType) -> Path:
    return Path(str(module.__file__))


def _with_package(path: Path) -> list[Path]:
    """Return a module, or every module of a package.

    A package's `__main__.py` is a command of its own and takes no part in runs.
    """
    if path.name != "__init__.py":
        return [path]
    return [file for file in sorted(path.parent.glob("*.py")) if file.name != "__main__.py"]


def _list_homes(cls: type[Any]) -> Mapping[str, Path]:
    """Map packages that count to their folders; "" is the folder of a file loaded by path."""
    homes = dict(_built_in_folders())
    for module in _class_modules(cls):
        root = _root_package(module.__name__)
        if root.startswith(PLUGIN):
            homes[""] = _module_file(module).parent
            continue

        package = sys.modules.get(root)
        if root != ENGINE and package and hasattr(package, "__path__"):
            homes[root] = Path(next(iter(package.__path__)))
    return homes


@functools.cache
def _built_in_folders() -> Mapping[str, Path]:
    """Map the packages of built-in methods and tasks to their folders, imported or not."""
    folders = {}
    for name in BUILT_IN:
        spec = importlib.util.find_spec(name)
        if spec:
            folders[name] = Path(next(iter(spec.submodule_search_locations or ())))
    return folders


def _resolve_import(
    path: Path,
    statement: Import,
    homes: Mapping[str, Path],
) -> list[Path]:
    """Find the files behind an import that are in one of the homes."""

    def locate(module: str) -> Path | None:
        if statement.level:
            return _module_in(path.parents[statement.level - 1], module)
        return _locate_module(module, homes)

    files = []
    for symbol in statement.symbols:
        submodule = locate(f"{statement.module}.{symbol}".strip("."))
        if submodule:
            files.append(submodule)

    # Symbols that are not submodules come from the module itself, as does a plain `import module`.
    if len(files) < max(len(statement.symbols), 1):
        whole = locate(statement.module)
        if whole:
            files.append(whole)

    modules: list[Path] = []
    for file in files:
        modules += _with_package(file)
    return modules


def _locate_module(
    name: str,
    homes: Mapping[str, Path],
) -> Path | None:
    for prefix, folder in homes.items():
        if prefix and name.startswith(f"{prefix}."):
            return _module_in(folder, name.removeprefix(f"{prefix}."))

    root = _root_package(name)
    if root in homes:
        return _module_in(homes[root], "")

    if "" in homes and root != ENGINE and root not in sys.stdlib_module_names:
        return _module_in(homes[""], name)
    return None


def _module_in(folder: Path, name: str) -> Path | None:
    """Return the file of a module below a folder, if it exists."""
    stem = folder.joinpath(*name.split(".")) if name else folder
    for path in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")):
        if path.is_file():
            return path
    return None


def _list_templates(path: Path, source: Module) -> Iterator[Path]:
    """Yield the files beside a module that its code names, such as the text of a prompt."""
    # The example data counts as data, not as code.
    named = [path.parent / name for name in sorted(source.folder_names - {EXAMPLES})]
    folders = [path.parent, *(folder for folder in named if folder.is_dir())]
    for name in sorted(source.file_names):
        for folder in folders:
            file = folder / name
            if file.suffix != ".py" and file.is_file():
                yield file


def _read(path: Path) -> Module:
    status = path.stat()
    return _parse(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=512)
def _parse(
    path: Path,
    modified: int,
    size: int,
) -> Module:
    """Parse a source file."""
    # `modified` and `size` only serve the cache: a changed file is read again.
    content = path.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return Module(_digest(content))

    imports: list[Import] = []
    file_names: set[str] = set()
    folder_names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [Import(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            symbols = tuple(alias.name for alias in node.names)
            imports.append(Import(node.level, node.module or "", symbols))
        elif isinstance(node, ast.Call):
            imports += _called_imports(node)
        elif _is_text(node) and FILE_NAME.fullmatch(str(node.value)):
            file_names.add(str(node.value))
        elif _is_text(node) and FOLDER_NAME.fullmatch(str(node.value)):
            folder_names.add(str(node.value))

    words: list[str] = []
    _append_words(tree, words)
    # An empty module has two words, the brackets of its tree.
    code = ""
    if len(words) > 2:
        code = _digest("\n".join(words).encode("utf-8", "backslashreplace"))
    return Module(code, tuple(imports), frozenset(file_names), frozenset(folder_names))


def _called_imports(call: ast.Call) -> Iterator[Import]:
    """Yield the import of a call such as `importlib.import_module("prompts")`."""
    function = getattr(call.func, "id", None) or getattr(call.func, "attr", None)
    if function not in ("import_module", "__import__") or not call.args:
        return
    name = call.args[0]
    if _is_text(name):
        module = str(name.value).lstrip(".")
        yield Import(len(str(name.value)) - len(module), module, ())


def _append_words(value: Any, words: list[str]) -> None:
    """Write a syntax tree as words."""
    # Not `ast.dump`, whose output differs between versions of Python.
    if isinstance(value, ast.AST):
        words.append(f"({type(value).__name__}")
        for name in value._fields:
            part = getattr(value, name, None)
            if isinstance(part, list):
                part = _drop_idle(part)
            # Absent and empty fields are left out, since newer versions of Python add some.
            if name in UNSEEN or part is None or part == []:
                continue
            words.append(name)
            _append_words(part, words)
        words.append(")")

    elif isinstance(value, list):
        words.append("[")
        for item in value:
            _append_words(item, words)
        words.append("]")

    else:
        words.append(repr(value))


def _drop_idle(nodes: Iterable[Any]) -> list[Any]:
    return [node for node in nodes if not _is_idle(node)]


def _is_idle(node: Any) -> bool:
    """Whether a statement does nothing when it runs, or only imports."""
    if isinstance(node, ast.If) and not node.orelse:
        # Both `if TYPE_CHECKING` and `if typing.TYPE_CHECKING`.
        identifiers = (getattr(node.test, "id", None), getattr(node.test, "attr", None))
        return "TYPE_CHECKING" in identifiers

    if isinstance(node, ast.Expr) and _is_text(node.value):
        return True
    return isinstance(node, ast.Import | ast.ImportFrom | ast.Pass)


def _is_text(node: Any) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def read_literals(node: ast.ClassDef) -> dict[str, Any]:
    """Read the class attributes whose values are literals."""
    literals: dict[str, Any] = {}
    for statement in node.body:
        if not isinstance(statement, ast.Assign):
            continue
        target = statement.targets[0]
        if not isinstance(target, ast.Name):
            continue
        try:
            literals[target.id] = ast.literal_eval(statement.value)
        except ValueError:
            # A computed value is known only after an import.
            continue
    return literals
