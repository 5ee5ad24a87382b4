"""Open a judge and measure how far hostile answers steer it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from personabench.metrics.judges.steering import Protocol, SteeringReport, measure_steering
from personabench.models import backends
from personabench.models.backends.base import BackendOptions
from personabench.models.cache import Cache, Policy
from personabench.models.client import Client
from personabench.models.probe import Dialects, probe_request
from personabench.models.roles import Role


async def steer_judge(
    backend_name: str,
    options: BackendOptions,
    protocols: Sequence[Protocol],
    results: Path,
    policy: Policy = "use",
) -> list[SteeringReport]:
    """Measure a judge under each protocol.

    Raises:
        UsageError: the judge cannot be used.
        BackendError: a call failed for good; the same command continues from there.
    """
    async with contextlib.AsyncExitStack() as stack:
        backend = backends.create(backend_name, options)
        stack.push_async_callback(backend.aclose)
        await backend.identify()
        dialects, probe = Dialects(results), probe_request(0.0, 1.0, 0)
        dialects.adopt_stored(backend, probe)
        # Only a model that runs on this machine has messages of its own.
        log = results / "judgements" / "steering.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        await backend.open(log if backend_name in ("local", "vllm") else None)
        if policy != "only":
            await dialects.settle(backend, backend.concurrency, probe)

        cache = None
        if policy != "off":
            cache = Cache(results / "cache.sqlite", writing=True)
            stack.callback(cache.close)
        client = Client(backend, cache, policy, backend.concurrency)
        judge = Role("judge", client, "", 0)
        return [await measure_steering(judge, protocol) for protocol in protocols]
