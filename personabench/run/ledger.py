"""The books of a run: calls, tokens and model seconds by phase.

A run pays for a request once and then has its reply, so a call is booked where it first appears:
artifacts offline, whichever sample needed them first.  A reply that another sample uses again is
counted as repeated; without a cache it is paid, and booked, again.  The books are made from the
files of a run, not while it runs, so that they do not depend on interrupts, concurrency or what
earlier runs have paid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from personabench.results.summary import Phase
from personabench.types import Call

AS_REQUESTED = "(as requested)"
"""In the counts of who answered, a server that names nothing but the requested model."""
ROLE_PHASES = ("simulate", "judge")
"""Phases whose calls go to a role of the task, not to the method's models."""


class _Account:
    """The calls of one phase by one model."""

    def __init__(self) -> None:
        self.calls = 0
        self.cached = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.reasoning_tokens = 0
        self.seconds = 0.0
        self.served: Counter[str] = Counter()
        self.max_tokens: set[int] = set()
        self.repeated = 0
        self.repeated_input_tokens = 0
        self.repeated_output_tokens = 0

    def book(self, call: Call) -> None:
        self.calls += 1
        self.cached += call.cached
        self.input_tokens += call.input_tokens
        self.output_tokens += call.output_tokens
        self.reasoning_tokens += call.reasoning_tokens or 0
        self.served[call.served or AS_REQUESTED] += 1
        if call.max_tokens is not msgspec.UNSET:
            self.max_tokens.add(call.max_tokens)
        # Rounded after each call, so that a run scored again gives the same sum to the digit.
        self.seconds = round(self.seconds + call.seconds, 4)

    def repeat(self, call: Call) -> None:
        self.repeated += 1
        self.repeated_input_tokens += call.input_tokens
        self.repeated_output_tokens += call.output_tokens

    def usage(self) -> Phase:
        served: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
        if set(self.served) != {AS_REQUESTED}:
            served = dict(sorted(self.served.items()))
        return Phase(
            calls=self.calls,
            cached=self.cached,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            seconds=self.seconds,
            served=served,
            reasoning_tokens=self.reasoning_tokens or msgspec.UNSET,
            max_tokens=sorted(self.max_tokens) or msgspec.UNSET,
            repeated=self.repeated,
            repeated_input_tokens=self.repeated_input_tokens,
            repeated_output_tokens=self.repeated_output_tokens,
        )


class Ledger:
    """The books of one run; a call from the cache counts at the cost of the call that filled it."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, bool], _Account] = {}
        self._booked: set[int] = set()
        # Calls that an earlier run seems to have paid, unless this one's payment comes later.
        self._unpaid: dict[int, _Account] = {}

    def add(self, calls: Iterable[Call]) -> None:
        """Add the calls of one unit of work: a sample, a profile or a judgement."""
        used: set[int] = set()
        for call in calls:
            # Whole keys of millions of calls would fill the memory.
            key = hash(call.key)
            purpose = call.phase, bool(call.profiler)
            account = self._accounts.get(purpose)
            if account is None:
                account = self._accounts[purpose] = _Account()
            if key not in self._booked:
                self._booked.add(key)
                account.book(call)
                if call.cached:
                    self._unpaid[key] = account
            elif call.cached or key in self._unpaid:
                if not call.cached:
                    self._unpaid.pop(key).cached -= 1
                if key not in used:
                    account.repeat(call)
            else:
                # Paid a second time, as without a cache.
                account.book(call)
            used.add(key)

    def usage(self) -> dict[str, Phase]:
        """Usage by phase, without the profiler's."""
        return self._usage(is_profiler=False)

    def profiler_usage(self) -> dict[str, Phase]:
        """Usage of the profiler by phase; empty without one."""
        return self._usage(is_profiler=True)

    def _usage(self, *, is_profiler: bool) -> dict[str, Phase]:
        return {
            phase: account.usage()
            for (phase, by_profiler), account in self._accounts.items()
            if by_profiler == is_profiler
        }

    def count_changes(self) -> int:
        """Count the calls of the model under test that another server model answered than most."""
        served: Counter[str] = Counter()
        for (phase, by_profiler), account in self._accounts.items():
            if phase not in ROLE_PHASES and not by_profiler:
                served.update(account.served)
        most = max(served.values(), default=0)
        return served.total() - most
