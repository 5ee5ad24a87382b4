"""The options of `personabench run`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from personabench.models.backends import credentials
from personabench.models.backends.base import BackendOptions
from personabench.models.budget import Prices
from personabench.models.cache import Policy
from personabench.models.roles import RoleName
from personabench.retrieval.embedders import Embedders
from personabench.run.shards import Shard
from personabench.types import Sampling


@dataclasses.dataclass(frozen=True)
class Options:
    """What `personabench run` was asked for; names as on the command line.

    Attributes:
        methods, tasks: names or paths.
        split: "user/dev", "dev", or None for the task's default.
        data: a folder with the benchmark's files; None for the bundled sample.
        limit: samples at least, whole users at a time; None for all.
        draw: the seed that draws the limit's users, where it is not `seed`: several seeds of one comparison share it.
        assignments: `[owner.]key=value` parameters; owner `task` addresses the task.
        grid: `[owner.]key=value,value` parameters, before `assignments`: a run for every combination.
        shard: the part of the users to take; None for all.  `results` is then the shard's own folder.
        history: the control applied to histories.
        concurrency: samples under way and calls in flight; None for the backend's own number.
        roles: backend and its options of the simulated user and the judge; a role not named is the model under test.
        prices: money per million tokens, by model; max_cost: what the command may spend, over all its runs.
    """

    methods: Sequence[str]
    tasks: Sequence[str]
    split: str | None = None
    data: Path | None = None
    limit: int | None = None
    backend: str = "local"
    backend_options: BackendOptions = BackendOptions()
    concurrency: int | None = None
    seed: int = 0
    draw: int | None = None
    sampling: Sampling = Sampling()
    assignments: Sequence[str] = ()
    grid: Sequence[str] = ()
    shard: Shard | None = None
    history: str = "own"
    results: Path = Path("results")
    cache: Policy = "use"
    metrics: Sequence[str] = ()
    roles: Mapping[RoleName, tuple[str, BackendOptions]] = dataclasses.field(default_factory=dict)
    prices: Prices = dataclasses.field(default_factory=dict)
    max_cost: float | None = None

    def guarded(self) -> Options:
        """The same, each server being given the secrets that are its own."""
        under, roles = credentials.share(self.backend, self.backend_options, self.roles)
        return dataclasses.replace(self, backend_options=under, roles=roles)

    def embedders(self) -> Embedders:
        """What embeds texts, on the server that is named for it or else on that of the model under test."""
        own = credentials.embedding(self.backend, self.backend_options)
        return Embedders(own.base_url, own.keys, own.headers)
