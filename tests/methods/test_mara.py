"""MARA: a plan of agents, and responses that never lose the form of the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from personabench.methods.mara import AGENTS, Mara
from personabench.tasks.prefpair import Psoups
from personabench.testing import trial
from personabench.testing.trials import Trial
from personabench.types import Message, Request


def plan_of(*agents: str) -> str:
    return json.dumps({"plan": [{"agent": agent, "reason": f"{agent} first"} for agent in agents]})


def model(plan: str, answers: Sequence[str] = ("draft", "one", "two", "three")) -> Any:
    """A model that plans so, and answers in turn: a draft, then what each refiner writes."""

    def answer(request: Request) -> str:
        if request.schema is not None:
            return plan
        turns = [message.content for message in request.messages if message.role == "assistant"]
        previous = turns[-1] if turns else ""
        position = answers.index(previous) + 1 if previous in answers else 0
        return answers[position]

    return answer


def ask(answer: Callable[[Request], str], task: str = "lamp4", method: Mara | None = None) -> Trial:
    return trial(method or Mara(), task, limit=1, answer=answer, concurrency=1)


def contents(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_plan_lengths_0_to_3_give_2_to_5_calls(length: int) -> None:
    result = ask(model(plan_of(*AGENTS[:length])))
    assert len(result.requests) == (2 + length) * len(result.predictions)
    (line, *_) = result.predictions
    assert line.error is None
    assert line.output == ("draft", "one", "two", "three")[length]
    assert line.flags["plan_steps"] == length


def test_agents_work_in_the_order_of_the_plan_with_its_reasons() -> None:
    _, _, first, second = ask(model(plan_of("coherence", "persona"))).requests[:4]
    assert "coherence first" in first.messages[-1].content
    assert first.messages[-2].content == "draft"
    assert "persona first" in second.messages[-1].content
    assert second.messages[-2].content == "one"


def test_unknown_and_repeated_agents_are_dropped_and_counted() -> None:
    result = ask(model(plan_of("style", "persona", "persona", "empathy")))
    (line, *_) = result.predictions
    assert line.output == "one"
    assert (line.flags["plan_unknown_agent"], line.flags["plan_repeated_agent"]) == (2, 1)
    assert ask(model(plan_of("style"))).predictions[0].output == "draft"


@pytest.mark.parametrize("reply", ["First the facts.", '{"plan": "fact"}', '{"plan": [1, 2]}'])
def test_a_bad_plan_is_requested_again_and_then_runs_all_agents_or_none(reply: str) -> None:
    (line, *_) = ask(model(reply)).predictions
    assert line.output == "three"
    assert (line.flags["plan_unparsed"], line.flags["bad_plan"]) == (2, 1)
    kept = ask(model(reply), method=Mara(Mara.Params(bad_plan="draft")))
    assert kept.predictions[0].output == "draft"


@pytest.mark.parametrize(
    "text", ["", "Here is the refined headline:", "The draft already fits.", "No changes needed."]
)
def test_an_empty_reply_or_one_about_the_response_keeps_the_previous_one(text: str) -> None:
    (line, *_) = ask(model(plan_of("persona"), ("draft", text))).predictions
    assert line.output == "draft" and line.flags["refinement_empty"] == 1


def test_a_label_survives_refinement() -> None:
    """LaMP-2's output is still a valid tag if a refiner answers with prose."""
    prose = "This film might please many people, I would say"
    (line, *_) = ask(model(plan_of(*AGENTS), ("comedy", prose)), "lamp2m").predictions
    assert line.output == "comedy"
    assert line.flags["refinement_unreadable"] == 3
    (line, *_) = ask(model(plan_of("fact"), ("comedy", "romance")), "lamp2m").predictions
    assert line.output == "romance"


def test_each_agent_sees_its_own_material() -> None:
    method = Mara(Mara.Params(k=2, recent=1))
    requests = ask(model(plan_of(*AGENTS)), method=method).requests
    draft, _, fact, persona, coherence = requests[:5]
    assert contents(draft) in contents(persona)
    assert contents(draft) not in contents(fact)
    assert len(contents(fact)) < len(contents(coherence)) < len(contents(persona))
    # The form of the answer is in every request of a refiner.
    for request in (fact, persona, coherence):
        assert "nothing else" in request.messages[-1].content


def test_a_user_without_history_gets_an_answer() -> None:
    result = trial(Mara(), "lamp4", limit=1, answer=model(plan_of("persona")), history="none")
    assert all(line.error is None for line in result.predictions)
    assert result.predictions[0].flags["empty_profile"] == 1


@pytest.mark.parametrize("task", ["prefeval", "personamem", "reviews", "lamp3"])
def test_it_runs_on_other_tasks(task: str) -> None:
    assert all(line.error is None for line in trial(Mara(), task, limit=1).predictions)


def choose(draft: str, refined: str) -> Any:
    """A model whose plan is the agent for the persona, and whose responses are these."""

    def answer(request: Request) -> str:
        if request.schema is not None:
            return plan_of("persona")
        return refined if request.messages[-2:-1] == (Message("assistant", draft),) else draft

    return answer


def test_a_choice_is_refined_with_its_reasons() -> None:
    """Multiple choice: planner and agents see the rationale, and the answer is the choice alone."""
    draft = "They like long walks.\nAnswer: A"
    result = ask(choose(draft, "They wrote that they hate walks.\nAnswer: B"), "psoups")
    (line, *_) = result.predictions
    sample = Psoups().open("all", None).load(0)
    assert line.output == "B" and line.parsed in sample.choices
    first, plan, persona = result.requests[:3]
    assert draft in contents(plan)
    assert persona.messages[-2].content == draft
    for request in (first, persona):
        assert 'write "Answer:" on a new line' in contents(request)
        assert "with its letter and nothing else" not in contents(request)
    assert 'the reasons, and on a new line "Answer:" with' in persona.messages[-1].content
    assert first.max_tokens == Psoups.max_tokens + 128


@pytest.mark.parametrize(
    ("refined", "output", "flag"),
    [
        ("They hate walks.\nAnswer: neither", "A", "refinement_unreadable"),
        ("B", "B", "rationale_missing"),
    ],
)
def test_a_refined_choice_that_cannot_be_read_keeps_the_previous_one(
    refined: str, output: str, flag: str
) -> None:
    (line, *_) = ask(choose("They walk.\nAnswer: A", refined), "psoups").predictions
    assert line.output == output
    assert line.flags[flag] == 1


def test_the_choice_alone_is_refined_if_the_reasons_have_no_tokens() -> None:
    method = Mara(Mara.Params(rationale_max_tokens=0))
    result = ask(choose("A", "B"), "psoups", method)
    assert result.predictions[0].output == "B"
    assert not any("Answer:" in contents(request) for request in result.requests)
