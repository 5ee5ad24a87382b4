"""Pack runs into a results folder that another machine can read.

A pack holds the run folders, the checksums of all its files, and the inputs: either the data and
the calls themselves, or their hashes alone, for data that may not be passed on.  All commands that
read results read a pack as they read any results folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from personabench.api.own_data.declaration import read_declaration, write_declaration
from personabench.errors import DataError, UsageError
from personabench.models.cache import Cache
from personabench.results.locate import find_dataset, find_place, find_task
from personabench.results.run_folder import RunFolder
from personabench.types import to_json

Inputs = Literal["include", "hash"]
MANIFEST = "pack.json"
DATA = "data"
TASKS = "tasks"
VERSION = 1
# Texts of the data and of users, beside the answers.
_TEXTS = ("artifacts", "attempts", "states")


class PackedData(msgspec.Struct, frozen=True):
    """The data of packed runs: the hash that runs record, and the SHA-256 of each file.

    `path` is relative to the pack, and empty if the data is not in it.  `files` is empty if the
    data had moved or changed since the run: other files prove nothing about it.
    """

    data_hash: str
    source: str
    path: str
    files: dict[str, str]


class Manifest(msgspec.Struct, frozen=True):
    """`pack.json`: the runs, their data, and the SHA-256 of every other file of the pack."""

    version: int
    inputs: Inputs
    runs: dict[str, str]
    data: list[PackedData]
    files: dict[str, str]


def pack(
    folders: Sequence[RunFolder],
    results: Path,
    target: Path,
    inputs: Inputs,
) -> Manifest:
    """Write runs into a new results folder.

    Args:
        results: the results folder of the runs, with the cache of their calls.
        inputs: whether the data and the calls are copied, or only hashed.

    Raises:
        UsageError: the target exists, or a run's data is to be included and has moved or changed.
        DataError: a file of a run is damaged.
    """
    if target.exists() and any(target.iterdir()):
        raise UsageError(f"{target} exists and is not empty; name a new folder")

    # Made beside and renamed, so that a failure leaves no half of a pack.
    temporary = target.absolute().with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        manifest = _write_pack(folders, results, temporary, inputs)
        temporary.replace(target)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def _write_pack(
    folders: Sequence[RunFolder], results: Path, target: Path, inputs: Inputs
) -> Manifest:
    data: dict[str, PackedData] = {}
    runs: dict[str, str] = {}
    for folder in folders:
        folder.verify_all()
        path = target / folder.path.resolve().relative_to(results.resolve())
        hidden = () if inputs == "include" else _TEXTS
        shutil.copytree(folder.path, path, ignore=shutil.ignore_patterns("lock", "*.tmp", *hidden))
        runs[folder.spec().fingerprint] = path.relative_to(target).as_posix()
        packed = _pack_data(folder, target, inputs)
        if packed is not None:
            data.setdefault(packed.data_hash, packed)

    _copy_declarations(folders, results, target)
    if inputs == "include":
        _copy_calls(folders, results, target)
    manifest = Manifest(
        version=VERSION,
        inputs=inputs,
        runs=runs,
        data=list(data.values()),
        files={name: _hash(target / name) for name in _list_files(target)},
    )
    (target / MANIFEST).write_text(to_json(manifest) + "\n", encoding="utf-8")
    return manifest


def _pack_data(folder: RunFolder, target: Path, inputs: Inputs) -> PackedData | None:
    """Copy or hash the data of a run; None for example data, which everybody has."""
    spec, summary = folder.spec(), folder.summary()
    if spec.sample:
        return None
    task = find_task(spec.task, spec.task_params, spec.task_hash)
    dataset = None if task is None else find_dataset(task, summary, summary.data)
    source = Path(summary.data or summary.source)
    if dataset is None and inputs == "include":
        raise UsageError(
            f"the data of {folder.path} has moved or changed, or its task is not loaded (--task "
            "FILE); name the data with --data, or pack with --inputs hash"
        )
    if dataset is None:
        return PackedData(spec.data_hash, source.name, "", {})
    # It may be somewhere else than the run found it.
    source = find_place(dataset, summary.data)
    tables = [source]
    history = getattr(task, "find_files", None)
    if history is not None:
        with contextlib.suppress(DataError):
            tables = [path for path in history(None) if path is not None]
    files: dict[str, str] = {}
    data_folder = Path(DATA) / spec.data_hash[:8]
    for table in tables:
        for path in _walk(table):
            name = path.relative_to(table.parent if table.is_file() else table).as_posix()
            files[name] = _hash(path)
            if inputs == "include":
                copy = target / data_folder / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    included = inputs == "include" and bool(files)
    return PackedData(
        spec.data_hash, source.name, data_folder.as_posix() if included else "", files
    )


def _copy_declarations(folders: Sequence[RunFolder], results: Path, target: Path) -> None:
    """Copy the task files of runs on own tables, with their tables in the pack."""
    hashes = {folder.spec().task: folder.spec().data_hash for folder in folders}
    for path in sorted((results / TASKS).glob("*.toml")):
        with contextlib.suppress(DataError):
            declaration = read_declaration(path)
            if declaration.name not in hashes:
                continue
            place = f"../{DATA}/{hashes[declaration.name][:8]}"
            replace = msgspec.structs.replace
            questions, history = declaration.questions, declaration.history
            questions = replace(questions, file=f"{place}/{Path(questions.file).name}")
            if history.file:
                history = replace(history, file=f"{place}/{Path(history.file).name}")
            moved = replace(declaration, questions=questions, history=history)
            write_declaration(target / TASKS / path.name, moved)


def _copy_calls(folders: Sequence[RunFolder], results: Path, target: Path) -> None:
    path = results / "cache.sqlite"
    if not path.exists():
        return
    with contextlib.closing(Cache(target / "cache.sqlite", writing=True)) as copy:
        for folder in folders:
            copy.absorb(path, _call_keys(folder))


def _call_keys(folder: RunFolder) -> Iterator[str]:
    calls: list[Iterable[Any]] = [profile.calls for profile in folder.profiles().values()]
    calls += [prediction.calls for prediction in folder.iter_predictions()]
    for group in calls:
        yield from (call.key for call in group)


def _walk(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(item for item in path.rglob("*") if item.is_file())


def _list_files(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in _walk(folder)]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_pack(folder: Path) -> list[str]:
    """List the files of a pack that are missing or changed; empty if it is whole.

    Raises:
        DataError: `folder` is no pack.
    """
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"{path} is no manifest of a pack: {error}") from error
    changed = []
    for name, recorded in manifest.files.items():
        file = folder / name
        if not file.is_file():
            changed.append(f"{name} is missing")
        elif _hash(file) != recorded:
            changed.append(f"{name} was changed")
    return changed
