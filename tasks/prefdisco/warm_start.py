"""Warm start: a persona's preferences on earlier problems as a history (this project's extension).

A persona's records are ordered by a hash of seed, persona and problem.  The last ones are targets,
the rest is the pool, and a history of size h is the last h of the pool.  So histories of different
sizes nest, and all targets of a persona share one history.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from personabench.errors import DataError, UsageError
from personabench.hashing import digest, fold_text
from personabench.results.run_folder import RunFolder
from personabench.tasks.prefdisco.data import (
    PrefDiscoData,
    hash_entries,
    hash_problem,
    make_sample,
)
from personabench.tasks.prefdisco.files import Entry, find_sets, read_records
from personabench.types import Record, Sample, User

if TYPE_CHECKING:
    from personabench.tasks.prefdisco import PrefDiscoWarm

TARGETS = 3

# The example data has four records a persona: three targets would leave a history of one.
EXAMPLE_TARGETS = 1


class NamedEntry(NamedTuple):
    """A record and the name that it has in a history."""

    entry: Entry
    name: str


class Revealed(msgspec.Struct, frozen=True):
    """The visible part of an earlier record: values by dimension, and the history's text.

    `draft` is the answer given without knowing the user, empty if there was none.
    """

    values: Mapping[str, str]
    text: str
    draft: str = ""


class WarmData(PrefDiscoData):
    """An opened set whose samples are the targets, each with its persona's history.

    Raises:
        UsageError: too few records for the split, or no run of a writer though the form takes one.
        DataError: a file is broken, or the writer's run lacks records.
    """

    def __init__(self, task: PrefDiscoWarm, split: str, data: Path | None) -> None:
        params = task.params
        super().__init__(split, data, params.images == "ignore")
        self._params = params

        further_sets: list[Path] = []
        if params.scope == "cross_task":
            further_sets = _find_further_sets(self.path, data)
        default_count = EXAMPLE_TARGETS if self.sample else TARGETS
        target_count = params.targets or default_count
        self.pools, targets = split_records(
            self._collect_records(further_sets),
            own_names={entry.id for entry in self.entries},
            seed=params.seed,
            target_count=target_count,
            min_pool=params.min_pool,
        )
        if not targets:
            raise UsageError(
                f"{self.source}: no persona has {target_count} records and {params.min_pool} more; "
                "lower task.targets or task.min_pool"
            )
        target_ids: set[str] = set()
        self._target_keys: dict[str, set[str]] = {}
        for persona, entries in targets.items():
            target_ids.update(entry.id for entry in entries)
            self._target_keys[persona] = {entry.key for entry in entries}
        self.entries = [entry for entry in self.entries if entry.id in target_ids]

        writer = _Writer(Path(params.writer)) if params.form != "statements" else None
        if writer or further_sets:
            # The histories come from more than the set's own file, so the hash has to as well.
            writer_hash = [writer.hash] if writer else []
            set_hashes = [hash_entries(read_records(path).entries) for path in further_sets]
            self.hash = digest([self.hash, set_hashes, *writer_hash])

        self._own_records = {
            persona: self._make_records(pool, writer) for persona, pool in self.pools.items()
        }
        self._visible_records = self._own_records
        if params.owner == "population":
            self._visible_records = {
                persona: self._make_typical_records(persona) for persona in self.pools
            }
        self.warnings = (*self.warnings, *self._describe_setting(writer, target_count))

    def load(self, position: int) -> Sample:
        entry = self.entries[position]
        records = self._visible_records[entry.persona_id]
        # A slice from -0 would be the whole pool.
        history = records[-self._params.h :] if self._params.h else ()
        return make_sample(entry, history)

    def population(self) -> Iterator[User]:
        """Every persona with its whole pool.

        A method that compares users must leave out the sample's own problem.
        """
        for persona, records in self._own_records.items():
            yield User(persona, records)

    def _collect_records(self, further_sets: Sequence[Path]) -> dict[str, list[NamedEntry]]:
        """Records by persona, those of further sets first and under names with their set."""
        records: dict[str, list[NamedEntry]] = defaultdict(list)
        for path in further_sets:
            for entry in read_records(path).entries:
                name = f"{path.parent.name}/{path.stem}/{entry.id}"
                records[entry.persona_id].append(NamedEntry(entry, name))
        for entry in self.entries:
            records[entry.persona_id].append(NamedEntry(entry, entry.id))
        return records

    def _make_records(
        self, pool: Sequence[NamedEntry], writer: _Writer | None
    ) -> tuple[Record, ...]:
        """A pool as history records, revealed by the writer's run or stated by the user."""
        records = []
        for entry, name in pool:
            revealed = self._reveal(entry, writer)
            records.append(make_record(entry, name, revealed))
        return tuple(records)

    def _reveal(self, entry: Entry, writer: _Writer | None) -> Revealed:
        if writer:
            return writer.reveal(entry, self._params.form)
        return state_preferences(entry, self._params.m)

    def _make_typical_records(self, persona: str) -> tuple[Record, ...]:
        """The persona's records with the value most frequent among all peers for each dimension."""
        counts = self._count_peer_values(persona)
        records = []
        for entry, name in self.pools[persona]:
            values = {}
            for dimension in state_preferences(entry, self._params.m).values:
                if dimension in counts:
                    values[dimension] = _most_frequent(counts[dimension])
            revealed = Revealed(values, _list_values(values))
            records.append(make_record(entry, name, revealed))
        return tuple(records)

    def _count_peer_values(self, persona: str) -> dict[str, Counter[str]]:
        """Count the values of each dimension among all other personas.

        Their records of the persona's target problems do not count: a history must not hold wishes
        about the very problem of a sample.
        """
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for peer, pool in self.pools.items():
            if peer == persona:
                continue
            for entry, _ in pool:
                if entry.key in self._target_keys[persona]:
                    continue
                for dimension, preference in entry.preferences.items():
                    counts[dimension][_join_lines(preference.value)] += 1
        return counts

    def _describe_setting(self, writer: _Writer | None, target_count: int) -> Iterator[str]:
        params = self._params
        yield (
            f"warm start, not comparable with PrefDisco: h={params.h}, form={params.form}, "
            f"scope={params.scope}, owner={params.owner}, "
            f"writer={writer.model if writer else 'none'}, {target_count} targets a persona"
        )
        short = sum(len(pool) < params.h for pool in self.pools.values())
        if short:
            yield (
                f"{short} of {len(self.pools)} personas have fewer than {params.h} earlier records"
            )


def split_records(
    records: Mapping[str, Sequence[NamedEntry]],
    own_names: Collection[str],
    seed: int,
    target_count: int,
    min_pool: int,
) -> tuple[dict[str, list[NamedEntry]], dict[str, list[Entry]]]:
    """Split each persona's records into a pool and its last records among `own_names`, the targets.

    Records with the question of a target are in no pool.  Personas with fewer targets or too small
    a pool are left out.
    """
    pools = {}
    targets = {}
    for persona, named_entries in records.items():
        ordered = sorted(named_entries, key=lambda named: _hash_position(seed, named.entry))
        candidates = [named.entry for named in ordered if named.name in own_names]
        last = candidates[-target_count:]
        target_keys = {entry.key for entry in last}
        pool = [named for named in ordered if named.entry.key not in target_keys]
        if len(last) == target_count and len(pool) >= min_pool:
            pools[persona] = pool
            targets[persona] = last
    return pools, targets


def state_preferences(entry: Entry, count: int) -> Revealed:
    """State the most important preferences (ties by name) as the user would, in alphabetical order.

    The order reveals no importance, and neither importances nor justifications are stated.
    """
    preferences = entry.preferences
    ranked = sorted(preferences, key=lambda name: (-preferences[name].importance, name))
    stated = sorted(ranked[:count])
    values = {name: _join_lines(preferences[name].value) for name in stated}
    return Revealed(values, _list_values(values))


def make_record(entry: Entry, name: str, revealed: Revealed) -> Record:
    """Make a history record of problem, options and revealed text, without persona and rubric.

    `dimensions` lists the revealed dimensions, a line each.
    """
    # `draft` is always present, because all records of a task have the same fields.
    fields = {"dimensions": "\n".join(revealed.values), "draft": revealed.draft}
    return Record(
        name,
        entry.problem.text,
        revealed.text,
        item=hash_problem(entry),
        fields=fields,
    )


def find_revealed(history: Sequence[Record]) -> dict[str, str]:
    """Dimensions that a history reveals, each with its last value ("" if stated in free words)."""
    values: dict[str, str] = {}
    for record in history:
        statements = record.response.splitlines()
        for name in record.fields.get("dimensions", "").split("\n"):
            if not name:
                continue
            prefix = f"{name}: "
            matching = [text for text in statements if text.startswith(prefix)]
            values[name] = matching[0].removeprefix(prefix) if matching else ""
    return values


def _find_further_sets(path: Path, data: Path | None) -> list[Path]:
    """The sets beside an opened one."""
    if not data:
        return []
    return [further for further in find_sets(data).values() if further != path]


def _hash_position(seed: int, entry: Entry) -> str:
    """Sort key of a record among its persona's: SHA-256 of `seed|persona|problem`."""
    return hashlib.sha256(f"{seed}|{entry.persona_id}|{entry.key}".encode()).hexdigest()


def _most_frequent(counts: Counter[str]) -> str:
    """The most frequent value, ties by the alphabet."""
    return min(counts, key=lambda value: (-counts[value], value))


def _join_lines(text: str) -> str:
    """A text on one line, as a history states one value per line."""
    return " ".join(text.split())


def _list_values(values: Mapping[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in values.items())


class _Writer:
    """A run of `prefdisco` by a reference model, whose conversations or answers make the histories.

    Raises:
        UsageError: the folder holds no such run.
    """

    def __init__(self, path: Path) -> None:
        folder = RunFolder(path)
        # An empty option is the path ".", whose name is empty.
        if not path.name or not (path / "spec.json").is_file():
            raise UsageError(
                "task.form other than statements takes a run of prefdisco: "
                "--set task.writer=RUN_FOLDER"
            )
        spec = folder.spec()
        if spec.task != "prefdisco":
            raise UsageError(f"{path} is a run of {spec.task}; task.writer takes one of prefdisco")

        self.model = spec.model["name"]
        self._path = path
        self._conditions: dict[str, Mapping[str, Any]] = {
            prediction.sample_id: prediction.interaction["conditions"]
            for prediction in folder.iter_predictions()
            if prediction.error is None
        }
        self.hash = digest([spec.fingerprint, self._conditions])

    def reveal(self, entry: Entry, form: str) -> Revealed:
        """Reveal of a record the simulated user's replies, or draft and final answer."""
        conditions = self._conditions.get(entry.id)
        if conditions is None:
            raise DataError(
                f"{self._path} has no record {entry.id}; run it without --limit on the same set"
            )
        if form == "response":
            return Revealed({}, conditions["known"]["output"], conditions["base"]["output"])

        turns = conditions["final"]["turns"]
        replies = "\n".join(turn["answer"] for turn in turns if "answer" in turn)
        folded_replies = fold_text(replies)
        mentioned = {}
        for name, preference in entry.preferences.items():
            texts = (fold_text(name), fold_text(preference.value))
            if any(text in folded_replies for text in texts):
                mentioned[name] = ""
        return Revealed(mentioned, replies)
