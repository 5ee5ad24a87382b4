"""Documents and preferences on disk, and the trajectories drawn from them.

A folder holds `<source>.jsonl` for each source and, beside them, a preference file `<env>.yaml` or `<env>.json`; where
that is missing the bundled one is used.  A trajectory is a seeded order of documents in which the sources come mixed,
and that every method gets alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from personabench.api.dataset import Dataset
from personabench.errors import DataError, UsageError
from personabench.hashing import digest, digest_files
from personabench.tasks.prelude.rules import Rule, disliked, rules_of, worded
from personabench.types import Sample, User

SAMPLE = Path(__file__).parent / "sample"
PAPER_ROUNDS = 200
SEPARATOR = "\x1f"


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of document and what its user likes: in words, and by rule where there is a rule."""

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


def preference_file(data: Path, env: str, named: str) -> Path:
    """The preference file: the one named, the folder's, or the bundled one.

    Raises:
        UsageError: the named file is not there.
    """
    if named:
        if not Path(named).is_file():
            raise UsageError(f"task.preferences={named}: no such file")
        return Path(named)
    places = [data / f"{env}.{ending}" for ending in ("yaml", "yml", "json")]
    return next((place for place in places if place.is_file()), SAMPLE / f"{env}.json")


def read_preferences(path: Path, env: str) -> Preferences:
    """A preference file.

    Raises:
        DataError: it is damaged, of another environment, names a source twice, or leaves one without preference.
    """
    try:
        decode: Any = msgspec.json.decode if path.suffix == ".json" else msgspec.yaml.decode
        found: Preferences = decode(path.read_bytes(), type=Preferences)
    except ImportError as error:
        raise DataError(
            f"{path}: reading YAML needs PyYAML (pip install pyyaml); JSON needs nothing"
        ) from error
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise DataError(f"{path} is no preference file: {error}") from error
    if found.env != env:
        raise DataError(f"{path}: env is '{found.env}', and this task is '{env}'")
    names = [source.name for source in found.sources]
    if not names or len(set(names)) < len(names):
        raise DataError(f"{path}: sources must be named once each, not {names}")
    for source in found.sources:
        if not source.preference.strip() and not source.rules:
            raise DataError(f"{path}: source '{source.name}' has no preference")
    return found


def ruled(preferences: Preferences, path: Path) -> dict[str, tuple[Rule, ...]]:
    """The rules of each source.

    Raises:
        DataError: a source has none, or some that cannot be kept.
    """
    found = {}
    for source in preferences.sources:
        if not source.rules:
            raise DataError(
                f"{path}: source '{source.name}' has no rules, which task.user=rule needs"
            )
        try:
            found[source.name] = rules_of(source.rules)
        except ValueError as error:
            raise DataError(f"{path}: source '{source.name}': {error}") from error
    return found


def read_documents(path: Path) -> list[Document]:
    """The documents of a source, stripped.

    Raises:
        DataError: the file is missing or damaged, a text is empty, an id comes twice.
    """
    if not path.is_file():
        raise DataError(
            f"{path} does not exist; a source of PRELUDE is a file of JSON lines with doc_id and text"
        )
    decoder = msgspec.json.Decoder(Document)
    documents: dict[str, Document] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                document = decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise DataError(f"{path}, line {number}: {error}") from error
            if not document.text.strip():
                raise DataError(f"{path}, line {number}: the text of '{document.doc_id}' is empty")
            if document.doc_id in documents:
                raise DataError(
                    f"{path}, line {number}: doc_id '{document.doc_id}' was there before"
                )
            documents[document.doc_id] = Document(document.doc_id, document.text.strip())
    return list(documents.values())


def drawn(
    documents: Sequence[Sequence[Document]], rounds: int, seed: int
) -> list[tuple[int, Document]]:
    """A trajectory: of each source a seeded `rounds // sources` documents, mixed; (number of the source, document)."""
    import numpy as np

    rng = np.random.default_rng(seed)
    share = rounds // len(documents)
    taken = [
        (number, each[place])
        for number, each in enumerate(documents)
        for place in rng.permutation(len(each))[:share]
    ]
    return [taken[place] for place in rng.permutation(len(taken))]


class Trajectories(Dataset):
    """The rounds of some trajectories, one user each; what the user likes is hidden in every sample.

    Args:
        env: summ or email.
        data: a folder, or None for the bundled sample.
        ask: how a document is worded as a request.
        rounds: rounds of a trajectory; 0 for the paper's 200, or all that the bundled sample has.
        count: trajectories, of the seeds 0, 1, ...
        by_rule: what the user likes is told by the rules, not in the preference's own words.

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
        ask: Any,
        *,
        rounds: int,
        count: int,
        by_rule: bool,
        preferences: str,
    ) -> None:
        root = SAMPLE if data is None else data
        path = preference_file(root, env, preferences)
        found = read_preferences(path, env)
        rules = ruled(found, path) if by_rule else {}
        self.disliked = (
            disliked([rule for each in rules.values() for rule in each]) if by_rule else ""
        )
        self.liked = {
            source.name: worded(rules[source.name])
            if by_rule
            else " ".join(source.preference.split()) or "; ".join(source.rules)
            for source in found.sources
        }
        files = [root / f"{source.name}.jsonl" for source in found.sources]
        documents = [read_documents(file) for file in files]
        fewest = min(map(len, documents))
        wanted = rounds or (fewest * len(files) if data is None else PAPER_ROUNDS)
        share = wanted // len(files)
        if not share:
            raise UsageError(
                f"task.rounds={wanted}: at least one of each of the {len(files)} sources"
            )
        if fewest < share:
            short = files[[len(each) for each in documents].index(fewest)]
            raise DataError(
                f"{short} has {fewest} documents; {wanted} rounds take {share} of each of {len(files)} sources. "
                f"Add some or set task.rounds={fewest * len(files)}"
            )
        self.rounds = share * len(files)
        self.sample = data is None
        self.hash = digest([digest_files([path, *files]), self.rounds, count])
        self.source = "bundled sample, not PRELUDE's documents" if data is None else str(data)
        if self.rounds != wanted:
            self.warnings = (
                f"{wanted} rounds do not divide by {len(files)} sources: a trajectory has {self.rounds}",
            )
        names = [source.name for source in found.sources]
        self._samples = [
            self._sample(seed, number, names[source], document, ask)
            for seed in range(count)
            for number, (source, document) in enumerate(drawn(documents, self.rounds, seed))
        ]

    def _sample(self, seed: int, number: int, source: str, document: Document, ask: Any) -> Sample:
        return Sample(
            id=f"{seed}-{digest([source, document.doc_id])[:12]}",
            user_id=f"trajectory-{seed}",
            input=ask(document.text),
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
        """Nobody: users of this task have no history that others could learn from."""
        return iter(())
