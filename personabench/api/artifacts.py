"""Artifacts of training: folders with a card that lists their inputs.

An artifact is written to a temporary folder and renamed when it is whole, so that no half of one is
ever used.  Its card names the base model, the files with their hashes and the ids of everything
that training saw; the embargo compares these ids with a sample before the artifact answers for it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from personabench.errors import DataError, UsageError
from personabench.hashing import digest
from personabench.models.backends.adapters import ADAPTER, SERVED, STEERING, VECTOR, adapter_folder
from personabench.types import Sample

CARD = "card.json"
SEEN = "records.json"
_TEMPORARY = ".tmp"
_PLAIN = re.compile(r"[\w+-][\w.+-]{0,79}", re.ASCII)

Kind = Literal["lora", "steering_vector", "json", "none"]
"""What an artifact is: a backend serves the first two, the method itself reads "json"."""

__all__ = [
    "ADAPTER",
    "SERVED",
    "STEERING",
    "VECTOR",
    "Artifact",
    "ArtifactStore",
    "Artifacts",
    "Card",
    "Kind",
    "Seen",
    "check_embargo",
    "hash_files",
    "read_artifact",
]


class Seen(msgspec.Struct, frozen=True, omit_defaults=True):
    """The ids of everything that training saw.

    Attributes:
        users: the users whose records or samples it saw.
        records: ids of their records; a corpus has them as "user/record".
        samples: ids of the samples whose references it saw.
    """

    users: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """The identity of an artifact, and its inputs.

    Attributes:
        kind: "lora", "steering_vector", "json", or "none" if there was too little to train on.
        method, fingerprint: the method, and the hash of everything but the records.
        owner: the user whose history it was trained on; empty for a corpus.
        base: name and hash of the base model; empty for kind "json", which is trained without one.
        parent: the name of the artifact of the stage before; empty without one.
        files: SHA-256 of each file by its path in the folder.
        seen: SHA-256 of the ids of records and samples; records: their number.
        counts: events of training, such as records that were left out.
        parameters: trained numbers; steps: updates of them.
        seconds: wall time; peak_memory: bytes, of the process or the accelerator.
    """

    kind: Kind
    method: str
    fingerprint: str
    owner: str
    base: Mapping[str, str]
    seed: int
    parent: str = ""
    files: Mapping[str, str] = {}
    seen: str = ""
    records: int = 0
    counts: Mapping[str, int] = {}
    parameters: int = 0
    steps: int = 0
    seconds: float = 0.0
    device: str = ""
    peak_memory: int = 0


class Artifact(msgspec.Struct, frozen=True):
    """A finished artifact on disk."""

    folder: Path
    card: Card
    seen: Seen

    @property
    def name(self) -> str:
        """A name by content, in which neither place nor time enter."""
        content = digest([self.card.files, self.card.parent])
        return f"{self.card.method}-{content[:16]}"

    @property
    def adapter(self) -> Path:
        """The folder of the adapter that answers."""
        return adapter_folder(self.folder)

    @property
    def size(self) -> int:
        """Bytes of the trained adapter, or of the method's own files."""
        adapter = self.folder / ADAPTER
        folder = adapter if adapter.is_dir() else self.folder
        return sum((folder / name).stat().st_size for name in hash_files(folder))


def read_artifact(folder: Path) -> Artifact | None:
    """Read an artifact; None if the folder has none.

    Raises:
        DataError: it is damaged.
    """
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        card = msgspec.json.decode(path.read_bytes(), type=Card)
        seen = msgspec.json.decode((folder / SEEN).read_bytes(), type=Seen)
        files = hash_files(folder)
    except (OSError, msgspec.MsgspecError) as error:
        raise _damaged(folder, str(error)) from error

    if files != card.files:
        changed = sorted(dict(files.items() ^ card.files.items()))
        raise _damaged(folder, f"{changed[0]} is not the file that training wrote")
    if digest(seen) != card.seen:
        raise _damaged(folder, f"{SEEN} does not fit {CARD}")
    return Artifact(folder, card, seen)


def _damaged(folder: Path, fault: str) -> DataError:
    return DataError(
        f"the artifact {folder} is damaged ({fault}); delete this folder and train again"
    )


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of an artifact but its card, by their paths."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (CARD, SEEN):
            name = path.relative_to(folder).as_posix()
            hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashes


class ArtifactStore:
    """The artifacts of one method under one fingerprint.

    Args:
        root: `artifacts/<task>/<method>/<fingerprint>`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, owner: str, key: str) -> Path:
        """The folder of an artifact; the owner "" is the corpus."""
        if not owner:
            return self.root / "base" / key
        name = owner
        if not _PLAIN.fullmatch(owner):
            # Two ids must not meet in one name.
            readable = re.sub(r"[^\w+-]+", "_", owner, flags=re.ASCII)[:60]
            name = f"{readable}.{digest(owner)[:12]}"
        return self.root / "users" / name / key

    def read(self, owner: str, key: str) -> Artifact | None:
        """A finished artifact; None if it was not trained.

        Raises:
            DataError: it is damaged.
        """
        return read_artifact(self.path(owner, key))

    @contextmanager
    def writing(self, owner: str, key: str) -> Iterator[Path]:
        """Provide a folder to write to, which becomes the artifact if the block does not raise."""
        target = self.path(owner, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = target.parent / f".{secrets.token_hex(8)}{_TEMPORARY}"
        folder.mkdir()
        try:
            yield folder
            folder.rename(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def clear_unfinished(self) -> None:
        """Delete what interrupted trainings left; only for the process that holds the lock."""
        for folder in list(self.root.rglob(f".*{_TEMPORARY}")):
            shutil.rmtree(folder, ignore_errors=True)


class Artifacts:
    """The artifacts of a run as its method finds them, under the embargo.

    Args:
        store: holds them.
        base_key: the key of the corpus's artifact; None if the method trains on no corpus.
        locate: the owner and the key of the artifact for a sample; None for one without history.
        command: trains the missing ones.
    """

    def __init__(
        self,
        store: ArtifactStore,
        base_key: Callable[[], str | None],
        locate: Callable[[Sample], tuple[str, str] | None],
        command: str,
    ) -> None:
        self._store = store
        self._base_key = base_key
        self._locate = locate
        self._command = command
        self._read: dict[tuple[str, str], Artifact] = {}

    def base(self, sample: Sample) -> Artifact | None:
        """The artifact of the population stage; None if the method trains on no corpus.

        Raises:
            UsageError: it is missing, or it saw the sample or its user.
        """
        key = self._base_key()
        if key is None:
            return None
        artifact = self._find("", key)
        check_embargo(artifact, sample)
        return artifact

    def user(self, sample: Sample) -> Artifact | None:
        """The artifact of the user whose history the sample shows; None without history.

        Raises:
            UsageError: it is missing, or it saw a record that the sample does not show.
        """
        located = self._locate(sample)
        if located is None:
            return None
        artifact = self._find(*located)
        check_embargo(artifact, sample)
        return artifact

    def _find(self, owner: str, key: str) -> Artifact:
        if (owner, key) not in self._read:
            artifact = self._store.read(owner, key)
            if artifact is None:
                subject = f"of user {owner}" if owner else "of the population stage"
                raise UsageError(
                    f"the artifact {subject} is missing in {self._store.root}; "
                    f"train it with: {self._command}"
                )
            self._read[owner, key] = artifact
        return self._read[owner, key]


def check_embargo(artifact: Artifact, sample: Sample) -> None:
    """Check that training saw nothing that is hidden from a sample.

    Raises:
        UsageError: it did; the message has both ids.
    """
    card, seen = artifact.card, artifact.seen
    if sample.id in seen.samples:
        raise _refusal(artifact, sample, f"sample {sample.id} with its reference")
    if not card.owner:
        if sample.user_id in seen.users:
            raise _refusal(artifact, sample, f"user {sample.user_id}")
        return

    owner = sample.history_owner or sample.user_id
    if card.owner != owner:
        raise _refusal(artifact, sample, f"user {card.owner}, while the sample shows {owner}")
    hidden = hidden_records(seen.records, sample)
    if hidden:
        raise _refusal(artifact, sample, f"record {hidden[0]}, which the sample does not show")


def hidden_records(record_ids: Sequence[str], sample: Sample) -> list[str]:
    """Those of the record ids that are not visible to a sample."""
    visible = {record.id for record in sample.history}
    return [record_id for record_id in record_ids if record_id not in visible]


def _refusal(artifact: Artifact, sample: Sample, what: str) -> UsageError:
    return UsageError(
        f"sample {sample.id} of user {sample.user_id}: the artifact {artifact.folder} was trained "
        f"on {what}; train one under the same --history and data as the run"
    )
