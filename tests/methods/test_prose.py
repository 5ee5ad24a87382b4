"""PROSE: candidates that are refined towards the user's texts, and components that are checked."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from personabench.api import registry
from personabench.api.users import open_split
from personabench.hashing import digest
from personabench.methods.prose import Prose, read_verdict
from personabench.models.backends.scripted import Scripted, letters, reply
from personabench.run import runner
from personabench.testing import trial
from personabench.testing.trials import Trial
from personabench.types import Request, Sample

STAGES = {
    "coalesce": "Join those that mean the same",
    "candidate": "by these preferences, and nothing else",
    "infer": "Preferences so far",
    "break_down": "Write these preferences as JSON",
    "verify": "Does the text confirm",
    "neutral": "without its style",
}


def stage(request: Request) -> str:
    text = request.messages[-1].content
    return next((name for name, mark in STAGES.items() if mark in text), "answer")


def name_of(text: str) -> str:
    """A word for a request: equal requests are paid once."""
    return letters(digest(text))


def model(**replies: str | Callable[[str], str]) -> Callable[[Request], str]:
    """A model with a reply for each stage, fixed or made of the request."""
    fixed: dict[str, Any] = {
        "coalesce": "Be short.",
        "candidate": "never equal",
        "infer": lambda text: f"Be short. Use {name_of(text)}.",
        "break_down": '["Be short.", "Use dashes."]',
        "verify": "strongly confirms",
        "neutral": "a plain rewrite",
        "answer": "an answer",
        **replies,
    }

    def answer(request: Request) -> str:
        reply = fixed[stage(request)]
        return reply(request.messages[-1].content) if callable(reply) else reply

    return answer


class Few:
    """Example data with few records, some of their fields replaced."""

    def __init__(self, inner: Any, count: int, **changes: Any) -> None:
        self.inner, self.count, self.changes = inner, count, changes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def load(self, position: int) -> Sample:
        sample = self.inner.load(position)
        records = [
            msgspec.structs.replace(record, **self.changes)
            for record in sample.history[: self.count]
        ]
        return msgspec.structs.replace(sample, history=tuple(records))


def ask(
    answer: Callable[[Request], str], count: int = 1, changes: Mapping[str, Any] = {}, **params: Any
) -> Trial:
    """Ask the first user's questions, with that many records."""
    task = registry.load_class("task", "lamp4")()
    dataset: Any = Few(open_split(task, task.default_split, None), count, **changes)
    method = Prose(Prose.Params(**params))
    return trial(method, task, limit=1, answer=answer, dataset=dataset, concurrency=1)


def count_stages(result: Trial) -> Counter[str]:
    return Counter(stage(request) for request in result.requests)


def learnt(result: Trial) -> list[list[str]]:
    state: Any = result.profiles[0].state
    return [row["components"] for row in state["demonstrations"]]


def test_three_steps_of_unequal_texts_are_3_infer_3_candidate_and_1_break_down_calls() -> None:
    counts = count_stages(ask(model(), steps=3, verify=False))
    assert (counts["infer"], counts["candidate"], counts["break_down"]) == (3, 3, 1)


def test_an_equal_first_candidate_needs_no_infer_call() -> None:
    result = ask(model(candidate="The  very words"), changes={"response": "The very words"})
    counts = count_stages(result)
    assert (counts["candidate"], counts["infer"], counts["break_down"]) == (1, 0, 0)
    assert learnt(result) == [[]]


@pytest.mark.parametrize(("threshold", "kept"), [(1.0, []), (0.99, ["Be short.", "Use dashes."])])
def test_a_component_at_the_threshold_is_dropped(threshold: float, kept: list[str]) -> None:
    result = ask(model(verify="somewhat confirms"), threshold=threshold)
    assert learnt(result) == [kept]


def test_no_prompt_and_no_state_holds_the_name_of_the_source() -> None:
    source = {"source": "SECRET-SOURCE"}
    result = ask(model(), count=3, changes={"fields": source, "item": "SECRET-SOURCE"})
    texts = [message.content for request in result.requests for message in request.messages]
    texts.append(json.dumps([profile.state for profile in result.profiles]))
    assert not any("SECRET-SOURCE" in text for text in texts)


def test_similar_texts_share_their_preferences() -> None:
    result = ask(model(break_down=lambda text: f'["Use {name_of(text)}."]'), 2, verify=False)
    second = [request for request in result.requests if stage(request) == "candidate"][3]
    assert "Preferences of the author:\nBe short." in second.messages[-1].content
    # Once for the second record, whose own preferences join those for the questions.
    ((first,), (other,)) = learnt(result)
    joined = [one.messages[-1].content for one in result.requests if stage(one) == "coalesce"]
    assert len(joined) == 2
    assert first in joined[0] and other not in joined[0]
    assert first in joined[1] and other in joined[1]
    assert "Be short." in result.requests[-1].messages[0].content


def test_a_check_ends_when_the_verdict_is_clear() -> None:
    own: dict[str, Any] = {"break_down": lambda text: f'["Use {name_of(text)}."]'}
    clear = count_stages(ask(model(**own), count=4, k=3))
    mixed = count_stages(ask(model(**own, verify="somewhat confirms"), count=4, k=3))
    # There are 1, 2, 3 and 4 texts for a component; two are enough if both confirm strongly.
    assert (clear["verify"], mixed["verify"]) == (1 + 2 + 2 + 2, 1 + 2 + 3 + 4)


def test_a_reply_without_a_verdict_is_requested_again_and_never_scored() -> None:
    result = ask(model(verify="Perhaps."))
    assert learnt(result) == [[]]
    flags = result.profiles[0].flags
    assert (flags["verdict_unparsed"], flags["component_unverified"]) == (4, 2)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("strongly confirms", 2),
        ("**Somewhat confirms.**", 1),
        ("It is neutral.", 0),
        ("somewhat contradicts", -1),
        ("Strongly contradicts", -2),
        ("confirms", None),
        ("neutral or somewhat confirms", None),
        ("", None),
    ],
)
def test_verdicts_are_read(reply: str, verdict: int | None) -> None:
    assert read_verdict(reply) == verdict


def test_a_list_needs_no_break_down_and_prose_falls_back_to_lines() -> None:
    listed = ask(model(infer='["Be short."]'), verify=False)
    assert count_stages(listed)["break_down"] == 0 and learnt(listed) == [["Be short."]]
    texts = ask(model(infer='{"preferences": [{"text": "Be short."}]}'), verify=False)
    assert count_stages(texts)["break_down"] == 0 and learnt(texts) == [["Be short."]]
    lines = ask(model(infer="- Be short.\n2. Use dashes.", break_down="No."), verify=False)
    assert learnt(lines) == [["Be short.", "Use dashes."]]
    assert lines.profiles[0].flags["break_down_unparsed"] == 2


def test_a_record_gives_no_more_parts_than_allowed() -> None:
    listed = json.dumps([f"Preference {number}." for number in range(30)])
    result = ask(model(break_down=listed), count=3, parts=4, verify=False)
    assert [len(components) for components in learnt(result)] == [4, 4, 4]


def test_a_text_without_a_task_gets_a_neutral_rewrite() -> None:
    result = ask(model(), changes={"stimulus": None}, verify=False)
    (first,) = [request for request in result.requests if stage(request) == "neutral"]
    assert first is result.requests[0]
    state: Any = result.profiles[0].state
    assert state["demonstrations"][0]["content"] == "a plain rewrite"


def test_ablations_and_the_distance_of_the_last_candidate() -> None:
    counts = count_stages(ask(model(), steps=0, verify=False))
    assert (counts["candidate"], counts["infer"]) == (0, 1)
    state: Any = ask(model(), changes={"response": "never equals"}).profiles[0].state
    assert state["distance"] == 0.5
    both_empty: Any = ask(model(candidate=""), changes={"response": ""}).profiles[0].state
    assert both_empty["distance"] == 0.0


def test_icl_shows_the_similar_records() -> None:
    shown = {}
    for icl in (False, True):
        result = ask(model(), count=2, icl=icl)
        shown[icl] = "\n".join(message.content for message in result.requests[-1].messages)
        inferred = [one.messages[-1].content for one in result.requests if stage(one) == "infer"]
        written = {re.findall("The author wrote: (.*)", text)[0] for text in inferred}
        assert len(written) == 2
        assert [text in shown[icl] for text in written] == [icl, icl]


def test_an_empty_history_is_a_plain_request() -> None:
    result = trial("prose", "lamp4", limit=1, history="none", concurrency=1)
    bare = trial("none", "lamp4", limit=1, history="none", concurrency=1)
    assert [one.messages for one in result.requests] == [one.messages for one in bare.requests]
    assert result.predictions[0].flags["empty_profile"] == 1


def test_a_record_of_the_same_task_is_left_out() -> None:
    first = ask(model()).predictions[0].sample_id
    task = registry.load_class("task", "lamp4")()
    samples = open_split(task, task.default_split, None).samples()
    stimulus = next(one.stimulus for one in samples if one.id == first)
    lines = ask(model(), changes={"stimulus": stimulus}).predictions
    assert [line.flags.get("empty_profile", 0) for line in lines] == [
        line.sample_id == first for line in lines
    ]


@pytest.mark.parametrize("name", ["prose", "mara", "rag_select", "rag+self_recheck"])
def test_a_second_run_makes_no_call_and_the_books_add_up(tmp_path: Path, name: str) -> None:
    made = []
    for _ in range(2):
        backend = Scripted(answer=reply)
        options = runner.Options(
            [name], ["lamp4"], limit=1, backend="scripted", results=tmp_path, cache="use"
        )
        (outcome,) = asyncio.run(runner.run(options, backend=backend))
        made.append(len(backend.requests))
        # Another run folder, so that only the stored replies are shared.
        (tmp_path / "runs").rename(tmp_path / f"runs{len(made)}")
    assert made[0] > 0 and made[1] == 0
    calls = sum(phase.calls for phase in outcome.summary.usage.values())
    assert calls >= made[0]


def test_labels_are_refused_and_parameters_checked() -> None:
    for wrong in ({"records": 0}, {"k": 0}, {"steps": -1}, {"parts": 0}):
        with pytest.raises(ValueError, match="must be at least"):
            Prose.Params(**wrong)
