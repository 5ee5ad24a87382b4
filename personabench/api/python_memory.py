"""Memories of other packages: a plain class with `start`, `ingest` and `retrieve`, as a method.

    class Provider:
        "Wraps a package; methods may be synchronous."
        packages = ("its-distribution",)

        def __init__(self, endpoint): ...                   # url and api_key of a model, optional
        def start(self, user): ...
        def ingest(self, user, batch): ...                  # messages: id, role, content, time, ...
        def retrieve(self, user, query, now, k, tokens): ... # a text, or a list of objects

`--method module:Provider` runs it.  Its synchronous methods run in a thread, one call at a time,
so that they may wait for the endpoint, which the run itself serves.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

from personabench.api.memory import Memory
from personabench.api.memory_batches import Batch, Unit
from personabench.api.memory_items import MemoryItem
from personabench.api.memory_messages import list_messages, read_items
from personabench.api.model_endpoint import ModelEndpoint
from personabench.errors import UsageError

if TYPE_CHECKING:
    from personabench.api.context import Context

State = dict[str, Any]
PROVIDER = ("start", "ingest", "retrieve")
"""The methods that a provider has to have."""


class PythonMemory(Memory):
    """A provider as a memory.

    Attributes:
        provider: the class; packages: the distributions whose versions identify its runs.
    """

    opaque = True
    provider: ClassVar[type[Any]]
    packages: ClassVar[Sequence[str]] = ()
    retrieval_params = ("memory_tokens", "k")

    @dataclass(frozen=True)
    class Params(Memory.Params):
        """unit: the records that are ingested together.

        k: items requested for a question.
        embedder: the embedder of the endpoint, as in rag.
        """

        unit: Unit = "exchange"
        k: int = 10
        embedder: str = "wordllama"

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self._run = secrets.token_hex(8)
        self._histories = 0
        self._system: Any = None
        self._endpoint: ModelEndpoint | None = None
        self._lock = asyncio.Lock()

    async def start(self, ctx: Context) -> State:
        await self._open()
        self._histories += 1
        user = f"{self._run}-{self._histories}"
        await self._call(ctx, "start", user)
        return {"user": user, "size": {}, "packages": list_versions(self.packages)}

    async def _open(self) -> None:
        async with self._lock:
            if self._system is not None:
                return
            self._endpoint = ModelEndpoint(getattr(self.params, "embedder", "wordllama"))
            await self._endpoint.open()
            wants_endpoint = "endpoint" in inspect.signature(self.provider).parameters
            arguments = (self._endpoint,) if wants_endpoint else ()
            self._system = await asyncio.to_thread(self.provider, *arguments)

    async def ingest(self, state: State, batch: Batch, ctx: Context) -> State:
        await self._call(ctx, "ingest", state["user"], list_messages(batch, ctx))
        return state

    async def finish(self, state: State, ctx: Context) -> State:
        if hasattr(self._system, "size"):
            size = await self._call(ctx, "size", state["user"])
            state["size"] = {name: int(amount) for name, amount in dict(size).items()}
        return state

    def size(self, state: State) -> Mapping[str, int]:
        return dict(state["size"])

    async def retrieve(
        self, state: State, query: str, ctx: Context, now: str
    ) -> Sequence[MemoryItem]:
        p = self.params
        reply = await self._call(ctx, "retrieve", state["user"], query, now, p.k, p.memory_tokens)
        if isinstance(reply, str):
            return read_items({"text": reply}, self.name)
        if isinstance(reply, list):
            return read_items({"items": reply}, self.name)
        return read_items(reply if isinstance(reply, dict) else {}, self.name)

    async def close(self) -> None:
        if self._system is not None and hasattr(self._system, "close"):
            closing = self._system.close
            await (
                closing() if inspect.iscoroutinefunction(closing) else asyncio.to_thread(closing)
            )
        self._system = None
        if self._endpoint is not None:
            await self._endpoint.aclose()
            self._endpoint = None

    async def _call(self, ctx: Context, name: str, *arguments: Any) -> Any:
        """Call a method of the provider; the calls that it makes are booked on the context.

        Raises:
            BackendError: a call of the model failed.
        """
        assert self._endpoint is not None
        method = getattr(self._system, name)
        async with self._lock:
            with self._endpoint.serving(ctx):
                try:
                    if inspect.iscoroutinefunction(method):
                        return await method(*arguments)
                    return await asyncio.to_thread(method, *arguments)
                except Exception as error:
                    # The package reports it in its own words, or hides it.
                    if self._endpoint.failure is not None:
                        raise self._endpoint.failure from error
                    raise
                finally:
                    self._count_failures(ctx)

    def _count_failures(self, ctx: Context) -> None:
        """Flag the failures that the provider has counted in `counts`, if it does so."""
        counts = getattr(self._system, "counts", None)
        if isinstance(counts, Counter):
            for name, amount in counts.items():
                ctx.flag(name, amount)
            counts.clear()


def is_provider(cls: Any) -> bool:
    """Whether a class has the methods of a provider."""
    return isinstance(cls, type) and all(callable(getattr(cls, name, None)) for name in PROVIDER)


def make_memory_class(cls: type[Any]) -> type[PythonMemory]:
    """Make a memory of a provider, whose code and versions identify its runs.

    Raises:
        UsageError: one of its packages is not installed.
    """
    packages = tuple(getattr(cls, "packages", ()))
    unit = dataclasses.field(default=getattr(cls, "unit", "exchange"))
    params = dataclasses.make_dataclass(
        "Params", [("unit", Unit, unit)], bases=(PythonMemory.Params,), frozen=True
    )
    params.__doc__ = PythonMemory.Params.__doc__
    attributes = {
        "Params": params,
        "name": getattr(cls, "name", cls.__name__.lower()),
        "needs": ("history|feedback",),
        "provider": cls,
        "packages": packages,
        # Part of the source hash (`api.source`).
        "code": " ".join(list_versions(packages)),
        "__module__": cls.__module__,
        "__doc__": cls.__doc__,
    }
    return type(cls.__name__, (PythonMemory,), attributes)


def find_version(package: str) -> str:
    """The installed version of a distribution as a requirement; empty without one.

    As the attribute `code` of a class it is a part of its source hash.
    """
    try:
        return list_versions([package])[0]
    except UsageError:
        return ""


def list_versions(packages: Sequence[str]) -> list[str]:
    """The installed versions of distributions, as requirements.

    Raises:
        UsageError: one is not installed.
    """
    versions = []
    for name in packages:
        try:
            versions.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError as error:
            raise UsageError(f"the package {name} is not installed; install it first") from error
    return versions
