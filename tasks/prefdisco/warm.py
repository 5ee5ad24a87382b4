"""Warm start: the same persona's revealed preferences on earlier problems as a history (this project's extension).

Per persona, records are ordered by a hash of seed, persona and problem; the last ones are targets, the rest is the
pool, and a history of size h is the pool's last h, so that sizes nest and all targets of a persona share one history.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from personabench.errors import DataError, UsageError
from personabench.hashing import digest, digest_files
from personabench.results.run_folder import RunFolder
from personabench.tasks.prefdisco.data import PrefDiscoData, item_of, sample_of
from personabench.tasks.prefdisco.files import Entry, available, folded, read
from personabench.types import Record, Sample, User

if TYPE_CHECKING:
    from personabench.tasks.prefdisco import PrefDiscoWarm

TARGETS = 3
SAMPLE_TARGETS = 1
Named = tuple[Entry, str]
"""A record and the name that its entry in a history has."""


class Revealed(msgspec.Struct, frozen=True):
    """What is known of an earlier record: dimensions with the values told, and what stands in the history for it.

    `draft` is what had been answered without knowing the user, empty where nothing was.
    """

    values: Mapping[str, str]
    text: str
    draft: str = ""


class WarmData(PrefDiscoData):
    """An opened set whose samples are the targets, each with its persona's history.

    Raises:
        UsageError: too few records for the split, or no run of a writer where the form takes one.
        DataError: a file is broken, or the writer's run lacks records.
    """

    def __init__(self, task: PrefDiscoWarm, split: str, data: Path | None) -> None:
        p = task.params
        super().__init__(split, data, p.images == "ignore")
        self._params = p
        targets = p.targets or (SAMPLE_TARGETS if self.sample else TARGETS)
        others = _elsewhere(self.path, data) if p.scope == "cross_task" else []
        pools: dict[str, list[Named]] = defaultdict(list)
        for path in others:
            for entry in read(path).entries:
                pools[entry.persona_id].append(
                    (entry, f"{path.parent.name}/{path.stem}/{entry.id}")
                )
        for entry in self.entries:
            pools[entry.persona_id].append((entry, entry.id))
        self.pools, last = divided(
            pools, {entry.id for entry in self.entries}, p.seed, targets, p.min_pool
        )
        if not last:
            raise UsageError(
                f"{self.source}: no persona has {targets} records and {p.min_pool} more; "
                "lower task.targets or task.min_pool"
            )
        self._asked = {
            persona: {entry.key for entry in entries} for persona, entries in last.items()
        }
        chosen = {entry.id for entries in last.values() for entry in entries}
        self.entries = [entry for entry in self.entries if entry.id in chosen]
        self._writer = _Writer(Path(p.writer)) if p.form != "statements" else None
        if self._writer or others:
            told = [self._writer.name] if self._writer else []
            self.hash = digest([self.hash, digest_files(others), *told])
        self._records = {persona: self._made(pool) for persona, pool in self.pools.items()}
        usual = p.owner == "population"
        self._shown = (
            {persona: self._usual(persona) for persona in self.pools} if usual else self._records
        )
        short = sum(len(pool) < p.h for pool in self.pools.values())
        self.warnings = (
            *self.warnings,
            f"warm start, not comparable with PrefDisco: h={p.h}, form={p.form}, scope={p.scope}, owner={p.owner}, "
            f"writer={self._writer.model if self._writer else 'none'}, {targets} targets a persona",
            *(
                [f"{short} of {len(self.pools)} personas have fewer than {p.h} earlier records"]
                if short
                else []
            ),
        )

    def load(self, position: int) -> Sample:
        entry = self.entries[position]
        return sample_of(entry, self._last(entry.persona_id))

    def population(self) -> Iterator[User]:
        """Every persona with its whole pool; who compares people must leave out the question's own problem."""
        for persona, records in self._records.items():
            yield User(persona, records)

    def _last(self, persona: str) -> tuple[Record, ...]:
        return self._shown[persona][-self._params.h :] if self._params.h else ()

    def _made(self, pool: Sequence[Named]) -> tuple[Record, ...]:
        return tuple(
            record_of(
                entry,
                name,
                self._writer.revealed(entry, self._params.form)
                if self._writer
                else stated(entry, self._params.m),
            )
            for entry, name in pool
        )

    def _usual(self, persona: str) -> tuple[Record, ...]:
        """The persona's records with, for each dimension, the value most frequent among everybody else's."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for entry, _ in (
            each for other, pool in self.pools.items() if other != persona for each in pool
        ):
            for name, preference in (
                entry.preferences.items() if entry.key not in self._asked[persona] else ()
            ):
                found[name][" ".join(preference.value.split())] += 1
        records = []
        for entry, name in self.pools[persona]:
            values = {
                dimension: min(
                    found[dimension], key=lambda value: (-found[dimension][value], value)
                )
                for dimension in stated(entry, self._params.m).values
                if dimension in found
            }
            records.append(record_of(entry, name, Revealed(values, _lines(values))))
        return tuple(records)


def divided(
    records: Mapping[str, Sequence[Named]],
    own: Collection[str],
    seed: int,
    targets: int,
    min_pool: int,
) -> tuple[dict[str, list[Named]], dict[str, list[Entry]]]:
    """Each persona's pool, and its last `targets` records that have one of the `own` names, by persona.

    Records that ask what a target asks are in no pool; personas with fewer targets or too small a pool are left out.
    """
    pools, last = {}, {}
    for persona, named in records.items():
        ordered = sorted(named, key=lambda each: _place(seed, each[0]))
        chosen = [entry for entry, name in ordered if name in own][-targets:]
        asked = {entry.key for entry in chosen}
        pool = [each for each in ordered if each[0].key not in asked]
        if len(chosen) == targets and len(pool) >= min_pool:
            pools[persona], last[persona] = pool, chosen
    return pools, last


def _place(seed: int, entry: Entry) -> str:
    """Where a record stands in its persona's order: SHA-256 of `seed|persona|problem`."""
    return hashlib.sha256(f"{seed}|{entry.persona_id}|{entry.key}".encode()).hexdigest()


def _elsewhere(path: Path, data: Path | None) -> list[Path]:
    """The other sets beside an opened one."""
    return [other for other in available(data).values() if other != path] if data else []


def stated(entry: Entry, most: int) -> Revealed:
    """The `most` most important preferences (ties by name) as said by the user, in alphabetical order.

    The order tells nothing of importance, and neither importances nor justifications are told.
    """
    ranked = sorted(entry.preferences, key=lambda name: (-entry.preferences[name].importance, name))
    values = {
        name: " ".join(entry.preferences[name].value.split()) for name in sorted(ranked[:most])
    }
    return Revealed(values, _lines(values))


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in values.items())


def record_of(entry: Entry, name: str, revealed: Revealed) -> Record:
    """An earlier record as methods see it: problem, options, what was revealed; nothing of persona or rubric.

    `dimensions` names what was revealed, a line each; `draft` is there because nobody need write one.
    """
    fields = {"dimensions": "\n".join(revealed.values), "draft": revealed.draft}
    return Record(name, entry.problem.text, revealed.text, item=item_of(entry), fields=fields)


def seen(history: Sequence[Record]) -> dict[str, str]:
    """The dimensions revealed in a history with the value told last; "" where it was told in free words."""
    found: dict[str, str] = {}
    for record in history:
        lines = record.response.splitlines()
        for name in filter(None, record.fields.get("dimensions", "").split("\n")):
            found[name] = next(
                (line.removeprefix(f"{name}: ") for line in lines if line.startswith(f"{name}: ")),
                "",
            )
    return found


class _Writer:
    """A run of `prefdisco` by a reference model, whose conversations or answers stand in the histories.

    Raises:
        UsageError: the folder holds no such run.
    """

    def __init__(self, path: Path) -> None:
        folder = RunFolder(path)
        if not path.name or not (path / "spec.json").is_file():
            raise UsageError(
                "task.form other than statements takes a run of prefdisco: --set task.writer=RUN_FOLDER"
            )
        spec = folder.spec()
        if spec.task != "prefdisco":
            raise UsageError(f"{path} is a run of {spec.task}; task.writer takes one of prefdisco")
        self.model = spec.model["name"]
        self._path = path
        self._told: dict[str, Mapping[str, Any]] = {
            line.sample_id: line.record["conditions"]
            for line in folder.iter_predictions()
            if line.error is None
        }
        self.name = digest([spec.fingerprint, self._told])

    def revealed(self, entry: Entry, form: str) -> Revealed:
        """What the run shows of a record: what the simulated user said, or draft and final answer."""
        told = self._told.get(entry.id)
        if told is None:
            raise DataError(
                f"{self._path} has no record {entry.id}; run it without --limit on the same set"
            )
        if form == "response":
            return Revealed({}, told["known"]["output"], told["base"]["output"])
        said = "\n".join(turn["answer"] for turn in told["final"]["turns"] if "answer" in turn)
        heard = {
            name: ""
            for name, preference in entry.preferences.items()
            if folded(name) in folded(said) or folded(preference.value) in folded(said)
        }
        return Revealed(heard, said)
