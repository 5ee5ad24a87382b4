"""Import the modules of plugins, by path or by name, and explain why one does not import."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from personabench.api.guard import TRACEBACKS, is_fault, is_library
from personabench.api.source import PLUGIN
from personabench.errors import PluginError, UsageError

# Files of modules that plugins have imported from their own folders, by module name.
_helpers: dict[str, Path] = {}

# Folders of plugins that this module has added to Python's path.
_folders: list[str] = []


def import_plugin(path: Path) -> ModuleType:
    """Import a file by path.

    Raises:
        PluginError: the file cannot be imported.
    """
    try:
        return _execute_plugin(path)
    # The file may raise anything while it is imported.
    except BaseException as error:
        if not is_fault(error):
            raise
        raise explain_import(str(path), error) from error


def _execute_plugin(path: Path) -> ModuleType:
    # Named by the path's hash, so that two files of one name do not replace each other in
    # sys.modules.
    path_hash = hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    name = f"{PLUGIN}{path_hash[:12]}"

    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")

    folder = path.resolve().parent
    _forget_helpers(folder)
    _add_to_path(folder)
    importlib.invalidate_caches()

    loaded_before = set(sys.modules)
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs: dataclasses look up their module while the class is created.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        _remember_helpers(folder, sys.modules.keys() - loaded_before)
    return module


def _remember_helpers(folder: Path, modules: Iterable[str]) -> None:
    """Remember those modules that a plugin has imported from its own folder."""
    for name in modules:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None or name.startswith(PLUGIN):
            continue
        path = Path(file).resolve()
        if folder in path.parents and not is_library(path):
            _helpers[name] = path


def _forget_helpers(folder: Path) -> None:
    """Have the modules of a folder imported anew.

    Their files may have changed, or another plugin has imported a module of the same name.
    """
    for name, path in list(_helpers.items()):
        root = name.partition(".")[0]
        twins = (folder / f"{root}.py", folder / root / "__init__.py")
        if folder in path.parents or any(twin.is_file() for twin in twins):
            del _helpers[name]
            sys.modules.pop(name, None)


def _add_to_path(folder: Path) -> None:
    """Let a plugin import the modules beside it, before those beside other plugins."""
    text = str(folder)
    if text in _folders:
        _folders.remove(text)
        sys.path[:] = [entry for entry in sys.path if entry != text]
    if text in sys.path:
        return

    # After everything else, so that no file hides a module of Python or an installed package.
    positions = [sys.path.index(entry) for entry in _folders if entry in sys.path]
    sys.path.insert(min(positions, default=len(sys.path)), text)
    _folders.append(text)


def explain_import(place: str, error: BaseException) -> PluginError:
    """Explain why a module does not import, with the line of the module that is at fault."""
    line = ""
    if isinstance(error, SyntaxError):
        line = f"{error.filename}, line {error.lineno}"
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            # Python's own machinery is "<frozen ...>" or in its library.
            if not is_library(Path(frame.filename)) and "importlib" not in frame.filename:
                line = f"{frame.filename}, line {frame.lineno}"
    location = f" ({line})" if line else ""
    TRACEBACKS.error("%s", place, exc_info=error)
    return PluginError(
        f"{place}{location}: expected a module that imports, but it does not import: "
        f"{type(error).__name__}: {error}"
    )


def is_reference(name: str) -> bool:
    """Whether a name is that of a class in an installed module, as `module:Class`."""
    module, separator, class_name = name.partition(":")
    return bool(separator) and all(
        part.isidentifier() for part in (*module.split("."), *class_name.split("."))
    )


def import_reference(name: str) -> Any:
    """Import the class of `module:Class`.

    Raises:
        UsageError: there is no such module or class.
        PluginError: the module does not import.
    """
    module_name, _, class_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise UsageError(
                f"--method {name}: there is no module {error.name}; install its package, or name "
                "a file as path/to/file.py:Class"
            ) from error
        raise explain_import(name, error) from error
    # A plugin's module may raise anything while it is imported.
    except BaseException as error:
        if not is_fault(error):
            raise
        raise explain_import(name, error) from error

    cls = getattr(module, class_name, None)
    if cls is None:
        raise UsageError(f"--method {name}: {module_name} has no class {class_name}")
    return cls
