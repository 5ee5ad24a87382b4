"""Distribution of calls over several servers of one model.

A user's calls stay on one server, whose prefix cache then holds their history: servers are ranked
per user by rendezvous hashing (Thaler and Ravishankar 1998) and the first whose load is at most
`SLACK` times the fair share takes the call (consistent hashing with bounded loads, Mirrokni et al.
2018).  Calls that belong to no user go to the least loaded server.  A server that broke a
connection is left out until it answers again.
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
        url: its address, ending in /v1; root: the address without it.
        in_flight: calls in flight; calls: calls it answered; alive: whether it is believed to be
            up.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.root = self.url.removesuffix("/v1")
        self.in_flight = 0
        self.calls = 0
        self.alive = True


class Replicas:
    """Servers of one model.

    Args:
        members: the servers, at least one.
        healthy: whether a server answers, and still with the same model.
    """

    def __init__(
        self,
        members: Sequence[Replica],
        healthy: Callable[[Replica], Awaitable[bool]],
    ) -> None:
        self.members = members
        self._healthy = healthy
        self._probes: dict[str, asyncio.Task[None]] = {}
        # A user makes many calls, and the order of servers never changes.
        self._ranked = lru_cache(maxsize=65536)(self._rank)

    def choose(self, group: str, tried: Container[Replica] = ()) -> Replica | None:
        """Choose the server for a call of a group; None if all that are alive were tried.

        With nothing tried there is always a server: if none seems alive, the least loaded of all.
        """
        if len(self.members) == 1:
            return None if tried else self.members[0]

        alive = [member for member in self.members if member.alive and member not in tried]
        if not alive:
            return None if tried else min(self.members, key=_load)

        if group:
            # The fair share counts this call as well.
            calls = 1 + sum(map(_load, alive))
            max_load = math.ceil(SLACK * calls / len(alive))
            for member in self._ranked(group):
                if member.in_flight < max_load and member in alive:
                    return member
        return min(alive, key=_load)

    def take_out(self, member: Replica, reason: str) -> None:
        """Leave a server out until it answers again."""
        if member.alive:
            member.alive = False
            if len(self.members) > 1:
                _log.warning(
                    "%s is down (%s); its calls go to the other servers", member.url, reason
                )
        if member.url not in self._probes:
            probe = asyncio.create_task(self._probe(member), name="probe")
            self._probes[member.url] = probe

    async def aclose(self) -> None:
        """Stop probing."""
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
                _log.warning("%s is up again", member.url)
        finally:
            del self._probes[member.url]

    def _rank(self, group: str) -> list[Replica]:
        return sorted(self.members, key=lambda member: _weight(group, member))


def _load(member: Replica) -> int:
    return member.in_flight


def _weight(group: str, member: Replica) -> bytes:
    # Python's own hash differs between processes, which would move users to other servers on
    # resume.
    return blake2b(f"{group}\x1f{member.url}".encode(), digest_size=8).digest()
