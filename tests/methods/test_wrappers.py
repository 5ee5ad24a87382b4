"""The built-in wrappers: `+remind`, `+cot`, `+self_critic` and `+self_recheck`."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from personabench import PromptFile
from personabench.api import registry
from personabench.api.prompts import WORDINGS, Prompts
from personabench.api.wording import WordingName
from personabench.hashing import digest
from personabench.methods.wrappers.self_recheck import PROMPTS
from personabench.testing import trial
from personabench.types import Request

KEEP = "Numbers to keep:"
# The compact texts are part of the identity of runs, see test_prompt_files.py.
COMPACT = {"self_recheck": "99493e393b928d46c2e92f5abf7ad86dd7425dacc23bddf982bd25a2ecddc53e"}


def contents(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


def keeping(reply: str) -> Callable[[Request], str]:
    """A model that gives this reply to the request to choose."""
    return lambda request: reply if KEEP in contents(request) else "An answer"


# Ask again: prefeval.md 9


@pytest.mark.parametrize(
    ("name", "calls"),
    [("rag+remind", 1), ("rag+cot", 1), ("rag+self_critic", 3), ("none+self_critic", 3)],
)
@pytest.mark.parametrize("task", ["prefeval", "lamp4"])
def test_9_wrappers_cost_their_calls_on_any_task(name: str, calls: int, task: str) -> None:
    result = trial(name, task, limit=1, concurrency=1)
    assert all(line.error is None for line in result.predictions)
    assert len(result.requests) == calls * len(result.predictions)


def test_9_the_wrapper_reminds_in_the_words_of_the_method() -> None:
    wrapped = contents(trial("full+remind", "prefeval", limit=1).requests[0])
    alone = contents(trial("remind", "prefeval", limit=1).requests[0])
    sentence = "Keep in mind what the user said earlier about their preferences."
    assert wrapped.count(sentence) == alone.count(sentence) == 1
    assert wrapped.endswith(sentence)


def test_9_the_critic_reads_the_answer_and_its_revision_counts() -> None:
    def answer(request: Request) -> str:
        return f"reply {len(request.messages)}"

    result = trial("rag+self_critic", "lamp4", limit=1, answer=answer, concurrency=1)
    first, critique, revision = result.requests[:3]
    assert critique.messages[len(first.messages)].content == f"reply {len(first.messages)}"
    assert revision.messages[len(critique.messages)].content == f"reply {len(critique.messages)}"
    assert result.predictions[0].output == f"reply {len(revision.messages)}"
    assert critique.max_tokens == 150


# Self-recheck: safety.md 12


def test_12_pieces_are_dropped_by_number() -> None:
    reply = keeping('{"keep": [2]}')
    result = trial("rag+self_recheck", "lamp4", limit=1, answer=reply, concurrency=1)
    check, answer = result.requests[:2]
    pieces = re.findall(r"\[\d\] \w+: (.*)", contents(check))
    assert len(pieces) > 2
    assert [piece in contents(answer) for piece in pieces] == [
        number == 2 for number in range(1, len(pieces) + 1)
    ]
    assert result.predictions[0].flags["recheck_dropped"] == len(pieces) - 1


def test_12_unknown_numbers_are_counted() -> None:
    reply = '{"keep": [1, 99, 0, -3]}'
    (line, *_) = trial("rag+self_recheck", "lamp4", limit=1, answer=keeping(reply)).predictions
    assert line.error is None and line.flags["recheck_unknown_id"] == 3


@pytest.mark.parametrize("base", ["rag", "recency", "summary_retrieved"])
def test_12_all_dropped_is_an_answer_without_memory(base: str) -> None:
    result = trial(
        f"{base}+self_recheck", "lamp4", limit=1, answer=keeping('{"keep": []}'), concurrency=1
    )
    bare = trial("none", "lamp4", limit=1).requests[0]
    assert contents(result.requests[1]) == contents(bare)
    assert all(line.error is None for line in result.predictions)


def test_12_items_of_a_memory_are_dropped_as_well() -> None:
    def answer(request: Request) -> str:
        if request.schema is None:
            return "An answer"
        if "keep" in request.schema["properties"]:
            return '{"keep": []}'
        if "facts" in request.schema["properties"]:
            return '{"facts": [{"text": "The user keeps a tortoise."}]}'
        return '{"events": [{"event": "ADD", "text": "The user keeps a tortoise."}]}'

    plain = trial("mem0_like", "prefeval", limit=1, answer=answer, concurrency=1)
    checked = trial("mem0_like+self_recheck", "prefeval", limit=1, answer=answer, concurrency=1)
    assert "tortoise" in contents(plain.requests[-1])
    assert "tortoise" in contents(checked.requests[-2])
    assert "tortoise" not in contents(checked.requests[-1])
    assert checked.predictions[0].flags["memory_items"] == 0


def test_12_what_is_dropped_does_not_leak_into_the_context() -> None:
    def parrot(reply: str) -> Callable[[Request], str]:
        return lambda request: reply if KEEP in contents(request) else contents(request)

    leaks = {}
    for name, reply in (
        ("rag", ""),
        ("rag+self_recheck", '{"keep": [1, 2, 3, 4, 5, 6, 7, 8]}'),
        ("rag+self_recheck", '{"keep": []}'),
    ):
        summary = trial(name, "restraint", limit=8, answer=parrot(reply)).summary
        assert summary is not None
        metrics = summary.metrics["official"]
        leaks[name, reply] = (metrics["context_leak"], metrics["leak"])
    before, unchanged, after = leaks.values()
    assert before == unchanged and min(before) > 0
    assert after == (0, 0)


@pytest.mark.parametrize("reply", ["Keep all of them.", '{"keep": "1"}', '{"keep": ["first"]}'])
def test_12_a_reply_without_numbers_is_requested_again_and_then_keeps_all(reply: str) -> None:
    result = trial("rag+self_recheck", "lamp4", limit=1, answer=keeping(reply), concurrency=1)
    flags = result.predictions[0].flags
    assert (flags["recheck_unparsed"], flags["recheck_failed"]) == (2, 1)
    plain = trial("rag", "lamp4", limit=1).requests[0]
    assert contents(result.requests[2]) == contents(plain)


def test_12_a_small_window_keeps_pieces_that_the_check_has_not_seen() -> None:
    result = trial("rag+self_recheck", "lamp4", limit=1, answer=keeping('{"keep": []}'), window=900)
    assert all(line.error is None for line in result.predictions)
    assert any("recheck_unseen" in line.flags for line in result.predictions)


# Texts


def test_compact_texts_are_those_of_the_reference_results() -> None:
    assert digest(Prompts([PROMPTS]).resolved) == COMPACT[PROMPTS.owner]


@pytest.mark.parametrize("wording", WORDINGS)
def test_both_wordings_reach_the_requests(wording: WordingName) -> None:
    result = trial("rag+self_recheck", "reviews", limit=1, wording=wording)
    texts: PromptFile = PROMPTS
    system = Prompts([texts], wording).resolved["self_recheck"]["recheck"]["system"]
    ending = system.rpartition("}")[2].strip()
    assert any(ending in contents(request) for request in result.requests)


def test_every_built_in_wrapper_has_a_paper_and_texts() -> None:
    for name in registry.list_entries("wrapper"):
        cls = registry.load_class("wrapper", name)
        assert "arXiv" in cls.paper and cls.prompts
