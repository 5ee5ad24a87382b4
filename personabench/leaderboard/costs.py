"""Costs of a row: offline per user, online per query, and both over q queries per user.

Offline is everything a method does before it sees a question (`prepare`, whose cost all users
share, and `profile`); online is `predict` and `update`. Judging and simulating belong to the
benchmark, not to the method. A call answered from the cache counts at its original cost, so that
costs do not depend on what ran before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from personabench.leaderboard.rows import Entry
from personabench.results.summary import Number, Phase

OFFLINE = ("prepare", "profile")
ONLINE = ("predict", "update")
Prices = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Costs:
    """Costs of an entry, averaged over its seeds; the fields are columns of the leaderboard.

    Offline amounts are per user and online amounts per query; None without users or samples.
    Prices are None for models without one.
    """

    calls: Number
    cached: Number
    input_tokens: Number
    output_tokens: Number
    cached_share: float | None
    offline_calls: float | None
    offline_input_tokens: float | None
    offline_output_tokens: float | None
    offline_seconds: float | None
    online_calls: float | None
    online_input_tokens: float | None
    online_output_tokens: float | None
    online_seconds: float | None
    queries_per_user: float | None
    offline_price: float | None
    online_price: float | None
    query_tokens: float | None
    query_price: float | None

    @property
    def offline_tokens(self) -> float | None:
        """Tokens per user before any question."""
        return _add(self.offline_input_tokens, self.offline_output_tokens)

    @property
    def online_tokens(self) -> float | None:
        """Tokens per query."""
        return _add(self.online_input_tokens, self.online_output_tokens)


@dataclass(frozen=True)
class _Amounts:
    calls: float
    cached: float
    input_tokens: float
    output_tokens: float
    seconds: float

    def per(self, units: int) -> _Amounts | None:
        if not units:
            return None
        return _Amounts(
            calls=self.calls / units,
            cached=self.cached / units,
            input_tokens=self.input_tokens / units,
            output_tokens=self.output_tokens / units,
            seconds=self.seconds / units,
        )


def costs(entry: Entry, prices: Prices, queries: float | None) -> Costs:
    """Compute an entry's costs.

    Args:
        prices: `{"MODEL": {"input": .., "output": ..}}`, money per million tokens.
        queries: queries per user over which offline cost is spread; None: as many as the run has.
    """
    summary = entry.summary
    total = _mean_over_seeds(entry)
    offline = _mean_over_seeds(entry, OFFLINE).per(summary.users)
    online = _mean_over_seeds(entry, ONLINE).per(summary.n)

    if queries is None and summary.users:
        queries = summary.n / summary.users
    price = prices.get(summary.model)
    offline_price = _price(offline, price)
    online_price = _price(online, price)

    return Costs(
        calls=_round(total.calls),
        cached=_round(total.cached),
        input_tokens=_round(total.input_tokens),
        output_tokens=_round(total.output_tokens),
        cached_share=_round(total.cached) / _round(total.calls) if total.calls else None,
        offline_calls=offline.calls if offline else None,
        offline_input_tokens=offline.input_tokens if offline else None,
        offline_output_tokens=offline.output_tokens if offline else None,
        offline_seconds=offline.seconds if offline else None,
        online_calls=online.calls if online else None,
        online_input_tokens=online.input_tokens if online else None,
        online_output_tokens=online.output_tokens if online else None,
        online_seconds=online.seconds if online else None,
        queries_per_user=queries,
        offline_price=offline_price,
        online_price=online_price,
        query_tokens=_amortize(_tokens(offline), _tokens(online), queries),
        query_price=_amortize(offline_price, online_price, queries),
    )


def _mean_over_seeds(entry: Entry, phases: Sequence[str] | None = None) -> _Amounts:
    usage = [
        phase
        for run in entry.runs
        for name, phase in run.summary.usage.items()
        if phases is None or name in phases
    ]
    return _sum_phases(usage, len(entry.runs))


def _sum_phases(usage: Iterable[Phase], runs: int) -> _Amounts:
    usage = list(usage)
    return _Amounts(
        calls=sum(phase.calls for phase in usage) / runs,
        cached=sum(phase.cached for phase in usage) / runs,
        input_tokens=sum(phase.input_tokens for phase in usage) / runs,
        output_tokens=sum(phase.output_tokens for phase in usage) / runs,
        seconds=sum(phase.seconds for phase in usage) / runs,
    )


def _price(amounts: _Amounts | None, price: Mapping[str, float] | None) -> float | None:
    if amounts is None or price is None:
        return None
    money = amounts.input_tokens * price["input"] + amounts.output_tokens * price["output"]
    return float(money) / 1_000_000


def _tokens(amounts: _Amounts | None) -> float | None:
    return None if amounts is None else amounts.input_tokens + amounts.output_tokens


def _amortize(offline: float | None, online: float | None, queries: float | None) -> float | None:
    """Spread the offline cost over a user's queries, and add the online cost of one."""
    if offline is None or online is None or not queries:
        return None
    return offline / queries + online


def _add(first: float | None, second: float | None) -> float | None:
    if first is None or second is None:
        return None
    return float(first + second)


def _round(amount: float) -> Number:
    return int(amount) if float(amount).is_integer() else round(amount, 2)
