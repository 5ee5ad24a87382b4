"""Backends that are attached to fake vLLM servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fake_vllm import Site

from personabench.models.backends.base import BackendOptions
from personabench.models.backends.vllm import VLLM


@asynccontextmanager
async def attaching(sites: Sequence[Site]) -> AsyncIterator[Callable[..., Any]]:
    """Attach backends to the first servers, on request, and close them at the end of the block."""
    opened: list[VLLM] = []

    async def attach(count: int = 1, **options: Any) -> VLLM:
        first, *others = [site.url for site in sites[:count]]
        timeout = options.pop("timeout", 5)
        backend = VLLM(
            BackendOptions(base_url=first, replicas=tuple(others), timeout=timeout, **options)
        )
        opened.append(backend)
        await backend.identify()
        await backend.open()
        return backend

    yield attach
    for backend in opened:
        await backend.aclose()
