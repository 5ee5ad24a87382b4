"""The work of a command before it starts: its runs, their pending samples, expected calls.

Profiling belongs to no sample, so that samples alone say little about the time that is left. A dry
run of a few users, scaled to all of them, says how many calls to expect.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from personabench.api.guard import create
from personabench.api.memory import Memory
from personabench.errors import PersonabenchError
from personabench.models.cache import Policy
from personabench.results.run_folder import RunFolder
from personabench.retrieval.embedders import Embedders
from personabench.run.options import Options
from personabench.run.plan import DryRunner
from personabench.run.progress import CommandProgress, Expectation, RunProgress
from personabench.run.resolve import ResolvedRun
from personabench.run.session import Session
from personabench.types import Phase

if TYPE_CHECKING:
    from personabench.retrieval.embedder import Vectors

# Of a run with fewer pending samples the first ones say enough.
_FEWEST = 8
_SAMPLED_USERS = 3
_SAMPLED_SAMPLES = 12
# Methods that need all users index them, which would take long for the sake of an estimate.
_LARGEST_POPULATION = 2000
_DIMENSIONS = 8
# Seconds that all dry runs of a command may take.
_SECONDS = 8.0

# Phases whose calls are as many as the users or the samples; others are made once.
_PER_USER = ("profile",)
_PER_SAMPLE = ("predict", "update", "judge", "simulate")

Resolve = Callable[[Options], Sequence[ResolvedRun]]


class FillerEmbedders(Embedders):
    """Embedders whose vectors depend on the texts alone: no model is loaded, no server called."""

    def identity(self, name: str) -> str:
        """The name itself."""
        return name

    async def embed(self, texts: Sequence[str], name: str) -> Vectors:
        """Vectors of shape (n, 8)."""
        import numpy as np

        rows = [
            np.random.default_rng(list(text.encode()[:64]) or 0).normal(size=_DIMENSIONS)
            for text in texts
        ]
        return np.array(rows, dtype=np.float32).reshape(len(rows), _DIMENSIONS)


async def outline(
    command: CommandProgress,
    number: int,
    all_options: Sequence[Options],
    jobs: Sequence[ResolvedRun],
    session: Session,
    resolve: Resolve,
) -> None:
    """Note the runs of one of the command's options; at the first, those of the others as well.

    Args:
        number: the index of the options in `all_options`.
        jobs: their runs, about to begin.
        resolve: the runs of other options.
    """
    options = all_options[number]
    give_up = time.monotonic() + _SECONDS
    group = [await _outline_run(job, options, session, give_up) for job in jobs]
    if number:
        command.groups[number] = group
        return

    command.groups.append(group)
    for later in all_options[1:]:
        same = dataclasses.replace(
            later,
            seed=options.seed,
            # Of the first options, secrets were assigned to servers.
            backend_options=options.backend_options,
            roles=options.roles,
        )
        if same == options:
            command.groups.append([_outline_seed(job, later) for job in jobs])
        else:
            runs = resolve(later)
            command.groups.append([_count(job, later, session) for job in runs])


def _count(job: ResolvedRun, options: Options, session: Session) -> RunProgress:
    engine = session.create_engine(job, options)
    pending = len(engine.owed(job.positions))
    return RunProgress(_title(job), len(job.positions), pending, is_simple=_is_simple(job))


def _outline_seed(job: ResolvedRun, options: Options) -> RunProgress:
    """The same run with another seed, without opening its data again."""
    import msgspec

    spec = msgspec.structs.replace(job.spec, seed=options.seed)
    folder = RunFolder(RunFolder.path_of(options.results, spec))
    finished: dict[str, bool] = {}
    if options.cache != "refresh" and folder.predictions_path.exists():
        for prediction in folder.iter_predictions():
            finished[prediction.sample_id] = prediction.error is None
    index = job.dataset.index()
    pending = sum(not finished.get(index[position][0]) for position in job.positions)
    expectation = None
    # Greedy calls of a further seed are mostly those of the first, which are stored by then.
    if options.sampling.temperature == 0 and options.cache == "use":
        expectation = Expectation({}, {}, pending)
    size = len(job.positions)
    return RunProgress(_title(job), size, pending, expectation, is_simple=_is_simple(job))


async def _outline_run(
    job: ResolvedRun, options: Options, session: Session, give_up: float
) -> RunProgress:
    engine = session.create_engine(job, options)
    pending = engine.owed(job.positions)
    outlined = RunProgress(_title(job), len(job.positions), len(pending), is_simple=_is_simple(job))
    if len(pending) >= _FEWEST and not outlined.is_simple and _may_plan(job):
        # Without an estimate, the samples so far have to do.
        with contextlib.suppress(PersonabenchError):
            outlined.expectation = await expect_calls(job, pending, session, give_up)
    return outlined


def _title(job: ResolvedRun) -> str:
    return f"{job.spec.method} on {job.spec.task}"


def _is_simple(job: ResolvedRun) -> bool:
    """Whether a call per sample is a fair guess."""
    needs_population = "population" in job.method.requirements()
    return not (job.method.profiles or needs_population) and job.task.protocol == "static"


def _may_plan(job: ResolvedRun) -> bool:
    """Whether a dry run is harmless: code of one's own runs only where it was asked for."""
    # A rehearsal would store the history in a system that is not ours.
    if isinstance(job.method, Memory) and job.method.external:
        return False
    needs_population = "population" in job.method.requirements()
    if needs_population and len(job.dataset.index()) > _LARGEST_POPULATION:
        return False
    return all(
        type(plugin).__module__.startswith("personabench.") for plugin in (job.method, job.task)
    )


async def expect_calls(
    job: ResolvedRun, pending: Sequence[int], session: Session, give_up: float | None = None
) -> Expectation:
    """The calls that a run has to pay for: those of a few users in a dry run, scaled to all.

    Args:
        give_up: the time (`time.monotonic`) until which the dry run may take.

    Raises:
        PersonabenchError: the dry run fails, or takes longer.
        KeyboardInterrupt: interrupted.
    """
    index = job.dataset.index()
    sampled = _sample_positions(pending, [index[position][1] for position in pending])
    # What a method keeps in itself must not come from filler.
    rehearsed = dataclasses.replace(job, method=create(type(job.method), job.method.params))
    policy: Policy = "use" if session.cache is not None else "off"
    runner = DryRunner([rehearsed], session.model, session.cache, policy, FillerEmbedders())
    client = await runner.run(rehearsed, positions=sampled, memory={}, change={}, give_up=give_up)

    calls: Counter[Phase] = Counter()
    allowances: Counter[Phase] = Counter()
    for call in client.planned_calls:
        calls[call.phase] += not call.stored
        allowances[call.phase] += 0 if call.stored else call.request.max_tokens

    users = len({index[position][1] for position in pending})
    sampled_users = len({index[position][1] for position in sampled})
    expected: dict[Phase, float] = {}
    for phase, count in calls.items():
        scale = 1.0
        if phase in _PER_USER:
            scale = users / sampled_users
        elif phase in _PER_SAMPLE:
            scale = len(pending) / len(sampled)
        expected[phase] = count * scale
    allowance = {phase: total / calls[phase] for phase, total in allowances.items() if total}
    return Expectation(expected, allowance, len(pending))


def _sample_positions(pending: Sequence[int], users: Sequence[str]) -> list[int]:
    """The first samples of the first users; of each user a fair share."""
    counts: Counter[str] = Counter()
    sampled = []
    for position, user in zip(pending, users, strict=True):
        if user not in counts and len(counts) == _SAMPLED_USERS:
            continue
        if counts[user] < _SAMPLED_SAMPLES // _SAMPLED_USERS:
            counts[user] += 1
            sampled.append(position)
    return sampled
