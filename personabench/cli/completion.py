"""Values that a shell completes: names of methods, tasks, backends, models and runs.

A shell calls these at every press of the key, so they read names and files, and import no plugin.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from personabench.api.registry import Kind

# Shells show long lists badly, and reading a spec for each model of a large folder takes time.
_MOST_MODELS = 50


def complete_methods(incomplete: str) -> list[str]:
    """Complete the last of a list of methods, by name or file, and a wrapper after a plus sign."""

    def list_names(word: str) -> list[str]:
        method, plus, _ = word.rpartition("+")
        wrapped = [f"{method}+{name}" for name in _list_plugins("wrapper")] if plus else []
        return [*_list_plugins("method"), *wrapped, *_list_files(word)]

    return _complete_list(incomplete, list_names)


def complete_tasks(incomplete: str) -> list[str]:
    """Complete the last of a list of tasks, by name or file."""
    endings = (".py", ".toml")
    return _complete_list(
        incomplete, lambda word: [*_list_plugins("task"), *_list_files(word, endings)]
    )


def complete_backends(incomplete: str) -> list[str]:
    """Complete the name of a backend."""
    from personabench.models.backends import BACKENDS

    return _matching(incomplete, BACKENDS)


def complete_models(incomplete: str) -> list[str]:
    """Complete the packaged model, a model of an earlier run, or a GGUF file."""
    from personabench.models.backends.local import REPACKED

    names = [REPACKED, *_list_models()]
    return _matching(incomplete, [*names, *_list_files(incomplete, (".gguf",))])


def complete_runs(incomplete: str) -> list[str]:
    """Complete the id of a run, or 'last'."""
    ids = sorted(path.name for path in _results().glob("runs/*/*/*/*"))
    return _matching(incomplete, ["last", *ids])


def _complete_list(incomplete: str, list_names: Callable[[str], Iterable[str]]) -> list[str]:
    """Complete the last part of a list with commas by a name that it does not have yet."""
    before, comma, last = incomplete.rpartition(",")
    completed = before.split(",")
    names = [name for name in _matching(last, list_names(last)) if name not in completed]
    return [f"{before}{comma}{name}" for name in names]


def _matching(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _list_plugins(kind: Kind) -> list[str]:
    from personabench.api.registry import list_entries

    return sorted(list_entries(kind))


def _list_files(incomplete: str, endings: tuple[str, ...] = (".py",)) -> list[str]:
    """Files and folders that a path could go on to; only if the word looks like one."""
    if not incomplete.startswith((".", "/", "~")) and "/" not in incomplete:
        return []
    folder, _, start = incomplete.rpartition("/")
    prefix = incomplete.removesuffix(start)
    place = Path(folder or ("/" if prefix else ".")).expanduser()
    try:
        paths = sorted(place.iterdir())
    except OSError:
        return []
    names = [f"{path.name}/" for path in paths if path.is_dir()]
    names += [path.name for path in paths if path.name.endswith(endings)]
    return [f"{prefix}{name}" for name in names]


def _list_models() -> list[str]:
    """The models of earlier runs, as their specs name them."""
    # One run of each folder: its name may have lost characters of the model's.
    folders = sorted(_results().glob("runs/*/*/*"))
    specs = {folder.name: next(folder.glob("*/spec.json"), None) for folder in folders}
    names = []
    for spec in list(specs.values())[:_MOST_MODELS]:
        try:
            names.append(str(json.loads(spec.read_bytes())["model"]["name"]) if spec else "")
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(filter(None, names))


def _results() -> Path:
    return Path(os.environ.get("PERSONABENCH_RESULTS") or "results")
