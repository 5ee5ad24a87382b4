"""Which of several servers of one model gets a call.

A user's calls stay on one server, whose prefix cache then holds their history: servers are ranked per user by
rendezvous hashing (Thaler and Ravishankar 1998) and the first whose load is at most `SLACK` times the fair share takes
the call (consistent hashing with bounded loads, Mirrokni et al. 2018).  Calls of no user go where the least are in
flight.  A server that broke a connection is left out until it answers again.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Container, Sequence
from functools import lru_cache
from hashlib import blake2b

SLACK = 1.25
PROBE_FIRST, PROBE_LONGEST = 0.1, 5.0
_log = logging.getLogger("personabench.vllm")


class Replica:
    """One server.

    Attributes:
        url: its address, ending in /v1; root: the same without it.
        flying: calls in flight; calls: calls it answered; alive: whether it is thought to be there.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.root = self.url.removesuffix("/v1")
        self.flying = 0
        self.calls = 0
        self.alive = True


class Replicas:
    """Servers of one model.

    Args:
        members: the servers, at least one.
        healthy: whether a server answers, and still with the same model.
    """

    def __init__(
        self, members: Sequence[Replica], healthy: Callable[[Replica], Awaitable[bool]]
    ) -> None:
        self.members = members
        self._healthy = healthy
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._ranked = lru_cache(maxsize=65536)(self._rank)

    def choose(self, group: str, tried: Container[Replica] = ()) -> Replica | None:
        """The server for a call of a group; None when `tried` leaves none that is alive.

        With nothing tried there is always one: when none is thought alive, the least loaded of all.
        """
        if len(self.members) == 1:
            return None if tried else self.members[0]
        alive = [member for member in self.members if member.alive and member not in tried]
        if not alive:
            return None if tried else min(self.members, key=lambda member: member.flying)
        if group:
            bound = math.ceil(SLACK * (sum(member.flying for member in alive) + 1) / len(alive))
            for member in self._ranked(group):
                if member.flying < bound and member in alive:
                    return member
        return min(alive, key=lambda member: member.flying)

    def take_out(self, member: Replica, why: str) -> None:
        """Leave a server out until it answers again."""
        if member.alive:
            member.alive = False
            if len(self.members) > 1:
                _log.warning("%s is out (%s); its calls go elsewhere", member.url, why)
        if member.url not in self._probes:
            self._probes[member.url] = asyncio.create_task(self._probe(member), name="probe")

    async def aclose(self) -> None:
        """Stop looking after servers that are out."""
        probes = list(self._probes.values())
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)

    async def _probe(self, member: Replica) -> None:
        delay = PROBE_FIRST
        try:
            while not await self._healthy(member):
                await asyncio.sleep(delay)
                delay = min(2 * delay, PROBE_LONGEST)
            member.alive = True
            if len(self.members) > 1:
                _log.warning("%s is back", member.url)
        finally:
            del self._probes[member.url]

    def _rank(self, group: str) -> list[Replica]:
        def weight(member: Replica) -> bytes:
            return blake2b(f"{group}\x1f{member.url}".encode(), digest_size=8).digest()

        return sorted(self.members, key=weight)
