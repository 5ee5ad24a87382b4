"""Methods on PersonaMem: prompts, histories beyond the context length, and leaks."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from personamem_files import cell, row, talk, write

from personabench.api import registry
from personabench.api.context import Context
from personabench.api.method import Method
from personabench.errors import BackendDown, PersonabenchError, UsageError
from personabench.methods.full import Full, PersonaOnly
from personabench.methods.rpm import Rpm
from personabench.methods.shortcuts import LongestOption, ShortestOption
from personabench.methods.summary import Summary
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.run import runner
from personabench.tasks.personamem import PersonaMem
from personabench.tasks.personamem.__main__ import main
from personabench.testing.trials import Trial, trial
from personabench.types import Request, Response, Sample, Usage

TRIAL_MODULE = importlib.import_module("personabench.testing.trials")
CANARY = "zqx-future-zqx"
RUNNING = (
    "none",
    "rag",
    "summary",
    "cipher",
    "rpm",
    "dpl",
    "full",
    "persona_only",
    "longest_option",
    "random",
    "cicl",
)


def answered(_: Request) -> str:
    return "<final_answer>(b)"


def on(
    folder: Path,
    method: Method,
    answer: Callable[[Request], str] = answered,
    params: PersonaMem.Params | None = None,
    **options: Any,
) -> Trial:
    """A method on the files in a folder."""
    task = PersonaMem(params)
    return trial(method, task, dataset=task.open("32k", folder), answer=answer, **options)


def prompts(result: Trial) -> str:
    return "\n".join(message.content for request in result.requests for message in request.messages)


@pytest.fixture
def future(tmp_path: Path) -> Path:
    """Three personas; methods must not see the first one's messages from its question on."""
    messages = talk("SUUAUA")
    for message in messages[4:]:
        message["content"] += CANARY
    peer_messages = [talk("SUAUAUA", mark) for mark in "xy"]
    rows = [
        row("q1", messages, 4),
        *(
            row(f"q{number}", turns_of_peer, 6, persona_id=str(number))
            for number, turns_of_peer in enumerate(peer_messages, 2)
        ),
    ]
    return write(tmp_path, rows, [messages, *peer_messages])


@pytest.mark.parametrize("name", RUNNING)
def test_acceptance_3_the_future_reaches_no_prompt_and_no_memory(future: Path, name: str) -> None:
    result = on(future, registry.load_class("method", name)())
    assert all(line.error is None for line in result.predictions) and len(result.predictions) == 3
    assert CANARY not in prompts(result) and CANARY not in repr(result.profiles)


@pytest.mark.parametrize("name", RUNNING)
def test_acceptance_11_gold_type_and_topic_reach_no_prompt(tmp_path: Path, name: str) -> None:
    messages = talk("SUUAUA")
    marked = row(
        "q1", messages, 6, topic="zqx-topic", question_type="zqx-type", correct_answer="(c)"
    )
    result = on(write(tmp_path, [marked], [messages]), registry.load_class("method", name)())
    assert "zqx" not in prompts(result) and '"(c)"' not in prompts(result)


class Probe(Method):
    """Looks everywhere for facts that are hidden from methods."""

    name = "probe"

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return repr((sample, vars(ctx.task), vars(ctx.task.params), vars(type(ctx.task))))


def test_acceptance_11_a_probing_method_finds_nothing(tmp_path: Path) -> None:
    messages = talk("SUUAUA")
    marked = row("q1", messages, 6, topic="zqx-topic", distance_to_ref_in_tokens=987654)
    (line,) = on(write(tmp_path, [marked], [messages]), Probe()).predictions
    assert (
        line.output
        and "U1" in line.output
        and "zqx" not in line.output
        and "987654" not in line.output
    )


def test_acceptance_12_cuts_of_a_conversation_equal_fresh_builds(tmp_path: Path) -> None:
    messages = talk("SUAUSUAU")
    early, late = row("q1", messages, 4), row("q2", messages, 8)

    def states(rows: list[dict[str, Any]], folder: str) -> dict[str, Any]:
        result = on(
            write(tmp_path / folder, rows, [messages]),
            Summary(),
            lambda r: str(hash(r.messages)),
            concurrency=1,
        )
        return {profile.key: profile.state for profile in result.profiles}

    shared = states([early, late], "both")
    assert len(shared) == 2 and shared != {}
    fresh = list(states([early], "early").values()) + list(states([late], "late").values())
    assert sorted(shared.values()) == sorted(fresh)


def test_acceptance_12_two_conversations_of_a_persona_never_mix(tmp_path: Path) -> None:
    talks = [talk("SUAUA", mark) for mark in ("left-", "right-")]
    result = on(
        write(
            tmp_path,
            [row(f"q{number}", messages, 5) for number, messages in enumerate(talks)],
            talks,
        ),
        Summary(),
    )
    for request in result.requests:
        text = repr(request.messages)
        assert ("left-" in text) != ("right-" in text)


def test_acceptance_12_dpl_peers_are_other_personas_whatever_the_limit(tmp_path: Path) -> None:
    talks = [talk("SUAUA", mark) for mark in ("own-", "twin-", "peer-")]
    rows = [
        row(f"q{number}", messages, 5, persona_id=str(number // 2))
        for number, messages in enumerate(talks)
    ]
    folder = write(tmp_path, rows, talks)
    result = on(folder, registry.load_class("method", "dpl")(), limit=1)
    sample_ids = [line.sample_id for line in result.predictions]
    text = prompts(result)
    assert ("peer-" in text) and (("own-" in text) if "q0" in sample_ids else True)
    if sample_ids == ["q0", "q1"]:
        first = next(r for r in result.requests if "peer-" in repr(r.messages))
        assert ("own-" in repr(first.messages)) != ("twin-" in repr(first.messages)), (
            "a twin is the same persona"
        )
    without_peers = on(
        write(tmp_path / "alone", rows[:2], talks[:2]), registry.load_class("method", "dpl")()
    )
    assert without_peers.summary.counters["fallback"] == 2


def test_acceptance_12_rpm_letters_need_consent() -> None:
    with pytest.raises(UsageError, match="label_history=true"):
        Rpm(Rpm.Params(chat="letters"))


def long_talk() -> list[dict[str, str]]:
    messages = talk("SUAUASUAUASUA")
    for message in messages:
        if message["role"] == "system":
            message["content"] = messages[0]["content"]
        else:
            message["content"] += " word" * 60
    return messages


def full(**params: Any) -> Full:
    return Full(Full.Params(**params))


def test_full_shows_the_conversation_as_it_was(tmp_path: Path) -> None:
    messages = talk("SUUASU")
    (request,) = on(write(tmp_path, [row("q1", messages, 6)], [messages]), full()).requests
    assert [message.role for message in request.messages] == ["user", "assistant", "user"]
    assert all(message["content"] in prompts(on(tmp_path, full())) for message in messages)


def test_acceptance_13_too_long_a_history_is_an_error_by_default(tmp_path: Path) -> None:
    messages = long_talk()
    result = on(write(tmp_path, [row("q1", messages, 13)], [messages]), full(), window=2200)
    (line,) = result.predictions
    assert not result.requests and line.error and "overflow=recent" in line.error
    assert result.summary.owed == 1 and result.summary.counters["request_errors"] == 1


@pytest.mark.parametrize("overflow", ["recent", "retrieve"])
@pytest.mark.parametrize("window", [1300, 1500, 1900, 2200])
def test_acceptance_13_shortened_histories_keep_persona_and_question(
    tmp_path: Path, overflow: str, window: int
) -> None:
    messages = long_talk()
    folder = write(tmp_path, [row("q1", messages, 13)], [messages])
    whole = on(folder, full())
    result = on(folder, full(overflow=overflow), window=window)
    (line,) = result.predictions
    assert (
        line.error is None and line.flags["over_window"] == 1 and line.flags["records_dropped"] >= 1
    )
    text = prompts(result)
    assert "persona: S0" in text and "What about q1?" in text and len(text) < len(prompts(whole))
    if overflow == "recent":
        assert line.flags["blocks_dropped"] >= 1 and "User: U1 " not in text
        assert ("User: U11" in text) is (window > 1300)


def test_recent_drops_whole_blocks_from_the_oldest(tmp_path: Path) -> None:
    messages = long_talk()
    folder = write(tmp_path, [row("q1", messages, 13)], [messages])
    for window, visible, dropped in ((2100, ["U6", "U8", "U11"], 1), (1600, ["U11"], 2)):
        result = on(folder, full(overflow="recent"), window=window)
        text = prompts(result)
        assert [
            name for name in ("U1", "U3", "U6", "U8", "U11") if f"User: {name} " in text
        ] == visible
        assert result.predictions[0].flags["blocks_dropped"] == dropped


def test_a_question_that_does_not_fit_alone_is_an_error(tmp_path: Path) -> None:
    messages = long_talk()
    (line,) = on(
        write(tmp_path, [row("q1", messages, 13)], [messages]), full(overflow="recent"), window=1100
    ).predictions
    assert line.error and "even without the history" in line.error


def test_full_reaches_no_history_that_a_control_takes_away(tmp_path: Path) -> None:
    messages = talk("SUUASU")
    result = on(write(tmp_path, [row("q1", messages, 6)], [messages]), full(), history="none")
    assert "U1" not in prompts(result) and "persona" not in prompts(result)
    assert result.predictions[0].flags["empty_profile"] == 1


def test_full_on_a_task_without_conversations_shows_all_records() -> None:
    result = trial(full(), "lamp4", limit=1)
    assert all(line.error is None for line in result.predictions)
    assert len(result.requests[0].messages) > 16


def test_persona_only_shows_the_description_and_nothing_said(tmp_path: Path) -> None:
    messages = talk("SUUASU")
    text = prompts(on(write(tmp_path, [row("q1", messages, 6)], [messages]), PersonaOnly()))
    assert "persona: S0" in text and "U1" not in text and "A3" not in text
    with pytest.raises(UsageError, match="no written description"):
        trial(PersonaOnly(), "lamp4", limit=1)


def test_shortcuts_take_the_first_of_equal_lengths_without_a_call(tmp_path: Path) -> None:
    messages = talk("SU")
    options = cell(("bb", "aaaa ", "cccc", "d "))
    folder = write(tmp_path, [row("q1", messages, 2, all_options=options)], [messages])
    for method, letter, ties in ((LongestOption(), "(b)", 1), (ShortestOption(), "(d)", None)):
        result = on(folder, method)
        assert not result.requests and result.predictions[0].output == letter
        assert result.predictions[0].flags.get("length_ties") == ties
    with pytest.raises(UsageError, match="no texts to choose from"):
        trial(LongestOption(), "lamp4", limit=1)


class Telling(Scripted):
    """A backend that reports log-probabilities: some words first, then a letter."""

    def __init__(self, distributions: list[list[tuple[str, float]]]) -> None:
        super().__init__()
        self.distributions = distributions

    async def complete(self, request: Request, group: str) -> Response:
        self.requests.append(request)
        logprobs = tuple(
            {
                "token": distribution[0][0],
                "logprob": distribution[0][1],
                "top_logprobs": [
                    {"token": token, "logprob": value} for token, value in distribution
                ],
            }
            for distribution in self.distributions
        )
        return Response("text", usage=Usage(1, 1), logprobs=logprobs if request.logprobs else ())


def decided(
    monkeypatch: pytest.MonkeyPatch, folder: Path, distributions: list[list[tuple[str, float]]]
) -> Trial:
    monkeypatch.setattr(TRIAL_MODULE, "Scripted", lambda **_: Telling(distributions))
    return on(folder, full(decide="logprobs"))


def test_logprobs_decide_where_the_model_names_a_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = talk("SU")
    folder = write(tmp_path, [row("q1", messages, 2)], [messages])
    opening = [("<final_answer>", -0.1), ("a", -3.0)]
    result = decided(
        monkeypatch, folder, [opening, [("(b", -1.2), (" c", -1.3), ("(c", -1.4), ("x", -0.2)]]
    )
    assert result.predictions[0].output == "(c)", "two tokens of one letter add up"
    assert result.requests[0].logprobs == 20
    unnamed = decided(monkeypatch, folder, [[("well", -0.1), ("d", -3.0), ("a", -4.0)]])
    assert unnamed.predictions[0].output == "(d)"
    nothing = decided(monkeypatch, folder, [[("well", -0.1)]])
    assert nothing.predictions[0].flags["no_letter_likely"] == 1


def test_logprobs_are_refused_at_once_where_there_are_none(tmp_path: Path) -> None:
    messages = talk("SU")
    with pytest.raises(UsageError, match="reports log-probabilities"):
        on(write(tmp_path, [row("q1", messages, 2)], [messages]), full(decide="logprobs"))


class Weighing(Scripted):
    """A backend that scores given replies: all tokens equally likely, by the reply's first word."""

    supports_reply_logprobs = True
    worth = {"north": -1.0, "south": -0.5, "east": -0.5, "west": -2.0}

    async def complete(self, request: Request, group: str) -> Response:
        self.requests.append(request)
        words = request.messages[-1].content.rstrip(".").split()
        worth = next(value for name, value in self.worth.items() if name in words)
        return Response(request.messages[-1].content, logprobs=({"logprob": worth},) * len(words))


def test_generative_mode_takes_the_likeliest_option_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = talk("SUA")
    options = cell(
        (
            "Try the north.",
            "Try the long south trail today.",
            "Try the east trail at dawn.",
            "Not west.",
        )
    )
    folder = write(tmp_path, [row("q1", messages, 3, all_options=options)], [messages])
    backend = Weighing()
    monkeypatch.setattr(TRIAL_MODULE, "Scripted", lambda **_: backend)
    assert on(folder, full(decide="sum")).predictions[0].output == "(a)", (
        "three words at -1 and six at -0.5 are equal: the first counts"
    )
    assert on(folder, full(decide="mean")).predictions[0].output == "(b)", "the first of equals"
    requested = backend.requests[:4]
    assert [request.messages[-1].role for request in requested] == ["assistant"] * 4
    assert (
        requested[1].messages[-1].content == "Try the long south trail today."
        and requested[0].max_tokens == 0
    )
    assert {request.messages[:-1] for request in requested} == {requested[0].messages[:-1]}
    prompt = requested[0].messages[-2].content
    assert (
        prompt.endswith("What about q1?")
        and "final_answer" not in repr(requested)
        and "north" not in prompt
    )


def test_generative_mode_is_refused_at_once_without_such_a_backend_or_options(
    tmp_path: Path,
) -> None:
    messages = talk("SU")
    with pytest.raises(UsageError, match="this backend does not report the likelihood of"):
        on(write(tmp_path, [row("q1", messages, 2)], [messages]), full(decide="sum"))
    with pytest.raises(UsageError, match="no texts to choose from"):
        trial(full(decide="mean"), "lamp4", limit=1)


def ran(results: Path, backend: Scripted, **changes: Any) -> runner.Outcome:
    options = {
        "limit": None,
        "backend": "scripted",
        "results": results,
        "backend_options": BackendOptions(),
        **changes,
    }
    (outcome,) = asyncio.run(
        runner.run(runner.Options(["full"], ["personamem"], **options), backend=backend)
    )
    return outcome


def test_acceptance_14_resume_repeats_nothing(tmp_path: Path) -> None:
    class Breaking(Scripted):
        async def complete(self, request: Request, group: str) -> Response:
            if len(self.requests) == 20:
                raise BackendDown("gone")
            return await super().complete(request, group)

    broken = Breaking(answer=answered)
    with pytest.raises(PersonabenchError):
        ran(tmp_path, broken)
    second = Scripted(answer=answered)
    outcome = ran(tmp_path, second)
    assert outcome.summary.n == 76
    requested = [repr(request.messages) for request in [*broken.requests, *second.requests]]
    assert len(requested) == len(set(requested)) == 76
    third = Scripted(answer=answered)
    assert ran(tmp_path, third).summary.metrics == outcome.summary.metrics and not third.requests


def test_acceptance_15_a_run_carries_its_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = ran(
        tmp_path, Scripted(answer=answered), assignments=["task.mapping=paper", "task.shuffle=5"]
    )
    spec = json.loads((outcome.folder / "spec.json").read_text())
    assert spec["task_params"] == {
        "mapping": "paper",
        "template": "official",
        "roles": "merge",
        "persona": True,
        "shuffle": "5",
        "records": "user",
        "accept_duplicate_gold": False,
        "wording": PersonaMem.Params().wording,
    }
    assert spec["split"] == "32k" and len(spec["data_hash"]) == 64 and spec["task_version"] >= 1
    assert spec["model"]["name"] and spec["sampling"] and spec["params"]["overflow"] == "refuse"
    metrics = outcome.summary.metrics
    assert set(metrics) == {"official", "strict"} and len(metrics["official"]) == 9
    assert main([str(outcome.folder), str(outcome.folder), "--by", "persona"]) == 0
    output = capsys.readouterr().out
    assert (
        "macro over 7 types (paper)" in output
        and "difference +0.0000" in output
        and "over 12 personas" in output
    )


def test_tables_of_something_else_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
