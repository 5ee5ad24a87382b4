"""What a command asks for, resolved into runs: a spec, its task, data, method and folder each.

Names, parameters and files are checked here as far as that goes without a model call.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from personabench.api import params, registry
from personabench.api.compatibility import Fit, check_requirements, verdict, without_dates
from personabench.api.dataset import Dataset
from personabench.api.guard import create, params_of
from personabench.api.method import Method
from personabench.api.task import Task
from personabench.api.users import open_split
from personabench.errors import UsageError
from personabench.metrics.judges.ask import check_independence
from personabench.models.backends.base import USER, Backend
from personabench.models.roles import RoleName
from personabench.results.run_folder import RunFolder
from personabench.results.spec import RunSpec
from personabench.run.controls import controlled
from personabench.run.judging import active_roles, judge_key
from personabench.run.options import Options
from personabench.run.selection import select

_log = logging.getLogger("personabench")


@dataclasses.dataclass
class Job:
    """One run, resolved: what will be predicted with what."""

    spec: RunSpec
    task: Task
    dataset: Dataset
    method: Method
    positions: Sequence[int]
    folder: RunFolder
    fit: Fit = "faithful"
    roles: Mapping[RoleName, Backend] = dataclasses.field(default_factory=dict)

    @property
    def judge(self) -> str | None:
        """The key of the judge, where there is one."""
        return judge_key(self.task, self.roles["judge"].identity) if "judge" in self.roles else None

    @property
    def shared(self) -> list[str]:
        """A warning for each role that the model under test plays itself, and for a judge of the same family."""
        own = [
            f"the {role} is the model under test itself, {backend.identity['name']}: name another with --{role}-model"
            for role, backend in self.roles.items()
            if backend.identity == self.spec.model
        ]
        judge = self.roles["judge"].identity if "judge" in self.roles else self.spec.model
        others = [
            self.spec.model,
            *(backend.identity for role, backend in self.roles.items() if role != "judge"),
        ]
        kin = [
            check_independence(judge["name"], other["name"])
            for other in others
            if judge != self.spec.model
        ]
        return [*own, *dict.fromkeys(filter(None, kin))]


def resolve(
    options: Options, backend: Backend, named: Mapping[RoleName, Backend] | None = None
) -> list[Job]:
    """The runs asked for, checked as far as possible without a model call; `named` are the roles' own backends.

    Raises:
        UsageError, DataError: a name, option or file that cannot work.
    """
    jobs: list[Job] = []
    refused: list[str] = []
    if options.history == "shuffled" and USER in (backend.options.adapter or ""):
        raise UsageError(
            f"--history shuffled with --adapter '{backend.options.adapter}': the owner's own adapter would answer from "
            "a stranger's history; name one adapter for all users, or leave one of the two out"
        )
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit {options.limit}: at least 1")
    classes = {name: registry.load("method", name) for name in options.methods}
    called: dict[str, str] = {}
    for asked, cls in classes.items():
        if (other := called.setdefault(cls.name, asked)) != asked:
            raise UsageError(
                f"--method: {other} and {asked} are both called '{cls.name}'; give one another `name`"
            )
    owners = ["task", *(cls.name for cls in classes.values())]
    points = [
        params.assignments([*options.assignments, *point], owners)
        for point in params.grid(options.grid)
    ]
    used: set[str] = set()
    used_by_tasks: set[str] = set()
    played: set[RoleName] = set()
    opened: dict[str, tuple[Task, Dataset]] = {}
    task_classes = [registry.load("task", name) for name in options.tasks]
    called.clear()
    for asked, cls in zip(options.tasks, task_classes, strict=True):
        if (other := called.setdefault(cls.name, asked)) != asked:
            raise UsageError(
                f"--task: {other} and {asked} are both called '{cls.name}'; give one another `name`"
            )
    for task_class, given in itertools.product(task_classes, points):
        shared = given.get("", {})
        theirs = _of(params_of(task_class), given.get("task", {}), alone=len(task_classes) == 1)
        used_by_tasks |= theirs.keys()
        task: Task = create(
            task_class, params.fill(task_class.Params, theirs, f"task {task_class.name}")
        )
        place = f"{task.name} {task.params}"
        if options.history != "own" and "history" not in task.offers:
            raise UsageError(
                f"--history {options.history}: the users of {task.name} have no history; leave it out"
            )
        if place not in opened:
            split = options.split or task.default_split
            opened[place] = (
                task,
                controlled(open_split(task, split, options.data), options.history, options.seed),
            )
        task, dataset = opened[place]
        roles = {
            role: (named or {}).get(role, backend) for role in active_roles(task, list(named or {}))
        }
        played |= roles.keys()
        positions = select(
            dataset, options.limit, options.seed if options.draw is None else options.draw
        )
        if options.shard:
            positions = options.shard.take(dataset, positions)
        for cls in classes.values():
            mine = _of(params_of(cls), shared, alone=len(classes) == 1)
            used |= mine.keys()
            declared = {
                "refuses": cls.refuses,
                "designed_for": cls.designed_for,
                "needs": cls.needs,
            }
            fit, reason = verdict(declared, task.name, task.offers)
            if fit == "refused":
                refused.append(f"method {cls.name} does not run on {task.name}: {reason}")
                continue
            own = params.fill(cls.Params, mine | given.get(cls.name, {}), f"method {cls.name}")
            method: Method = create(cls, own)
            if undated := without_dates(method, dataset):
                refused.append(undated)
                continue
            check_requirements(method, dataset, positions)
            spec = RunSpec(
                task=task.name,
                task_version=task.version,
                task_hash=registry.source_hash(type(task)),
                task_params={
                    name: value
                    for name, value in dataclasses.asdict(task.params).items()
                    if name not in task.judge_params
                },
                separation=dataset.separation,
                split=dataset.split,
                sample=dataset.sample,
                data_hash=dataset.hash,
                method=method.name,
                method_hash=registry.source_hash(cls),
                params=dataclasses.asdict(method.params),
                model=backend.identity,
                sampling=options.sampling,
                seed=options.seed,
                history=options.history,
                window=options.backend_options.window,
                simulator=roles["simulator"].identity if "simulator" in roles else msgspec.UNSET,
            )
            folder = RunFolder(RunFolder.place(options.results, spec))
            if all(job.folder.path != folder.path for job in jobs):
                jobs.append(Job(spec, task, dataset, method, positions, folder, fit, roles))
    if idle := sorted(set(named or {}) - played):
        raise UsageError(
            f"--{idle[0]}-model: none of the tasks {', '.join(options.tasks)} has a {idle[0]}"
        )
    if refused and not jobs:
        raise UsageError("; ".join(dict.fromkeys(refused)))
    for line in dict.fromkeys(refused):
        _log.warning("%s; the other runs go on", line)
    if unused := sorted(set(points[0].get("", {})) - used):
        raise UsageError(
            f"--set {unused[0]}: none of the methods {', '.join(classes)} has a parameter of that name"
        )
    if unused := sorted(set(points[0].get("task", {})) - used_by_tasks):
        raise UsageError(
            f"--set task.{unused[0]}: none of the tasks {', '.join(options.tasks)} has that parameter"
        )
    return jobs


def _of(kind: type[Any], given: Mapping[str, str], alone: bool) -> dict[str, str]:
    """What of the parameters given to all is for this one; all of it, for a message on a wrong name, if it is alone."""
    fields = {field.name for field in dataclasses.fields(kind)}
    return {key: value for key, value in given.items() if key in fields or alone}
