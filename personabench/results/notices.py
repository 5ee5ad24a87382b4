"""What a run's counters say that whoever reads its scores must know, in words."""

from __future__ import annotations

from collections.abc import Iterable

from personabench.results.summary import Summary

ROLES = ("", "simulator_", "judge_")
NOTICES = {
    "refused": "replies were withheld or broken off by a content filter, or refused by the model; they are scored as "
    "they came and not stored",
    "prompt_truncated": "prompts were read only in part, going by the server's own counts of their tokens, which are "
    "far below what was sent: raise the server's window (num_ctx or OLLAMA_CONTEXT_LENGTH for Ollama) and repeat with "
    "--cache refresh, or say what it is with --context-length N, to which prompts are then fitted",
    "usage_missing": "replies came without a credible count of their tokens: tables leave their tokens out, and what "
    "was spent (--max-cost too) takes the most they could cost",
    "answer_in_reasoning": "answers stood in the field for thoughts and were read from there; see the server's "
    "reasoning parser",
    "interrupted": "samples failed since the server broke its replies off",
}
CUT = "replies were cut at their allowance"
EMPTY = "answers are empty"
THOUGHT = (
    "a model that thinks first may have used the allowance up; --max-tokens N gives answers more"
)


def notices(summaries: Iterable[Summary]) -> list[str]:
    """A sentence for each of these things that happened in any of the runs, with how often."""
    totals: dict[str, float] = {}
    for summary in summaries:
        for name, amount in summary.counters.items():
            totals[name] = totals.get(name, 0) + amount
    said = []
    cut, empty = totals.get("truncated", 0), totals.get("empty_output", 0)
    if cut and empty:
        said.append(f"{cut:g} {CUT} and {empty:g} {EMPTY}: {THOUGHT}")
    elif cut or empty:
        said.append(
            f"{cut:g} {CUT}; --max-tokens N gives answers more" if cut else f"{empty:g} {EMPTY}"
        )
    for name, words in NOTICES.items():
        if amount := sum(totals.get(role + name, 0) for role in ROLES):
            said.append(f"{amount:g} {words}")
    return said
