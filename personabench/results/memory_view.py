"""A user's memory as a run left it: its items with their sources, and the log of its edits.

No method is loaded.  An object of the state that has a list `ids` is an item, and these are the
records that it came from; everything else in the state is shown beside the items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from personabench.api.deltas import Delta
from personabench.api.memory import Ingested
from personabench.errors import DataError, UsageError
from personabench.results.memory_journal import MemoryJournal
from personabench.results.run_folder import Profile, RunFolder


class MemoryEntry(NamedTuple):
    """An item of a memory: its place in the state, its fields and the records behind it."""

    path: str
    fields: Mapping[str, Any]
    record_ids: list[str]


class MemoryEdit(NamedTuple):
    """A batch of the log: its records, and the changes it made, as (sign, path, value)."""

    record_ids: tuple[str, ...]
    changes: list[tuple[str, str, Any]]
    calls: int
    flags: Mapping[str, float]


class MemoryView(NamedTuple):
    """A user's memory.

    Attributes:
        reused: an earlier run ingested the history, so that this one has no log.
    """

    user_id: str
    batches: int
    records: int
    items: list[MemoryEntry]
    rest: Any
    log: list[MemoryEdit]
    reused: bool


def read_memory(folder: RunFolder, user_id: str) -> MemoryView:
    """Read the latest memory of a user.

    Raises:
        UsageError: the run keeps no memory, or none of this user.
        DataError: a file of the run is damaged.
    """
    profiles = [profile for profile in folder.profiles().values() if profile.key]
    users = list(dict.fromkeys(profile.user_id for profile in profiles))
    mine = [profile for profile in profiles if profile.user_id == user_id]
    if not mine:
        listed = ", ".join(users[:8]) + (", …" if len(users) > 8 else "")
        hint = f"it has: {listed}" if users else "it keeps none"
        raise UsageError(f"{folder.path} has no memory of user '{user_id}'; {hint}")

    ingested = _read_state(mine[-1], folder)
    return MemoryView(
        user_id,
        ingested.batches,
        ingested.records,
        list(_find_items(ingested.frozen, "")),
        _without_items(ingested.frozen),
        list(_read_log(folder, user_id)),
        mine[-1].reused,
    )


def _read_state(profile: Profile, folder: RunFolder) -> Ingested:
    try:
        return msgspec.convert(profile.state, Ingested)
    except msgspec.ValidationError as error:
        name = folder.spec().method
        raise UsageError(
            f"{name} is no memory: `personabench show` has the profiles of its users"
        ) from error


def _find_items(value: Any, path: str) -> Iterator[MemoryEntry]:
    if _is_item(value):
        fields = {name: part for name, part in value.items() if name != "ids"}
        yield MemoryEntry(path, fields, value["ids"])
        return
    for name, part in _parts(value):
        yield from _find_items(part, f"{path}.{name}" if path else str(name))


def _is_item(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("ids"), list)


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        # Numbers in the order of their values: "2" before "10".
        yield from sorted(value.items(), key=lambda pair: (len(pair[0]), pair[0]))
    elif isinstance(value, list):
        yield from enumerate(value)


def _without_items(value: Any) -> Any:
    """The state without its items; None if nothing remains."""
    if _is_item(value) or value in ([], {}, "", None):
        return None
    if not isinstance(value, dict | list):
        return value
    kept = {str(name): _without_items(part) for name, part in _parts(value)}
    return {name: part for name, part in kept.items() if part is not None} or None


def _read_log(folder: RunFolder, user_id: str) -> Iterator[MemoryEdit]:
    path = MemoryJournal.path_of(folder.path, user_id)
    try:
        for line, _ in MemoryJournal(path).replay():
            if isinstance(line.change, Mapping):
                part = line.change.get("keys", {}).get("memory", {})
                changes = list(_list_changes(part, ""))
                yield MemoryEdit(line.record_ids, changes, len(line.calls), line.flags)
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(f"{path} is damaged; repeat the run's command") from error


def _list_changes(delta: Delta, path: str) -> Iterator[tuple[str, str, Any]]:
    if "set" in delta:
        yield "~", path, delta["set"]
    for name in delta.get("drop", []) if isinstance(delta.get("drop"), list) else []:
        yield "-", _join(path, name), None
    for name, part in delta.get("keys", {}).items():
        if set(part) == {"set"} and isinstance(part["set"], dict):
            yield "+", _join(path, name), part["set"]
        else:
            yield from _list_changes(part, _join(path, name))
    if "keep" in delta:
        yield from _list_list_changes(delta, path)


def _list_list_changes(delta: Delta, path: str) -> Iterator[tuple[str, str, Any]]:
    keep = delta["keep"]
    dropped = delta.get("drop", 0)
    for index in range(dropped):
        yield "-", _join(path, keep + index), None
    changed = delta.get("items", {})
    for index, part in changed.items():
        yield from _list_changes(part, _join(path, keep + int(index)))
    for index, value in enumerate(delta["new"]):
        yield "+", _join(path, keep + index), value


def _join(path: str, name: Any) -> str:
    return f"{path}.{name}" if path else str(name)
