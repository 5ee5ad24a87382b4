"""Notes on memories: ingestion by the length of the history, the state, and the shown items."""

from __future__ import annotations

from collections.abc import Sequence

from personabench.leaderboard.row import Row


def describe_memories(rows: Sequence[Row]) -> list[str]:
    """Describe ingestion, final state and context of the rows that are memories."""
    notes = []
    for row in rows:
        costs = row.costs
        if not costs.history_tokens or costs.state_tokens is None:
            continue
        per_thousand = 1000 / costs.history_tokens
        calls, tokens = costs.offline_calls or 0.0, costs.offline_tokens or 0.0
        seconds = costs.offline_seconds or 0.0
        items = "" if costs.state_items is None else f"{costs.state_items:,.0f} items, "
        notes.append(
            f"Memory of {row.label}: ingestion {calls:,.0f} calls and {tokens:,.0f} tokens per "
            f"user, by 1,000 tokens of history {calls * per_thousand:,.1f} calls, "
            f"{tokens * per_thousand:,.0f} tokens and {seconds * per_thousand:,.1f} s; at the end "
            f"{items}{costs.state_tokens:,.0f} tokens; {costs.memory_tokens or 0:,.0f} tokens "
            "shown per query."
        )
    return notes
