"""What a row cost: offline once per user, online for every query, and both together over q queries per user.

Offline is what a method does before it sees a question (`prepare`, whose cost all users share, and `profile`); online
is `predict` and `update`.  Judging and simulating belong to the benchmark, not to the method.  A call answered from
the cache counts at what it cost when it was made, so that costs do not depend on what ran before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from personabench.leaderboard.rows import Entry

OFFLINE = ("prepare", "profile")
ONLINE = ("predict", "update")
COUNTS = ("calls", "cached", "input_tokens", "output_tokens")
Prices = Mapping[str, Mapping[str, float]]


def costs(entry: Entry, prices: Prices, queries: float | None) -> dict[str, Any]:
    """An entry's costs by row key, a mean over its seeds.

    Args:
        prices: `{"MODEL": {"input": .., "output": ..}}`, money per million tokens.
        queries: queries per user over which offline cost is spread; None: as many as the run has.
    """
    runs, first = entry.runs, entry.first

    def spent(name: str, phases: Sequence[str] | None = None) -> float:
        usage = [item for run in runs for item in run["usage"].items()]
        total: float = sum(phase[name] for key, phase in usage if phases is None or key in phases)
        return total / len(runs)

    row: dict[str, Any] = {name: _tidy(spent(name)) for name in COUNTS}
    row["cached_share"] = row["cached"] / row["calls"] if row["calls"] else None
    users, n = first["users"], first["n"]
    spread = queries or (n / users if users else None)
    for side, phases, over in (("offline", OFFLINE, users), ("online", ONLINE, n)):
        for name in ("calls", "input_tokens", "output_tokens", "seconds"):
            row[f"{side}_{name}"] = spent(name, phases) / over if over else None
    row["queries_per_user"] = spread
    price = prices.get(first["model"])

    def money(side: str) -> float | None:
        given, made = row[f"{side}_input_tokens"], row[f"{side}_output_tokens"]
        if price is None or given is None:
            return None
        return float(given * price["input"] + made * price["output"]) / 1_000_000

    row["offline_price"], row["online_price"] = money("offline"), money("online")
    for name, offline, online in (
        ("query_tokens", per_unit(row, "offline"), per_unit(row, "online")),
        ("query_price", row["offline_price"], row["online_price"]),
    ):
        row[name] = (
            None if offline is None or online is None or not spread else offline / spread + online
        )
    return row


def frontier(rows: Sequence[Mapping[str, Any]], primary: str, higher: bool) -> list[bool | None]:
    """For each row, whether no other of its setting is at least as good for at most its cost, and better in one.

    Scores are those on the samples that the rows share, where these are known; cost is the price per query where all
    rows of the setting have one, else tokens per query.  None without either.
    """
    common = f"{primary}/common"
    scores = [row.get(common, row.get(primary)) for row in rows]
    sign = 1 if higher else -1
    found: list[bool | None] = []
    pairs = list(zip(rows, scores, strict=True))
    for row, own in pairs:
        peers = [(other, value) for other, value in pairs if other["setting"] == row["setting"]]
        unit = (
            "query_price"
            if all(other["query_price"] is not None for other, _ in peers)
            else "query_tokens"
        )
        points = [
            (sign * value, other[unit])
            for other, value in peers
            if value is not None and other[unit] is not None
        ]
        if own is None or row[unit] is None:
            found.append(None)
            continue
        mine = (sign * own, row[unit])
        found.append(
            not any(
                score >= mine[0] and cost <= mine[1] and (score, cost) != mine
                for score, cost in points
            )
        )
    return found


def per_unit(row: Mapping[str, Any], side: str) -> float | None:
    """Tokens of one side: "offline" per user or "online" per query; None without users or samples."""
    given, made = row[f"{side}_input_tokens"], row[f"{side}_output_tokens"]
    return None if given is None else float(given + made)


def _tidy(amount: float) -> float:
    return int(amount) if float(amount).is_integer() else round(amount, 2)
