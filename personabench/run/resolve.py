"""Resolve command-line options into runs.

Names, parameters and files are checked here, as far as that is possible without a model call, so
that a command which cannot work costs nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from personabench.api import params, registry
from personabench.api.compatibility import check_requirements, explain_misfit, judge_fit
from personabench.api.composition import select_params
from personabench.api.dataset import Dataset
from personabench.api.fidelity import apply_paper_settings, list_differences, names_paper
from personabench.api.guard import create, params_of
from personabench.api.judged import judge_params
from personabench.api.layout import list_options
from personabench.api.method import Method
from personabench.api.prompts import Prompts, check_owners
from personabench.api.rubric_task import with_rubric
from personabench.api.task import Task
from personabench.api.training import TrainedMethod
from personabench.api.users import open_split
from personabench.api.wording import WordingName
from personabench.errors import UsageError
from personabench.metrics.judges.ask import check_independence
from personabench.models.backends.adapters import DEFAULT
from personabench.models.backends.base import USER, Backend
from personabench.models.roles import OPTION_PREFIXES, RoleName
from personabench.results.run_folder import RunFolder
from personabench.results.spec import RunSpec
from personabench.retrieval.tokenizers import get_tokenizer
from personabench.run.audit import Audit, audit_briefly
from personabench.run.controls import apply_control
from personabench.run.judging import active_roles, judge_key
from personabench.run.options import Options
from personabench.run.selection import select
from personabench.run.training import Training
from personabench.run.watchdog import watch_opening
from personabench.types import Sampling

_log = logging.getLogger("personabench")

Parameters = Mapping[str, Mapping[str, str]]
"""Unparsed parameters by owner: "task", a method's name, or "" for every owner that has the key."""


@dataclasses.dataclass
class ResolvedRun:
    """One run, ready to start.

    Attributes:
        backend: the model under test.
        positions: the selected samples, in the order of work.
        prompts: the texts of the method's prompts.
        differs: differences from the setting of the method's paper, in words.
        changed_prompts: the options of texts that are not the model's default.
        roles: the backends of the simulator and the judge, if the task uses them, and of the
            profiler, if one is named and the method uses it.
        profiler_prompts: the texts of the method's prompts for the profiler.
        audited: the data before a control of histories; None if it is not to be audited.
        training: what a trained method builds on; None for others.
    """

    spec: RunSpec
    task: Task
    dataset: Dataset
    method: Method
    backend: Backend
    positions: Sequence[int]
    folder: RunFolder
    prompts: Prompts
    differs: Sequence[str] = ()
    changed_prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    roles: Mapping[RoleName, Backend] = dataclasses.field(default_factory=dict)
    profiler_prompts: Prompts = dataclasses.field(default_factory=Prompts)
    audited: Dataset | None = None
    training: Training | None = None

    @property
    def audit(self) -> Audit | None:
        """The audit of the data, unless it is example data; made when it is first read.

        Raises:
            PluginError: the task's code fails.
        """
        return None if self.audited is None else audit_briefly(self.task, self.audited)

    @property
    def judge(self) -> str | None:
        """The key of the judge, if there is one."""
        if "judge" not in self.roles:
            return None
        return judge_key(self.task, self.roles["judge"].identity)

    @property
    def changed_profiler(self) -> dict[str, str]:
        """The profiler as a label names it; empty without one."""
        if "profiler" not in self.roles:
            return {}
        profiler = self.roles["profiler"]
        marks = [f"{name}={value}" for name, value in profiler.options.marks.items()]
        return {"profiler": " ".join([profiler.identity["name"], *marks])}

    @property
    def warnings(self) -> list[str]:
        """Warnings about the data and the roles."""
        audit, audits = self.audit, []
        if audit and not audit.is_clean:
            audits.append(
                f"{audit.summary}; `personabench audit`, with this task and data, shows examples"
            )
        return [*self.dataset.warnings, *audits, *self._role_warnings]

    @property
    def _role_warnings(self) -> list[str]:
        """Warnings about roles played by the model under test, and about a related judge."""
        warnings = [
            f"the {role} is the model under test itself, {backend.identity['name']}: "
            f"name another with --{OPTION_PREFIXES[role]}-model"
            for role, backend in self.roles.items()
            if backend.identity == self.spec.model
        ]

        judge = self.roles["judge"].identity if "judge" in self.roles else self.spec.model
        if judge == self.spec.model:
            return warnings

        # A judge tends to prefer answers of its own family, also if they come from the simulator.
        judged_models = [self.spec.model]
        judged_models += [
            backend.identity for role, backend in self.roles.items() if role != "judge"
        ]
        related = [check_independence(judge["name"], model["name"]) for model in judged_models]
        return [*warnings, *dict.fromkeys(warning for warning in related if warning)]


def build_spec(
    task: Task,
    dataset: Dataset,
    method: Method,
    *,
    model: Mapping[str, str],
    sampling: Sampling,
    seed: int,
    history: str,
    window: int | None,
    simulator: Mapping[str, str] | None,
    prompts: Prompts | None = None,
    profiler: Mapping[str, str] | None = None,
    longest: bool = False,
) -> RunSpec:
    """The identity of a run of a method on an opened split of a task.

    Args:
        model, simulator: identities of the models; profiler: see `RunSpec`.
        window: the context length that was asked for, in tokens; None for the model's own.
        longest: the users are those with the longest histories.
    """
    # Options that only the judge reads are part of the judge's key, not of the run: another judge
    # needs no new answers.
    task_params = {
        name: value
        for name, value in list_options(task.params).items()
        if name not in judge_params(task)
    }
    return RunSpec(
        task=task.name,
        task_version=task.version,
        task_hash=registry.source_hash(type(task)),
        task_params=task_params,
        separation=dataset.separation,
        split=dataset.split,
        sample=dataset.sample,
        data_hash=dataset.hash,
        method=method.name,
        method_hash=registry.source_hash(type(method)),
        params=dataclasses.asdict(method.params),
        model=model,
        sampling=sampling,
        seed=seed,
        history=history,
        window=window,
        simulator=msgspec.UNSET if simulator is None else simulator,
        tokenizer=_name_tokenizer(task),
        prompts=msgspec.UNSET if prompts is None else prompts.identity,
        profiler=msgspec.UNSET if profiler is None else profiler,
        selection="longest" if longest else msgspec.UNSET,
    )


def _identify_profiler(backend: Backend, prompts: Prompts) -> dict[str, str]:
    """The profiler as the spec states it: everything that determines its replies."""
    identity = dict(backend.identity)
    if backend.options.window is not None:
        identity["window"] = str(backend.options.window)
    if prompts.identity is not msgspec.UNSET:
        identity["prompts"] = prompts.identity
    return identity


def _name_tokenizer(task: Task) -> str | msgspec.UnsetType:
    """The task's tokenizer as the spec states it.

    Raises:
        UsageError: unknown tokenizer.
    """
    try:
        get_tokenizer(task.tokenizer)
    except UsageError as error:
        raise UsageError(f"task {task.name}: {error}") from error
    # Unset, because runs of versions that knew no other tokenizer must keep their fingerprints.
    return msgspec.UNSET if task.tokenizer == "whitespace" else task.tokenizer


def resolve(
    options: Options,
    backend: Backend,
    named: Mapping[RoleName, Backend] | None = None,
    reported: set[str] | None = None,
) -> list[ResolvedRun]:
    """The runs that the options describe, checked as far as possible without a model call.

    Args:
        backend: the model under test.
        named: the backends of roles that have their own.
        reported: pairs that do not fit and were named before, as with another seed.

    Raises:
        UsageError, DataError: a name, option or file that cannot work.
    """
    resolver = _Resolver(options, backend, named or {})
    runs = resolver.resolve()
    resolver.report_refusals(set() if reported is None else reported)
    return runs


def _name_opened(task: Task) -> str:
    return f"{task.name} {task.params}"


class _Resolver:
    """The state of one `resolve`: opened tasks, refused pairs, and the parameters in use."""

    def __init__(
        self, options: Options, backend: Backend, named: Mapping[RoleName, Backend]
    ) -> None:
        self.options = options
        self.backend = backend
        self.named = named
        self.methods = [*_load_classes("method", options.methods), *options.classes]
        self.tasks: list[type[Task]] = _load_classes("task", options.tasks)
        if options.rubric is not None:
            self.tasks = [with_rubric(cls, options.rubric) for cls in self.tasks]
        self.runs: dict[str, ResolvedRun] = {}
        self.refusals: list[str] = []
        self.used_by_methods: set[str] = set()
        self.used_by_tasks: set[str] = set()
        self.active_roles: set[RoleName] = set()
        self.departures: dict[str, str] = {}
        self.opened: dict[str, tuple[Task, Dataset]] = {}
        self.default_wording = _default_wording(backend)
        self.wording: WordingName | None = options.wording
        self.audited: dict[str, Dataset] = {}

    def resolve(self) -> list[ResolvedRun]:
        _check_options(self.options, self.backend)
        self._check_prompts()
        parts = [part for cls in self.methods for part in cls.composed_of]
        owners = list(dict.fromkeys(["task", *(cls.name for cls in self.methods), *parts]))
        grid = [
            params.parse_assignments([*self.options.assignments, *point], owners)
            for point in params.expand_grid(self.options.grid)
        ]
        if self.wording is None and self._requests_paper(grid):
            self.wording = "full"
        for task_class, parameters in itertools.product(self.tasks, grid):
            self._resolve_task(task_class, parameters)

        self._check_roles()
        if self.refusals and not self.runs:
            raise UsageError("; ".join(dict.fromkeys(self.refusals)))
        # All points of a grid have the same keys.
        self._check_used(grid[0])
        return list(self.runs.values())

    def _requests_paper(self, grid: Sequence[Parameters]) -> bool:
        """Whether a method is to run as in its paper, whose requests are not worded for small
        models; all runs of a command are worded alike."""
        return any(
            names_paper(cls, {**parameters.get("", {}), **select_params(cls, parameters)})
            for cls in self.methods
            for parameters in grid
        )

    def _resolve_task(self, task_class: type[Task], parameters: Parameters) -> None:
        task = self._create_task(task_class, parameters)
        history = self.options.history
        if history != "own" and "history" not in task.offers:
            self.refusals.append(
                f"--history {history}: the users of {task.name} have no history; leave it out"
            )
            return

        task, dataset = self._open(task)
        roles = {
            role: self.named.get(role, self.backend)
            for role in active_roles(task, list(self.named))
        }
        self.active_roles |= roles.keys()
        # Whether it is used depends on the method, not on the task.
        roles.pop("profiler", None)

        positions = select(
            dataset,
            self.options.limit,
            self.options.selection_seed,
            self.options.users,
            longest=self.options.longest,
        )
        if self.options.shard:
            positions = self.options.shard.take(dataset, positions)

        for method_class in self.methods:
            self._resolve_run(method_class, parameters, task, dataset, roles, positions)

    def _create_task(self, task_class: type[Task], parameters: Parameters) -> Task:
        accepted = _accepted(
            params_of(task_class), parameters.get("task", {}), only_owner=len(self.tasks) == 1
        )
        self.used_by_tasks |= accepted.keys()
        task_params = params.fill_params(task_class.Params, accepted, f"task {task_class.name}")
        task: Task = create(task_class, task_params)
        task.choose_wording(self.wording or self.default_wording, self.options.prompts)
        return task

    def _open(self, task: Task) -> tuple[Task, Dataset]:
        """The task and its split under the history control, opened once."""
        name = _name_opened(task)
        if name not in self.opened:
            split = self.options.split or task.default_split
            with watch_opening():
                dataset = open_split(task, split, self.options.data)
                self.audited[name] = dataset
                self.opened[name] = (
                    task,
                    apply_control(dataset, self.options.history, self.options.seed),
                )
        return self.opened[name]

    def _resolve_run(
        self,
        method_class: type[Method],
        parameters: Parameters,
        task: Task,
        dataset: Dataset,
        roles: Mapping[RoleName, Backend],
        positions: Sequence[int],
    ) -> None:
        unowned = parameters.get("", {})
        shared = _accepted(params_of(method_class), unowned, only_owner=len(self.methods) == 1)
        if names_paper(method_class, unowned):
            shared["preset"] = "paper"
        self.used_by_methods |= shared.keys()

        fit, reason = judge_fit(method_class, type(task))
        if fit == "refused":
            self.refusals.append(
                f"method {method_class.name} does not run on {task.name}: {reason}"
            )
            return

        texts = {**shared, **select_params(method_class, parameters)}
        sampling = self.options.sampling
        is_paper = names_paper(method_class, texts)
        if is_paper:
            texts, sampling = apply_paper_settings(method_class, texts, sampling)
        method_params = params.fill_params(
            method_class.Params, texts, f"method {method_class.name}"
        )
        method: Method = create(method_class, method_params)
        misfit = explain_misfit(method, task, dataset)
        if misfit:
            self.refusals.append(misfit)
            return
        check_requirements(method, dataset, positions)
        unserved = self._explain_unserved(method)
        if unserved:
            self.refusals.append(unserved)
            return

        prompts = self._resolve_prompts(method_class, self.default_wording)
        # The task's texts are part of a run, but not among those that a method fills.
        all_prompts = prompts
        if task.prompts:
            files = (*(prompts.files or ()), *task.prompts)
            all_prompts = Prompts(files, prompts.wording, self.options.prompts)
        profiler = self.named.get("profiler")
        profiler_identity = None
        profiler_prompts = prompts
        if profiler is not None and (method.uses_profiler or method.profiles):
            roles = {**roles, "profiler": profiler}
            self.active_roles.add("profiler")
            profiler_prompts = self._resolve_prompts(method_class, _default_wording(profiler))
            profiler_identity = _identify_profiler(profiler, profiler_prompts)

        spec = build_spec(
            task,
            dataset,
            method,
            model=self.backend.identity,
            sampling=sampling,
            seed=self.options.seed,
            history=self.options.history,
            window=self.options.backend_options.window,
            simulator=roles["simulator"].identity if "simulator" in roles else None,
            prompts=all_prompts,
            profiler=profiler_identity,
            longest=self.options.longest,
        )
        folder = RunFolder(RunFolder.path_of(self.options.results, spec))
        differs = list_differences(method, task, dataset, sampling, spec.history, all_prompts)
        if is_paper and differs:
            self.departures[f"{method.name} with preset=paper"] = ", ".join(differs)
        # Points of a grid that differ in another method's parameter are the same run of this one.
        self.runs.setdefault(
            str(folder.path),
            ResolvedRun(
                spec,
                task,
                dataset,
                method,
                self.backend,
                positions,
                folder,
                prompts,
                differs,
                all_prompts.changed(self.default_wording),
                roles,
                profiler_prompts,
                self.audited[_name_opened(task)],
                self._open_training(task, dataset, method, spec),
            ),
        )

    def _explain_unserved(self, method: Method) -> str:
        """Why the backend cannot serve the artifacts of a method; empty if it can."""
        if not isinstance(method, TrainedMethod) or not method.needs_base():
            return ""
        if method.kind not in self.backend.serves:
            return (
                f"method {method.name} answers through artifacts of kind '{method.kind}', which "
                f"backend '{self.options.backend}' does not serve; use --backend transformers"
                + (", vllm or local" if method.kind == "lora" else "")
            )
        if self.backend.misses_checkpoint:
            return (
                f"method {method.name} is trained on a checkpoint, and backend "
                f"'{self.options.backend}' serves a file that was made of one: name it with "
                "--checkpoint, as the --model of personabench train"
            )
        return ""

    def _open_training(
        self, task: Task, dataset: Dataset, method: Method, spec: RunSpec
    ) -> Training | None:
        if not isinstance(method, TrainedMethod):
            return None
        results = self.options.results
        if self.options.shard:
            results = self.options.shard.whole(results)
        return Training(task, dataset, method, spec, self.options.data, results)

    def _resolve_prompts(self, method_class: type[Method], default: WordingName) -> Prompts:
        # A rule sends no request that could be worded.
        wording = default if method_class.rule else self.wording or default
        return Prompts(method_class.prompts, wording, self.options.prompts)

    def _check_prompts(self) -> None:
        """Check the texts that replace those of methods, also of methods that do not fit a task."""
        if self.options.prompts is None:
            return
        files = [file for cls in (*self.methods, *self.tasks) for file in cls.prompts or ()]
        check_owners(self.options.prompts, files, [cls.name for cls in self.methods])
        for cls in self.methods:
            self._resolve_prompts(cls, self.default_wording)

    def _check_roles(self) -> None:
        idle = sorted(set(self.named) - self.active_roles)
        if not idle:
            return
        if idle[0] == "profiler":
            methods = ", ".join(self.options.methods)
            raise UsageError(f"--profile-model: none of the methods {methods} uses a profiler")
        tasks = ", ".join(self.options.tasks)
        raise UsageError(f"--{idle[0]}-model: none of the tasks {tasks} has a {idle[0]}")

    def report_refusals(self, reported: set[str]) -> None:
        """Name each pair that does not fit, and each preset that is not its paper's setting.

        Each is named once for all seeds of a command.
        """
        for refusal in dict.fromkeys(self.refusals):
            if refusal not in reported:
                reported.add(refusal)
                _log.warning("skipped: %s", refusal)

        for subject, differences in self.departures.items():
            departure = f"{subject} still differs from its paper in: {differences}"
            if departure not in reported:
                reported.add(departure)
                _log.warning("%s", departure)

    def _check_used(self, parameters: Parameters) -> None:
        unused = sorted(set(parameters.get("", {})) - self.used_by_methods)
        if unused:
            methods = ", ".join(self.options.methods)
            raise UsageError(
                f"--set {unused[0]}: none of the methods {methods} has a parameter of that name"
            )
        unused = sorted(set(parameters.get("task", {})) - self.used_by_tasks)
        if unused:
            tasks = ", ".join(self.options.tasks)
            raise UsageError(
                f"--set task.{unused[0]}: none of the tasks {tasks} has that parameter"
            )


def _default_wording(backend: Backend) -> WordingName:
    return "compact" if backend.packaged else "full"


def _check_options(options: Options, backend: Backend) -> None:
    adapter = backend.options.adapter or ""
    if options.history == "shuffled" and set(backend.options.adapter_map) - {DEFAULT}:
        raise UsageError(
            "--history shuffled with --adapter-map: each user's own adapter would answer from "
            "another user's history; name one adapter for all users, or leave one of the two out"
        )
    if options.history == "shuffled" and USER in adapter:
        raise UsageError(
            f"--history shuffled with --adapter '{adapter}': each user's own adapter would answer "
            "from another user's history; name one adapter for all users, or leave one of the two "
            "out"
        )
    if options.rubric is not None and options.shard is not None:
        raise UsageError(
            "--judge-rubric with --shard: run the shards without it, merge them, and repeat the "
            "command with --judge-rubric and without --shard; only the judge is called then"
        )
    if options.rubric is not None and "judge" not in options.roles:
        raise UsageError("--judge-rubric: name the judge with --judge-model or --judge-backend")
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit {options.limit}: at least 1")


def _load_classes(kind: registry.Kind, names: Sequence[str]) -> list[type[Any]]:
    """The classes behind names or paths, without repetitions.

    Raises:
        UsageError: two of them share a name, so that their runs could not be told apart.
    """
    classes = {name: registry.load_class(kind, name) for name in names}
    first_of: dict[str, str] = {}
    for name, cls in classes.items():
        first = first_of.setdefault(cls.name, name)
        if first != name:
            raise UsageError(
                f"--{kind}: {first} and {name} are both called '{cls.name}'; "
                "give one another `name`"
            )
    return list(classes.values())


def _accepted(
    params_class: type[Any], parameters: Mapping[str, str], only_owner: bool
) -> dict[str, str]:
    """Those of the parameters that a class has.

    The only owner gets them all, so that a misspelt name is reported against its parameters.
    """
    if only_owner:
        return dict(parameters)
    fields = {field.name for field in dataclasses.fields(params_class)}
    return {key: value for key, value in parameters.items() if key in fields}
