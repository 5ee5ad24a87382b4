"""Documents and preferences on disk, and the trajectories drawn from them.

A folder holds `<source>.jsonl` for each source and, beside them, a preference file `<env>.yaml` or
`<env>.json`; if that is missing, the bundled one is used.  A trajectory is a seeded order of
documents with mixed sources, the same for every method.  The paper draws it from whole tables.  A
download keeps the rows that some seeds draw and, in `tables.json`, the lengths of the tables, from
which the same draw can be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from personabench.api.dataset import Dataset
from personabench.errors import DataError, UsageError
from personabench.hashing import digest
from personabench.tasks.prelude.rules import Rule, make_disliked, parse_rules, word_preference
from personabench.types import Sample, User

EXAMPLE_DATA = Path(__file__).parent / "sample"
PAPER_ROUNDS = 200
TABLES = "tables.json"

# Joins all preferences in one hidden text; a unit separator occurs in none of them.
SEPARATOR = "\x1f"


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of document and its user's preference, in words and, if there are any, as rules."""

    name: str
    preference: str = ""
    rules: tuple[str, ...] = ()


class Preferences(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A preference file: the environment and its sources in order."""

    env: str
    sources: tuple[Source, ...]


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of `<source>.jsonl`; further fields are ignored.

    Attributes:
        row: its position in the whole table, if the file holds a part of it.
    """

    doc_id: str
    text: str
    row: int | None = None


class Tables(msgspec.Struct, frozen=True):
    """`tables.json`: which rows of whole tables a folder holds.

    Attributes:
        rows: the length of each source's table; seeds, rounds: of the trajectories whose rows were
            kept.
    """

    rows: dict[str, int]
    seeds: list[int]
    rounds: int


def locate_preferences(data: Path, env: str, named: str) -> Path:
    """Find the preference file: the one named, the folder's, or the bundled one.

    Raises:
        UsageError: the named file does not exist.
    """
    if named:
        path = Path(named)
        if not path.is_file():
            raise UsageError(f"task.preferences={named}: no such file")
        return path

    for ending in ("yaml", "yml", "json"):
        path = data / f"{env}.{ending}"
        if path.is_file():
            return path
    return EXAMPLE_DATA / f"{env}.json"


def read_preferences(path: Path, env: str) -> Preferences:
    """Read a preference file.

    Raises:
        DataError: it is damaged, of another environment, names a source twice, or leaves one
            without preference.
    """
    decode: Any = msgspec.json.decode if path.suffix == ".json" else msgspec.yaml.decode
    try:
        preferences: Preferences = decode(path.read_bytes(), type=Preferences)
    except ImportError as error:
        raise DataError(
            f"{path}: reading YAML requires PyYAML (pip install pyyaml); JSON requires nothing"
        ) from error
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise DataError(f"{path} is not a preference file: {error}") from error

    if preferences.env != env:
        raise DataError(f"{path}: env is '{preferences.env}', but this task is '{env}'")
    source_names = [source.name for source in preferences.sources]
    if not source_names or len(set(source_names)) < len(source_names):
        raise DataError(f"{path}: sources must be named once each, not {source_names}")
    for source in preferences.sources:
        if not source.preference.strip() and not source.rules:
            raise DataError(f"{path}: source '{source.name}' has no preference")
    return preferences


def read_rules(preferences: Preferences, path: Path) -> dict[str, tuple[Rule, ...]]:
    """Parse the rules of each source.

    Raises:
        DataError: a source has no rules, or some that cannot all be kept.
    """
    rules = {}
    for source in preferences.sources:
        if not source.rules:
            raise DataError(
                f"{path}: source '{source.name}' has no rules, which task.user=rule requires"
            )
        try:
            rules[source.name] = parse_rules(source.rules)
        except ValueError as error:
            raise DataError(f"{path}: source '{source.name}': {error}") from error
    return rules


def read_documents(path: Path) -> list[Document]:
    """Read the documents of a source, stripped.

    Raises:
        DataError: the file is missing or damaged, a text is empty, or an id is repeated.
    """
    if not path.is_file():
        raise DataError(
            f"{path} does not exist; a source of PRELUDE is a file of JSON lines "
            "with doc_id and text"
        )
    decoder = msgspec.json.Decoder(Document)
    documents: dict[str, Document] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            location = f"{path}, line {number}"
            try:
                document = decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise DataError(f"{location}: {error}") from error
            if not document.text.strip():
                raise DataError(f"{location}: the text of '{document.doc_id}' is empty")
            if document.doc_id in documents:
                raise DataError(f"{location}: doc_id '{document.doc_id}' is repeated")
            documents[document.doc_id] = Document(
                document.doc_id, document.text.strip(), document.row
            )
    return list(documents.values())


def read_tables(folder: Path) -> Tables | None:
    """Read `tables.json` of a folder; None without one.

    Raises:
        DataError: it is damaged.
    """
    path = folder / TABLES
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Tables)
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"{path} is damaged: {error}; download the documents again") from error


def draw_rows(lengths: Sequence[int], rounds: int, seed: int) -> list[tuple[int, int]]:
    """Draw `rounds // sources` rows of each source's table, mixed: pairs of source and row.

    The draws are those of the paper's code: every table shuffled in turn, its head taken, and all
    heads shuffled together, by one generator.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    share = rounds // len(lengths)
    pool: list[tuple[int, int]] = []
    for source, length in enumerate(lengths):
        order = rng.permutation(length)
        pool += [(source, int(row)) for row in order[:share]]
    return [pool[index] for index in rng.permutation(len(pool))]


def draw_trajectory(
    documents: Sequence[Sequence[Document]],
    rounds: int,
    seed: int,
) -> list[tuple[int, Document]]:
    """Draw `rounds // sources` documents of each source, mixed, with the index of their source."""
    drawn = draw_rows([len(of_source) for of_source in documents], rounds, seed)
    return [(source, documents[source][row]) for source, row in drawn]


class Trajectories(Dataset):
    """The rounds of some trajectories, one user each; every sample hides the user's preference.

    Args:
        env: the environment, which names its preference file: summ, email, plume_summ, plume_email.
        data: a folder, or None for the example data.
        word_request: words a document as a request.
        rounds: rounds of a trajectory; 0 for `share` documents of each source.
        seeds: the seed of each trajectory.
        by_rule: word the preferences by their rules instead of their own words.
        preferences: a preference file, instead of the folder's or the bundled one.
        share: documents of each source in the paper; 0 for PRELUDE's 200 rounds, or the whole
            example data.
        benchmark: the benchmark's name, for readers.

    Attributes:
        disliked: words that break every rule of every source, for plans; empty without rules.

    Raises:
        DataError, UsageError: files or numbers that cannot work.
    """

    separation, split = "user", "all"
    identified = True

    def __init__(
        self,
        env: str,
        data: Path | None,
        word_request: Callable[[str], str],
        *,
        rounds: int,
        seeds: Sequence[int],
        by_rule: bool,
        preferences: str,
        share: int = 0,
        benchmark: str = "PRELUDE",
    ) -> None:
        root = EXAMPLE_DATA if data is None else data
        path = locate_preferences(root, env, preferences)
        stored = read_preferences(path, env)
        rules = read_rules(stored, path) if by_rule else {}
        self.liked = {
            source.name: _word_liked(source, rules.get(source.name)) for source in stored.sources
        }
        if by_rule:
            all_rules = [rule for source_rules in rules.values() for rule in source_rules]
            self.edited_words = make_disliked(all_rules)

        files = {source.name: root / f"{source.name}.jsonl" for source in stored.sources}
        documents = {source: read_documents(file) for source, file in files.items()}
        requested = rounds or share * len(files) or PAPER_ROUNDS
        if not rounds and not share and data is None:
            requested = len(files) * min(map(len, documents.values()))
        tables = read_tables(root)
        lengths = {source: len(of_source) for source, of_source in documents.items()}
        if tables is not None:
            _check_drawn(tables, root, requested, seeds)
            lengths = tables.rows
        self.rounds = _compute_share(requested, lengths, files) * len(files)
        self.sample = data is None
        # Trajectories are drawn by position, so that the order of the documents counts.
        # The seeds 0, 1, ... are named by their number, as they always were.
        is_counted = list(seeds) == list(range(len(seeds)))
        drawn = [len(seeds) if is_counted else list(seeds), *([tables.rows] if tables else [])]
        self.hash = digest([stored, documents, self.rounds, *drawn])
        if tables is None and data is not None:
            self.departures = ("documents not drawn from the paper's whole tables",)
        self.source = f"example data, not {benchmark}'s documents" if data is None else str(data)
        if self.rounds != requested:
            self.warnings = (
                f"{requested} rounds do not divide by {len(files)} sources: "
                f"a trajectory has {self.rounds}",
            )

        sources = list(files)
        self._samples: list[Sample] = []
        for seed in seeds:
            if tables is None:
                trajectory = draw_trajectory(list(documents.values()), self.rounds, seed)
            else:
                trajectory = _find_drawn(documents, tables, files, self.rounds, seed)
            for number, (source, document) in enumerate(trajectory):
                request = word_request(document.text)
                sample = self._make_sample(seed, number, sources[source], document, request)
                self._samples.append(sample)

    def _make_sample(
        self,
        seed: int,
        number: int,
        source: str,
        document: Document,
        request: str,
    ) -> Sample:
        # The id is hashed, because the name of the source would give its preference away.
        return Sample(
            id=f"{seed}-{digest([source, document.doc_id])[:12]}",
            user_id=f"trajectory-{seed}",
            input=request,
            stimulus=document.text,
            hidden={
                "preference": self.liked[source],
                "source": source,
                "doc_id": document.doc_id,
                "t": str(number),
                "rounds": str(self.rounds),
                "liked": SEPARATOR.join(self.liked.values()),
            },
        )

    def index(self) -> Sequence[tuple[str, str]]:
        return [(sample.id, sample.user_id) for sample in self._samples]

    def load(self, position: int) -> Sample:
        return self._samples[position]

    def population(self) -> Iterator[User]:
        """No users: those of this task have no history that peers could be compared by."""
        return iter(())


def _word_liked(source: Source, rules: Sequence[Rule] | None) -> str:
    """Word a source's preference: by its rules if given, else in its own words."""
    if rules:
        return word_preference(rules)
    return " ".join(source.preference.split()) or "; ".join(source.rules)


def _check_drawn(tables: Tables, folder: Path, rounds: int, seeds: Sequence[int]) -> None:
    """Check that a folder holds the rows of some trajectories.

    Raises:
        UsageError: it does not.
    """
    missing = sorted(set(seeds) - set(tables.seeds))
    if rounds <= tables.rounds and not missing:
        return
    held = f"{folder} holds the documents of {tables.rounds} rounds and the seeds "
    held += ", ".join(map(str, tables.seeds))
    wanted = f"{rounds} rounds" if rounds > tables.rounds else f"seed {missing[0]}"
    raise UsageError(f"{held}, but not those of {wanted}; choose among these, or download again")


def _find_drawn(
    documents: Mapping[str, Sequence[Document]],
    tables: Tables,
    files: Mapping[str, Path],
    rounds: int,
    seed: int,
) -> list[tuple[int, Document]]:
    """The documents that a seed draws from whole tables.

    Raises:
        DataError: one of them is missing.
    """
    by_row = {
        source: {document.row: document for document in of_source}
        for source, of_source in documents.items()
    }
    sources = list(documents)
    lengths = [tables.rows[source] for source in sources]
    trajectory = []
    for index, row in draw_rows(lengths, rounds, seed):
        source = sources[index]
        if row not in by_row[source]:
            raise DataError(
                f"{files[source]}: row {row}, which seed {seed} draws, is missing; "
                "download the documents again"
            )
        trajectory.append((index, by_row[source][row]))
    return trajectory


def _compute_share(
    rounds: int,
    lengths: Mapping[str, int],
    files: Mapping[str, Path],
) -> int:
    """Number of rounds with documents of each source.

    Raises:
        UsageError: fewer rounds than sources.
        DataError: a source has too few documents.
    """
    share = rounds // len(files)
    if not share:
        raise UsageError(f"task.rounds={rounds}: at least one of each of the {len(files)} sources")

    shortest = min(files, key=lambda source: lengths.get(source, 0))
    available = lengths.get(shortest, 0)
    if available < share:
        raise DataError(
            f"{files[shortest]} has {available} documents; {rounds} rounds take {share} of each "
            f"of {len(files)} sources. Add some or set task.rounds={available * len(files)}"
        )
    return share
