"""Documents and preferences on disk, and the trajectories drawn from them.

A folder holds `<source>.jsonl` for each source and, beside them, a preference file `<env>.yaml` or
`<env>.json`; if that is missing, the bundled one is used.  A trajectory is a seeded order of
documents with mixed sources, the same for every method.
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


class Document(msgspec.Struct, frozen=True):
    """A line of `<source>.jsonl`; further fields are ignored."""

    doc_id: str
    text: str


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
            documents[document.doc_id] = Document(document.doc_id, document.text.strip())
    return list(documents.values())


def draw_trajectory(
    documents: Sequence[Sequence[Document]],
    rounds: int,
    seed: int,
) -> list[tuple[int, Document]]:
    """Draw `rounds // sources` documents of each source, mixed, with the index of their source."""
    import numpy as np

    rng = np.random.default_rng(seed)
    share = rounds // len(documents)
    pool: list[tuple[int, Document]] = []
    for source, source_documents in enumerate(documents):
        order = rng.permutation(len(source_documents))
        pool += [(source, source_documents[index]) for index in order[:share]]
    return [pool[index] for index in rng.permutation(len(pool))]


class Trajectories(Dataset):
    """The rounds of some trajectories, one user each; every sample hides the user's preference.

    Args:
        env: summ or email.
        data: a folder, or None for the example data.
        word_request: words a document as a request.
        rounds: rounds of a trajectory; 0 for the paper's 200, or the whole example data.
        count: trajectories, with the seeds 0, 1, ...
        by_rule: word the preferences by their rules instead of their own words.
        preferences: a preference file, instead of the folder's or the bundled one.

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
        count: int,
        by_rule: bool,
        preferences: str,
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
        requested = rounds or PAPER_ROUNDS
        if not rounds and data is None:
            requested = len(files) * min(map(len, documents.values()))
        share = _compute_share(requested, documents, files)

        self.rounds = share * len(files)
        self.sample = data is None
        # Trajectories are drawn by position, so that the order of the documents counts.
        self.hash = digest([stored, documents, self.rounds, count])
        self.source = "example data, not PRELUDE's documents" if data is None else str(data)
        if self.rounds != requested:
            self.warnings = (
                f"{requested} rounds do not divide by {len(files)} sources: "
                f"a trajectory has {self.rounds}",
            )

        sources = list(files)
        self._samples: list[Sample] = []
        for seed in range(count):
            trajectory = draw_trajectory(list(documents.values()), self.rounds, seed)
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


def _compute_share(
    rounds: int,
    documents: Mapping[str, Sequence[Document]],
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

    shortest = min(documents, key=lambda source: len(documents[source]))
    available = len(documents[shortest])
    if available < share:
        raise DataError(
            f"{files[shortest]} has {available} documents; {rounds} rounds take {share} of each "
            f"of {len(files)} sources. Add some or set task.rounds={available * len(files)}"
        )
    return share
