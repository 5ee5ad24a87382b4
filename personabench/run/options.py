"""The options of `personabench run`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from personabench.api.method import Method
from personabench.api.prompts import Replacements
from personabench.api.wording import WordingName
from personabench.metrics.judges.custom_rubric import Rubric
from personabench.models.backends import credentials
from personabench.models.backends.base import BackendOptions
from personabench.models.budget import Prices
from personabench.models.cache import Policy
from personabench.models.roles import RoleName
from personabench.retrieval.embedders import Embedders
from personabench.retrieval.vector_store import VectorStore
from personabench.run.shards import Shard
from personabench.types import Sampling


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of `personabench run`, named as on the command line.

    Attributes:
        methods, tasks: names or paths.
        classes: further methods, as classes.
        split: "user/dev", "dev", or None for the task's default.
        data: a folder with the benchmark's files; None for the example data.
        limit: the least number of samples, rounded up to whole users; None for all.
        users: the number of users; None for all. Not together with a limit.
        longest: take the users with the longest histories, not a seeded draw.
        draw: the seed that selects users, if it is not `seed`: the seeds of one
            comparison share it.
        assignments: `[owner.]key=value` parameters; the owner `task` addresses the task.
        grid: `[owner.]key=value,value` parameters, applied before `assignments`: one run per
            combination.
        wording: the wording of methods' prompts; None for the one that suits the model.
        prompts: texts that replace those of methods; None for none.
        shard: the part of the users to take; None for all. `results` is then the shard's own
            folder.
        history: the control applied to histories.
        concurrency: samples in progress and calls in flight; None for the backend's own number.
        sample_timeout: seconds that a sample may take; None for no limit.
        roles: backend and options of the simulator, the judge and the profiler; the model under
            test plays a role that is not named.
        command: the command as it was typed, without secrets; empty for other callers.
        run_file: the options that were given, as a run file, without secrets; empty for other
            callers.
        environment: a line about options that came from the environment; empty if none did.
        rubric: the criteria by which a judge scores the answers of text tasks; None for none.
        prices: money per million tokens, by model; max_cost: the budget of the whole command.
        card: where imported answers come from; None for runs of a model.
    """

    methods: Sequence[str]
    tasks: Sequence[str]
    classes: Sequence[type[Method]] = ()
    split: str | None = None
    data: Path | None = None
    limit: int | None = None
    users: int | None = None
    longest: bool = False
    backend: str = "local"
    backend_options: BackendOptions = BackendOptions()
    concurrency: int | None = None
    sample_timeout: float | None = None
    seed: int = 0
    draw: int | None = None
    sampling: Sampling = Sampling()
    assignments: Sequence[str] = ()
    grid: Sequence[str] = ()
    wording: WordingName | None = None
    prompts: Replacements | None = None
    shard: Shard | None = None
    history: str = "own"
    results: Path = Path("results")
    cache: Policy = "use"
    metrics: Sequence[str] = ()
    command: str = ""
    run_file: str = ""
    environment: str = ""
    rubric: Rubric | None = None
    roles: Mapping[RoleName, tuple[str, BackendOptions]] = dataclasses.field(default_factory=dict)
    prices: Prices = dataclasses.field(default_factory=dict)
    max_cost: float | None = None
    card: Mapping[str, Any] | None = None

    @property
    def selection_seed(self) -> int:
        """The seed that selects users."""
        return self.seed if self.draw is None else self.draw

    def guarded(self) -> Options:
        """The same options, with each server's secrets given to that server alone."""
        model_options, roles = credentials.assign_secrets(
            self.backend, self.backend_options, self.roles
        )
        return dataclasses.replace(self, backend_options=model_options, roles=roles)

    def embedders(self, store: VectorStore | None = None) -> Embedders:
        """The embedders, on the server named for them or else on that of the model under test."""
        server = credentials.embedder_options(self.backend, self.backend_options)
        return Embedders(server.base_url, server.keys, server.headers, store)
