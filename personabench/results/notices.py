"""Warnings about a run's counters that readers of its scores need to see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from personabench.results.summary import Summary

# Prefixes of the counters of a run and of its roles.
ROLES = ("", "simulator_", "judge_")

NOTICES = {
    "refused": (
        "replies were withheld or broken off by a content filter, or refused by the model; they "
        "are not stored, and scored as they came or, with --refusals empty, as empty answers"
    ),
    "prompt_truncated": (
        "prompts were read only in part, going by the server's own counts of their tokens, which "
        "are far below what was sent: raise the server's window (num_ctx or OLLAMA_CONTEXT_LENGTH "
        "for Ollama) and repeat with --cache refresh, or give it with --context-length N, to which "
        "prompts are then fitted"
    ),
    "usage_missing": (
        "replies came without a credible count of their tokens: tables leave their tokens out, and "
        "the cost (--max-cost too) takes the most they could cost"
    ),
    "answer_in_reasoning": (
        "answers were in the field for thoughts and were read from there; see the server's "
        "reasoning parser"
    ),
    "bm25_no_match": (
        "searches by BM25 share no word with any record, so the last records of the history came "
        "first"
    ),
    "no_donor": (
        "samples of --history shuffled got no records: no other user has any that are early enough "
        "and none in common with this user, so these samples are no control"
    ),
    "model_changes": (
        "calls were answered by another version, system or provider of the model than most calls "
        "of their run, so its scores are of no single model; `personabench show RUN` counts them"
    ),
    "unjudged": (
        "answers are unjudged: no reply of the judge held a score that can be read, or the judge "
        "was not reached; the log in the run folder's attempts has the last replies. To ask again "
        "about all answers of a run, delete its judgements/*.jsonl and repeat the command: replies "
        "that were read come from the cache"
    ),
    "interrupted": "samples failed because the server broke its replies off",
}
TRUNCATED = "replies were truncated at their token limit"
EMPTY = "answers are empty"
THINKING = (
    "a model that thinks first may have used up the limit; --reasoning LEVEL adds room for its "
    "thoughts, or switches them off, and --max-tokens N gives answers more"
)


def collect_notices(summaries: Iterable[Summary]) -> list[str]:
    """Write a sentence for each noteworthy counter of some runs, with its total."""
    totals: Counter[str] = Counter()
    for summary in summaries:
        totals.update(summary.counters)

    sentences = _describe_length(totals["truncated"], totals["empty_output"])
    for name, text in NOTICES.items():
        amount = sum(totals[role + name] for role in ROLES)
        if amount:
            sentences.append(f"{amount:g} {text}")
    return sentences


def _describe_length(truncated: float, empty: float) -> list[str]:
    # Both together mean that thoughts were truncated before any answer.
    if truncated and empty:
        return [f"{truncated:g} {TRUNCATED} and {empty:g} {EMPTY}: {THINKING}"]
    if truncated:
        return [f"{truncated:g} {TRUNCATED}; --max-tokens N gives answers more"]
    if empty:
        return [f"{empty:g} {EMPTY}"]
    return []
