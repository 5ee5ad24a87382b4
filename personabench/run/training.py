"""Training before a run: who is trained on what, and the artifacts that a run finds.

An artifact of a user is trained on the records that all samples of the user show, under the history
control of the run, so that it serves every one of them.  The records are part of its key: a control
that shows other records, such as `size=5`, has artifacts of its own, and the owner of a shuffled
history is trained on the part of it that is shown.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec
from filelock import FileLock, Timeout

from personabench.api.artifacts import (
    CARD,
    SEEN,
    Artifact,
    Artifacts,
    ArtifactStore,
    Card,
    check_embargo,
    hash_files,
    read_artifact,
)
from personabench.api.dataset import Dataset, rank_in_time
from personabench.api.task import Task
from personabench.api.training import Corpus, TrainContext, Trained, TrainedMethod
from personabench.api.users import open_split
from personabench.errors import UsageError
from personabench.hashing import digest
from personabench.models.backends.model_identity import base_identity
from personabench.results.files import replace_text
from personabench.results.spec import RunSpec
from personabench.types import Record, Sample, User

FOLDER = "artifacts"
_KEY = 16


class Trainee(NamedTuple):
    """A user to train on.

    Attributes:
        owner: whose records they are; key: of the artifact.
        history: the records that all samples show; like: a question that words the examples.
    """

    owner: str
    key: str
    history: tuple[Record, ...]
    like: Sample


class Report(NamedTuple):
    """An artifact after the command, and whether an earlier command trained it."""

    artifact: Artifact
    reused: bool


@dataclass
class Training:
    """The training that a run of a method on a task builds on.

    Attributes:
        data: the folder or file of the task's data; None for its example data.
        results: the folder that holds all artifacts.
    """

    task: Task
    dataset: Dataset
    method: TrainedMethod
    spec: RunSpec
    data: Path | None
    results: Path

    @property
    def base(self) -> Mapping[str, str]:
        """Name and hash of the base model; empty for a method that is trained without one."""
        return base_identity(self.spec.model) if self.method.needs_base() else {}

    @cached_property
    def fingerprint(self) -> str:
        """The hash of everything that determines artifacts beside the records."""
        spec, method = self.spec, self.method
        params = {
            name: setting
            for name, setting in spec.params.items()
            if name not in method.inference_params
        }
        return digest(
            {
                "task": [spec.task, spec.task_version, spec.task_hash, spec.task_params],
                "wording": [self.task.wording, spec.prompts or None],
                "method": [spec.method, spec.method_hash, method.version, params],
                "base": self.base,
                "seed": spec.seed,
            }
        )

    @cached_property
    def store(self) -> ArtifactStore:
        """The artifacts under this fingerprint."""
        parts = FOLDER, self.spec.task, self.spec.method, self.fingerprint[:_KEY]
        return ArtifactStore(self.results.joinpath(*parts))

    @property
    def artifacts(self) -> Artifacts:
        """The artifacts as a run finds them."""
        return Artifacts(self.store, lambda: self.base_key, self._locate, self.command)

    @property
    def command(self) -> str:
        """The command that trains the adapters of the run."""
        history = "" if self.spec.history == "own" else f" --history {self.spec.history}"
        model = f" --model {self.base['name']}" if self.base else ""
        # The default of training, as of every model but the packaged one.
        wording = "" if self.task.wording == "full" else f" --wording {self.task.wording}"
        return (
            f"personabench train {self.spec.method} --task {self.spec.task}{model}{history}"
            f"{wording}, with the --data, --set, --seed and --results of the run"
        )

    @cached_property
    def corpus(self) -> Dataset | None:
        """The split of the population stage; None if the method has none.

        Raises:
            UsageError, DataError: the data has no such split.
        """
        split = self.method.corpus_split
        if not split:
            return None
        if split == self.dataset.split:
            raise UsageError(
                f"method {self.method.name}: the corpus is the tested split '{split}'; name "
                "another split"
            )
        try:
            return open_split(self.task, split, self.data)
        except UsageError as error:
            raise UsageError(
                f"the population stage of {self.method.name} trains on the split '{split}': "
                f"{error}; or leave this stage out with --set population=false"
            ) from error

    @cached_property
    def base_key(self) -> str | None:
        """The key of the population stage's artifact; None without such a stage."""
        return None if self.corpus is None else self.corpus.hash[:_KEY]

    @cached_property
    def _positions(self) -> dict[str, list[int]]:
        positions: dict[str, list[int]] = {}
        for position, (_, user) in enumerate(self.dataset.index()):
            positions.setdefault(user, []).append(position)
        return positions

    def trainees(self, positions: Sequence[int]) -> Iterator[Trainee]:
        """The users whose artifacts these samples need, one after the other."""
        if not self.method.needs_user():
            return
        index = self.dataset.index()
        pairs: set[tuple[str, str]] = set()
        for user in dict.fromkeys(index[position][1] for position in positions):
            trainee = self._trainee(user)
            if trainee is not None and (trainee.owner, trainee.key) not in pairs:
                pairs.add((trainee.owner, trainee.key))
                yield trainee

    def _locate(self, sample: Sample) -> tuple[str, str] | None:
        trainee = self._trainee(sample.user_id) if sample.history else None
        return (trainee.owner, trainee.key) if trainee else None

    @cached_property
    def _trainee(self) -> Callable[[str], Trainee | None]:
        # A user's samples come one after another.
        return lru_cache(maxsize=64)(self._find_trainee)

    def _find_trainee(self, user: str) -> Trainee | None:
        samples = [self.dataset.load(position) for position in self._positions[user]]
        samples.sort(key=rank_in_time)
        shown = [{record.id for record in sample.history} for sample in samples]
        common = set.intersection(*shown)
        history = tuple(record for record in samples[0].history if record.id in common)
        if not history:
            return None

        owner = samples[0].history_owner or user
        like = self._like(owner, samples[0])
        parent = self.base_key or ""
        key = digest([parent, owner, history, like])[:_KEY]
        return Trainee(owner, key, history, like)

    def _like(self, owner: str, sample: Sample) -> Sample:
        """The first question of a history's owner, without all that training must not see."""
        if owner != sample.user_id and owner in self._positions:
            samples = [self.dataset.load(position) for position in self._positions[owner]]
            sample = min(samples, key=rank_in_time)
        return msgspec.structs.replace(
            sample.view(), history=(), dialogue=(), user_id=owner, history_owner=None
        )

    def require(self, positions: Sequence[int]) -> None:
        """Check that everything is trained that these samples need.

        Raises:
            UsageError: something is missing; the message has the command.
        """
        if not positions:
            return
        missing = []
        if self.base_key is not None and not self.is_trained("", self.base_key):
            missing.append("the population stage")
        missing += [
            f"user {trainee.owner}"
            for trainee in self.trainees(positions)
            if not self.is_trained(trainee.owner, trainee.key)
        ]
        if missing:
            rest = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise UsageError(
                f"method {self.method.name} on {self.task.name} is not trained for "
                f"{', '.join(missing[:3])}{rest}; train with: {self.command}"
            )

    def describe(self, positions: Sequence[int]) -> dict[str, float]:
        """Figures of the artifacts that these samples use; see `summarize`; empty without any."""
        keys = [("", self.base_key)] if self.base_key else []
        keys += [(trainee.owner, trainee.key) for trainee in self.trainees(positions)]
        stored = [self.store.read(owner, key) for owner, key in keys]
        artifacts = [artifact for artifact in stored if artifact is not None]
        return summarize(artifacts) if artifacts else {}

    def is_trained(self, owner: str, key: str) -> bool:
        """Whether an artifact is finished."""
        return (self.store.path(owner, key) / CARD).is_file()


def summarize(artifacts: Sequence[Artifact]) -> dict[str, float]:
    """Figures of artifacts: users, those without an adapter, and the cost of an adapter.

    Seconds, bytes and records are means over the users with an adapter, `seconds_p95` the 95th
    percentile; `parameters` is the largest number of an adapter, and `corpus_samples` the number of
    samples of the population stage.
    """
    users = [artifact for artifact in artifacts if artifact.card.owner]
    corpora = [artifact for artifact in artifacts if not artifact.card.owner]
    adapters = [artifact for artifact in users if artifact.card.kind != "none"]
    seconds = sorted(artifact.card.seconds for artifact in adapters)
    last = max(0, -(-95 * len(seconds) // 100) - 1)
    count = max(1, len(adapters))
    return {
        "users": len(users),
        "without_adapter": len(users) - len(adapters),
        "seconds_mean": round(sum(seconds) / count, 2),
        "seconds_p95": round(seconds[last], 2) if seconds else 0.0,
        "parameters": max((artifact.card.parameters for artifact in adapters), default=0),
        "bytes": round(sum(artifact.size for artifact in adapters) / count),
        "records": round(sum(artifact.card.records for artifact in adapters) / count, 1),
        "corpus_samples": sum(len(artifact.seen.samples) for artifact in corpora),
        "corpus_users": sum(len(artifact.seen.users) for artifact in corpora),
    }


class Trainings:
    """Executes a training: finished users are kept, and an interrupt loses one user at most.

    Args:
        training: the method, its data and its base.
        base: the folder or hub name of the base model, empty for a method without one; device:
            "cpu" or "cuda".
        notify: called with every artifact, trained or reused.
    """

    def __init__(
        self,
        training: Training,
        base: str,
        device: str,
        notify: Callable[[Report], None] = lambda report: None,
    ) -> None:
        self.training = training
        self.base = base
        self.device = device
        self._notify = notify

    async def execute(self, positions: Sequence[int]) -> list[Report]:
        """Train everything that these samples need and that is not trained.

        Raises:
            UsageError: the data cannot be trained on, or another process is training.
        """
        with self._locked():
            reports = []
            parent = None
            if self.training.base_key is not None:
                reports.append(await self._train_base(self.training.base_key))
                parent = reports[0].artifact
            for trainee in self.training.trainees(positions):
                reports.append(await self._train_user(trainee, parent))
            return reports

    @contextmanager
    def _locked(self) -> Iterator[None]:
        store = self.training.store
        store.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(store.root / "lock", timeout=0)
        try:
            with lock:
                store.clear_unfinished()
                yield
        except Timeout as error:
            raise UsageError(
                f"another process is training in {store.root}; wait for it to end"
            ) from error

    async def _train_base(self, key: str) -> Report:
        corpus = self.training.corpus
        assert corpus is not None
        tested = {user for _, user in self.training.dataset.index()}
        shared = sorted(tested.intersection(user for _, user in corpus.index()))
        if shared:
            raise UsageError(
                f"the split '{corpus.split}' shares user {shared[0]} with the tested split "
                f"({len(shared)} in all): stage 1 must not see tested users; choose another split, "
                "or --set population=false"
            )

        async def train(ctx: TrainContext) -> Trained:
            return await self.training.method.train(Corpus(corpus.samples()), ctx)

        return await self._train("", key, train, None)

    async def _train_user(self, trainee: Trainee, parent: Artifact | None) -> Report:
        async def train(ctx: TrainContext) -> Trained:
            ctx.like = trainee.like
            ctx.visible = {record.id: record for record in trainee.history}
            return await self.training.method.train_user(User(trainee.owner, trainee.history), ctx)

        return await self._train(trainee.owner, trainee.key, train, parent)

    async def _train(
        self,
        owner: str,
        key: str,
        train: Callable[[TrainContext], object],
        parent: Artifact | None,
    ) -> Report:
        store = self.training.store
        finished = store.read(owner, key)
        if finished is not None:
            report = Report(finished, reused=True)
            self._notify(report)
            return report

        with store.writing(owner, key) as folder:
            ctx = TrainContext(
                task=self.training.task,
                base=self.base,
                device=self.device,
                seed=derive_seed(self.training.spec.seed, owner),
                folder=folder,
                parent=parent,
            )
            started = time.perf_counter()
            random.seed(ctx.seed)
            trained = await train(ctx)  # type: ignore[misc]
            self._write_card(owner, ctx, trained, time.perf_counter() - started)
        artifact = store.read(owner, key)
        assert artifact is not None
        report = Report(artifact, reused=False)
        self._notify(report)
        return report

    def _write_card(self, owner: str, ctx: TrainContext, trained: Trained, seconds: float) -> None:
        seen = ctx.seen
        training = self.training
        card = Card(
            kind=trained.kind,
            method=training.spec.method,
            fingerprint=training.fingerprint,
            owner=owner,
            base=training.base,
            seed=ctx.seed,
            parent=ctx.parent.name if ctx.parent else "",
            files=hash_files(ctx.folder),
            seen=digest(seen),
            records=len(seen.records),
            counts=ctx.counts,
            parameters=trained.parameters,
            steps=trained.steps,
            seconds=round(seconds, 3),
            device=self.device,
            peak_memory=measure_memory(self.device),
        )
        # The card is last: a folder with one is whole.
        replace_text(ctx.folder / SEEN, encode(seen))
        replace_text(ctx.folder / CARD, encode(card))


def encode(struct: msgspec.Struct) -> str:
    """Indented JSON of a file that people read."""
    return msgspec.json.format(msgspec.json.encode(struct), indent=1).decode() + "\n"


def derive_seed(seed: int, owner: str) -> int:
    """The seed of a user's training, which depends on no other user; 31 bits."""
    return int(digest([seed, "train", owner])[:8], 16) >> 1


def measure_memory(device: str) -> int:
    """The peak memory so far in bytes: of the accelerator, or else of the process."""
    torch = sys.modules.get("torch")
    if device == "cuda" and torch is not None:
        peak: int = torch.cuda.max_memory_allocated()
        return peak
    try:
        import resource
    except ImportError:
        # Windows has no such count.
        return 0
    # Linux counts kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class MappedAdapters:
    """The embargo on adapters that a map names: those whose folder has a card are checked."""

    def __init__(self, adapters: Mapping[str, str]) -> None:
        self._artifacts: dict[str, Artifact | None] = {}
        for text in {*adapters.values()}:
            if text and Path(text).is_dir():
                self._artifacts[text] = read_artifact(Path(text))
        self._adapters = adapters

    def check(self, sample: Sample) -> None:
        """Check the adapter that answers for a sample.

        Raises:
            UsageError: its training saw something that is hidden from the sample.
        """
        text = self._adapters.get(sample.user_id, self._adapters.get("*", ""))
        artifact = self._artifacts.get(text)
        if artifact is not None:
            check_embargo(artifact, sample)
