"""Try methods and tasks without a model: scripted answers on a task's example data.

from personabench.testing import trial
result = trial(MyMethod(), limit=4)
assert all(prediction.error is None for prediction in result.predictions)
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from personabench.api import registry
from personabench.api.compatibility import explain_misfit
from personabench.api.dataset import Dataset
from personabench.api.guard import create
from personabench.api.method import Method
from personabench.api.prompts import Prompts, Replacements
from personabench.api.task import Task
from personabench.api.training import TrainedMethod
from personabench.api.users import open_split
from personabench.api.wording import WordingName
from personabench.errors import UsageError
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted, echo
from personabench.models.cache import Cache
from personabench.models.client import Client
from personabench.models.roles import RoleName
from personabench.results.run_folder import Profile, RunFolder
from personabench.results.spec import RunSpec
from personabench.results.summary import RunFacts, Summary
from personabench.retrieval.embedders import Embedders
from personabench.run.controls import apply_control
from personabench.run.interrupts import run_command
from personabench.run.judging import judge, judge_key
from personabench.run.progress import Progress
from personabench.run.resolve import ResolvedRun, build_spec
from personabench.run.scoring import score_run
from personabench.run.selection import select
from personabench.run.session import create_engine
from personabench.run.training import Report, Training, Trainings
from personabench.types import Prediction, Request, Sampling

Answer = Callable[[Request], str]


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What a trained method trains with in trials.

    Attributes:
        results: the folder of artifacts, which trials share.
        corpus: the samples of the population stage, in place of a split of the task.
        base: the folder of the base model; empty for methods whose artifacts need none.
    """

    results: Path
    corpus: Dataset
    base: str = ""

    def at(self, results: Path) -> TrainingData:
        """The same with another folder of artifacts."""
        return dataclasses.replace(self, results=results)

    async def train(
        self,
        task: Task,
        dataset: Dataset,
        method: TrainedMethod,
        notify: Callable[[Report], None] = lambda report: None,
        spec: RunSpec | None = None,
        positions: Sequence[int] | None = None,
    ) -> Training:
        """Train a method for the users of a dataset, or of some of its samples.

        Raises:
            PersonabenchError: as in `personabench train`.
        """
        if spec is None:
            model = Scripted().identity
            spec = build_spec(
                task,
                dataset,
                method,
                model=model,
                sampling=Sampling(),
                seed=0,
                history="own",
                window=None,
                simulator=None,
            )
        training = Training(task, dataset, method, spec, None, self.results)
        if training.method.corpus_split:
            training.corpus = self.corpus
        if positions is None:
            positions = range(len(dataset.index()))
        await Trainings(training, self.base, "cpu", notify).execute(positions)
        return training


@dataclasses.dataclass(frozen=True)
class Trial:
    """The result of a trial.

    Attributes:
        predictions: in file order.
        requests: the requests to the model under test.
        profiles: the users' profiles.
        summary: the scores; None for an unscored trial.
        judge_failure: why the first unjudged answer could not be judged; empty without one.
    """

    predictions: Sequence[Prediction]
    requests: Sequence[Request]
    profiles: Sequence[Profile]
    summary: Summary | None
    judge_failure: str = ""


def trial(
    method: str | Method,
    task: str | Task | None = None,
    *,
    limit: int | None = None,
    answer: Answer = echo,
    concurrency: int = 4,
    seed: int = 0,
    history: str = "own",
    window: int | None = None,
    latency: float = 0.0,
    dataset: Dataset | None = None,
    scored: bool = True,
    roles: Mapping[RoleName, Answer] | None = None,
    wording: WordingName = "compact",
    replacements: Replacements | None = None,
    training: TrainingData | None = None,
) -> Trial:
    """Run a method with scripted answers, on a task's example data unless a dataset is given.

    Method and task are objects or names; without a task, an example task is used.  `roles` answers
    for the simulated user, the judge and the profiler; a role without an answer uses the model
    under test.
    `wording` and `replacements` choose the texts of the method's prompts, `wording` also those of
    the task's.  A trained method is trained first with `training`.

    Raises:
        PersonabenchError: as a real run would.
        KeyboardInterrupt: interrupted.
    """
    if not isinstance(method, Method):
        method = _create_method(method)
    if not isinstance(task, Task):
        task = _create_task(task)
    task.choose_wording(wording, replacements)
    opened = dataset or open_split(task, task.default_split, None)
    misfit = explain_misfit(method, task, opened)
    if misfit:
        raise UsageError(misfit)
    controlled_dataset = apply_control(opened, history, seed)

    backend = Scripted(answer=answer, latency=latency, window=window)
    role_backends = _create_role_backends(task, backend, roles or {})
    simulator = role_backends.get("simulator")
    prompts = Prompts(method.prompts, wording, replacements)
    spec = build_spec(
        task,
        controlled_dataset,
        method,
        model=backend.identity,
        sampling=Sampling(),
        seed=seed,
        history=history,
        window=window,
        simulator=simulator.identity if simulator else None,
        prompts=prompts,
    )
    setup = _Setup(
        method=method,
        task=task,
        dataset=controlled_dataset,
        spec=spec,
        backend=backend,
        role_backends=role_backends,
        concurrency=concurrency,
        scored=scored,
        prompts=prompts,
        training=training,
    )
    return run_command(_run(setup, limit), farewell="interrupted")


@dataclasses.dataclass(frozen=True)
class _Setup:
    """The parts of a trial."""

    method: Method
    task: Task
    dataset: Dataset
    spec: RunSpec
    backend: Scripted
    role_backends: Mapping[RoleName, Scripted]
    concurrency: int
    scored: bool
    prompts: Prompts
    training: TrainingData | None


def _create_method(name: str) -> Method:
    method: Method = create(registry.load_class("method", name))
    return method


def _create_task(name: str | None) -> Task:
    task: Task = create(registry.load_class("task", name or registry.example_task()))
    return task


def _create_role_backends(
    task: Task,
    backend: Scripted,
    answers: Mapping[RoleName, Answer],
) -> dict[RoleName, Scripted]:
    role_backends = dict[RoleName, Scripted](dict.fromkeys(task.roles, backend))
    for role, answer in answers.items():
        role_backends[role] = Scripted(BackendOptions(model=role), answer)
    return role_backends


async def _run(setup: _Setup, limit: int | None) -> Trial:
    # The files are closed before the folder is deleted: Windows keeps open files.
    with (
        tempfile.TemporaryDirectory() as temporary,
        closing(Cache(Path(temporary) / "cache.sqlite")) as cache,
        closing(RunFolder(Path(temporary) / "run")) as folder,
    ):
        folder.start(setup.spec)
        return await _run_in_folder(setup, limit, folder, cache)


async def _run_in_folder(
    setup: _Setup,
    limit: int | None,
    folder: RunFolder,
    cache: Cache,
) -> Trial:
    clients = {
        role: Client(backend, cache, concurrency=setup.concurrency)
        for role, backend in setup.role_backends.items()
    }
    positions = select(setup.dataset, limit, setup.spec.seed)
    training = None
    if isinstance(setup.method, TrainedMethod) and setup.training is not None:
        training = await setup.training.train(
            setup.task, setup.dataset, setup.method, spec=setup.spec, positions=positions
        )
    run = ResolvedRun(
        spec=setup.spec,
        task=setup.task,
        dataset=setup.dataset,
        method=setup.method,
        backend=setup.backend,
        positions=positions,
        folder=folder,
        prompts=setup.prompts,
        training=training,
    )
    engine = create_engine(
        run,
        Client(setup.backend, cache, concurrency=setup.concurrency),
        Embedders(),
        roles=clients,
        cache=cache,
        concurrency=setup.concurrency,
    )
    finished = await engine.run(engine.owed(positions))
    if not finished:
        raise KeyboardInterrupt

    positions = sorted(positions)
    summary: Summary | None = None
    judging = Progress()
    if setup.scored:
        summary = await _score(setup, folder, positions, clients, judging)

    index = setup.dataset.index()
    sample_ids = [index[position][0] for position in positions]
    predictions = folder.ordered_predictions(sample_ids)
    return Trial(
        predictions=[prediction for prediction in predictions if prediction is not None],
        requests=list(setup.backend.requests),
        profiles=list(folder.profiles().values()),
        summary=summary,
        judge_failure=judging.first_failure,
    )


async def _score(
    setup: _Setup,
    folder: RunFolder,
    positions: Sequence[int],
    clients: Mapping[RoleName, Client],
    judging: Progress,
) -> Summary:
    """Judge the answers if the task has a judge, and score them."""
    key = None
    if "judge" in setup.role_backends:
        key = judge_key(setup.task, setup.role_backends["judge"].identity)
        client = clients["judge"]
        await judge(folder, setup.task, setup.dataset, positions, key, client, judging)

    return score_run(
        folder,
        setup.task,
        setup.dataset,
        setup.spec,
        positions,
        seconds=0,
        facts=RunFacts(judge=key),
    )
