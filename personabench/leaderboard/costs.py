"""Costs of a row: offline per user, online per query, and both over q queries per user.

Offline is everything that a question does not determine: `prepare`, whose cost all users share,
profiles, and artifacts of records, each booked once. Online is `predict` and `update`; a query that
repeats the request of another costs as much as that one. Judging and simulating belong to the
benchmark, not to the method: their calls and tokens are amounts of their own. A call answered from
the cache counts at its original cost, so that costs do not depend on what ran before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from personabench.leaderboard.rows import METHOD_PHASES, Entry
from personabench.results.summary import Number, Phase, Summary
from personabench.run.ledger import ROLE_PHASES

OFFLINE = ("prepare", "profile")
ONLINE = ("predict", "update")
# Queries per user that share the cost of a profile, unless others are named. One number for all
# rows, since the number in a run says more about the size of its data than about any use.
QUERIES = 10.0

Prices = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Costs:
    """Costs of an entry, averaged over its seeds; the fields are columns of the leaderboard.

    Calls and tokens are those of distinct calls of the method, and apart from them those of the
    judge and the simulated user.  Offline amounts are per user and online amounts
    per query; None without users or samples.  All include the profiler, whose part is also given.
    Prices are None for models without one.  The history and the final state of a memory are per
    user, the tokens that it shows per query; None for other methods.
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
    profiler_calls: Number
    profiler_input_tokens: Number
    profiler_output_tokens: Number
    judge_calls: Number
    judge_tokens: Number
    simulator_calls: Number
    simulator_tokens: Number
    history_tokens: float | None = None
    state_items: float | None = None
    state_tokens: float | None = None
    state_bytes: float | None = None
    memory_tokens: float | None = None

    @property
    def profiler_tokens(self) -> Number:
        """Tokens of the profiler, in and out."""
        return self.profiler_input_tokens + self.profiler_output_tokens

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
    calls: float = 0.0
    cached: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    seconds: float = 0.0

    @property
    def tokens(self) -> float:
        return self.input_tokens + self.output_tokens

    def plus(self, other: _Amounts) -> _Amounts:
        return _Amounts(
            calls=self.calls + other.calls,
            cached=self.cached + other.cached,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            seconds=self.seconds + other.seconds,
        )

    def per(self, units: float) -> _Amounts:
        return _Amounts(
            calls=self.calls / units,
            cached=self.cached / units,
            input_tokens=self.input_tokens / units,
            output_tokens=self.output_tokens / units,
            seconds=self.seconds / units,
        )


_NOTHING = _Amounts()


@dataclass(frozen=True)
class _Part:
    """A part of the work of an entry, by the model under test and by the profiler."""

    model: _Amounts
    profiler: _Amounts

    @property
    def total(self) -> _Amounts:
        return self.model.plus(self.profiler)

    def per(self, units: int) -> _Part | None:
        if not units:
            return None
        return _Part(self.model.per(units), self.profiler.per(units))


def costs(entry: Entry, prices: Prices, queries: float | None) -> Costs:
    """Compute an entry's costs.

    Args:
        prices: `{"MODEL": {"input": .., "output": ..}}`, money per million tokens.
        queries: queries per user over which offline cost is spread; None for `QUERIES`.
    """
    summary = entry.summary
    everything = _mean_over_seeds(entry, METHOD_PHASES)
    simulator, judge = (_mean_over_seeds(entry, (phase,)).total for phase in ROLE_PHASES)
    total = everything.total
    offline = _mean_over_seeds(entry, OFFLINE).per(summary.users)
    online = _mean_over_seeds(entry, ONLINE, repeated=True).per(summary.n)

    if queries is None:
        queries = QUERIES
    profiler = summary.roles.get("profiler")
    names = summary.model, profiler.model if profiler else ""
    offline_price = _price(offline, prices, names)
    online_price = _price(online, prices, names)

    per_user = offline.total if offline else None
    per_query = online.total if online else None
    return Costs(
        calls=_round(total.calls),
        cached=_round(total.cached),
        input_tokens=_round(total.input_tokens),
        output_tokens=_round(total.output_tokens),
        cached_share=_round(total.cached) / _round(total.calls) if total.calls else None,
        offline_calls=per_user.calls if per_user else None,
        offline_input_tokens=per_user.input_tokens if per_user else None,
        offline_output_tokens=per_user.output_tokens if per_user else None,
        offline_seconds=per_user.seconds if per_user else None,
        online_calls=per_query.calls if per_query else None,
        online_input_tokens=per_query.input_tokens if per_query else None,
        online_output_tokens=per_query.output_tokens if per_query else None,
        online_seconds=per_query.seconds if per_query else None,
        queries_per_user=queries,
        offline_price=offline_price,
        online_price=online_price,
        query_tokens=_amortize(
            per_user.tokens if per_user else None,
            per_query.tokens if per_query else None,
            queries,
        ),
        query_price=_amortize(offline_price, online_price, queries),
        profiler_calls=_round(everything.profiler.calls),
        profiler_input_tokens=_round(everything.profiler.input_tokens),
        profiler_output_tokens=_round(everything.profiler.output_tokens),
        judge_calls=_round(judge.calls),
        judge_tokens=_round(judge.tokens),
        simulator_calls=_round(simulator.calls),
        simulator_tokens=_round(simulator.tokens),
        **_measure_memory(summary),
    )


def _measure_memory(summary: Summary) -> dict[str, float]:
    """The amounts that a memory counted, per user, and those that it showed, per query."""
    amounts = {}
    for name in ("history_tokens", "state_items", "state_tokens", "state_bytes"):
        counter = name if name.startswith("history") else f"memory_{name}"
        if counter in summary.counters and summary.profiles:
            amounts[name] = summary.counters[counter] / summary.profiles
    if "memory_tokens" in summary.counters and summary.n:
        amounts["memory_tokens"] = summary.counters["memory_tokens"] / summary.n
    return amounts


def _mean_over_seeds(entry: Entry, phases: Sequence[str], *, repeated: bool = False) -> _Part:
    """Mean amounts of some phases; with `repeated`, replies used again count too."""
    model = profiler = _NOTHING
    for run in entry.runs:
        model = model.plus(_sum_phases(run.summary.usage, phases, repeated))
        profiler = profiler.plus(_sum_phases(run.summary.profiler_usage, phases, repeated))
    count = len(entry.runs)
    return _Part(model.per(count), profiler.per(count))


def _sum_phases(usage: Mapping[str, Phase], phases: Sequence[str], repeated: bool) -> _Amounts:
    total = _NOTHING
    for name, phase in usage.items():
        if name not in phases:
            continue
        total = total.plus(
            _Amounts(
                calls=phase.calls,
                cached=phase.cached,
                input_tokens=phase.input_tokens,
                output_tokens=phase.output_tokens,
                seconds=phase.seconds,
            )
        )
        if repeated:
            total = total.plus(
                _Amounts(
                    calls=phase.repeated,
                    input_tokens=phase.repeated_input_tokens,
                    output_tokens=phase.repeated_output_tokens,
                )
            )
    return total


def _price(part: _Part | None, prices: Prices, names: tuple[str, str]) -> float | None:
    """The price of a part; None if a model that worked on it has none."""
    if part is None:
        return None
    total = 0.0
    for amounts, name in zip((part.model, part.profiler), names, strict=True):
        price = prices.get(name)
        if price is not None:
            total += amounts.input_tokens * price["input"]
            total += amounts.output_tokens * price["output"]
        elif amounts.calls or name == names[0]:
            return None
    return total / 1_000_000


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
