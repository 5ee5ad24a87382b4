"""PRELUDE's rounds with the stub model, by the numbers of its acceptance list."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
from edit_fixtures import BASE, FAMILY, RULES, SOURCES, stage, stub
from prelude_files import LowerCaseUser, run_cipher, write_notes

from personabench.api import registry
from personabench.errors import UsageError
from personabench.hashing import digest
from personabench.methods.cipher import Cipher, Continual, CotEdit, EThenE, IclEdit, Oracle
from personabench.methods.none import NoPersonalization
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.tasks.prelude import PreludeEmail, PreludeSumm
from personabench.testing.checks import check_method, check_task
from personabench.testing.trials import Trial, trial
from personabench.types import Prediction, Request

pytestmark = pytest.mark.usefixtures("quick_vectors")


def run_by_rule(
    method: Any,
    folder: Path,
    sources: Sequence[str] = SOURCES,
    answer: Callable[[Request], str] = stub,
) -> Trial:
    """Two seeded trajectories of a method with the rule-based user."""
    task = PreludeSumm(
        PreludeSumm.Params(user="rule", rounds=4 * len(sources), trajectories=2, accuracy="off")
    )
    dataset = task.open("all", write_notes(folder, sources))
    return trial(method, task, dataset=dataset, answer=answer)


def group_rounds(result: Trial) -> list[list[Prediction]]:
    """The rounds of each trajectory."""
    users = dict.fromkeys(line.user_id for line in result.predictions)
    return [[line for line in result.predictions if line.user_id == user] for user in users]


def list_paying_rounds(rounds: Sequence[Prediction]) -> list[int]:
    return [index for index, line in enumerate(rounds) if line.interaction["cost"] > 0]


EXPECTED: dict[str, Callable[[Sequence[str]], list[int]]] = {
    "none": lambda order: list(range(len(order))),
    "oracle": lambda order: [],
    "cipher": lambda order: sorted(order.index(source) for source in set(order)),
    "icl_edit": lambda order: sorted(order.index(source) for source in set(order)),
    "continual": lambda order: [
        index for index in range(len(order)) if index == 0 or order[index] != order[index - 1]
    ],
    "e_then_e": lambda order: [
        index for index in range(len(order)) if index < 5 or order[index] != order[4]
    ],
}
METHODS = (
    NoPersonalization(),
    Oracle(),
    Cipher(Cipher.Params(k=1)),
    IclEdit(),
    Continual(),
    EThenE(),
)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("count", [2, 5])
def test_acceptance_3_paying_rounds(method: Any, count: int, tmp_path: Path) -> None:
    result = run_by_rule(method, tmp_path, SOURCES[:count])
    for rounds in group_rounds(result):
        order = [line.interaction["source"] for line in rounds]
        assert Counter(order) == dict.fromkeys(SOURCES[:count], 4)
        assert [line.interaction["t"] for line in rounds] == list(range(4 * count))
        assert list_paying_rounds(rounds) == EXPECTED[method.name](order)
    costs = [sum(line.interaction["cost"] for line in rounds) for rounds in group_rounds(result)]
    assert result.summary.metrics["official"]["cumulative_cost"] == pytest.approx(sum(costs) / 2)
    assert not any(call.phase == "simulate" for line in result.predictions for call in line.calls)


@pytest.mark.parametrize(("source", "total"), list(zip(SOURCES, (3, 1, 5, 1, 2), strict=True)))
def test_acceptance_3_totals_of_a_single_source(source: str, total: int, tmp_path: Path) -> None:
    for k in (1, 3):
        result = run_by_rule(Cipher(Cipher.Params(k=k)), tmp_path, [source])
        for rounds in group_rounds(result):
            assert [line.interaction["cost"] for line in rounds] == [total, 0, 0, 0]
        assert result.summary.metrics["official"]["cumulative_cost"] == total


def test_the_task_page_reads_mean_and_deviation_of_trajectories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tasks" / "prelude.md").read_text(encoding="utf-8")
    (code,) = (
        block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "spread" in block
    )
    model = Scripted(answer=lambda request: BASE * (1 + int(digest(request.messages)[0], 16)))
    outcome = run_cipher(
        tmp_path / "results", write_notes(tmp_path / "data"), model, LowerCaseUser()
    )
    totals: Counter[str] = Counter()
    for line in RunFolder(outcome.folder).iter_predictions():
        totals[line.user_id] += line.interaction["cost"]
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    (mean, deviation) = namespace["spread"].to_numpy()[0]
    assert mean == pytest.approx(outcome.summary.metrics["official"]["cumulative_cost"])
    assert deviation == pytest.approx(stdev(totals.values()))
    assert deviation > 0


def test_acceptance_3_reruns_are_the_same_and_sessions_of_a_user_do_not_mix(tmp_path: Path) -> None:
    first, second = (run_by_rule(Cipher(), tmp_path) for _ in range(2))
    assert [line.interaction for line in first.predictions] == [
        line.interaction for line in second.predictions
    ]
    assert [line.flags for line in first.predictions] == [line.flags for line in second.predictions]


class Pulled(BaseException):
    """The plug."""


@pytest.mark.parametrize("calls", [1, 2, 7, 19])
def test_acceptance_3_killed_and_resumed_gives_the_same_records(tmp_path: Path, calls: int) -> None:
    data = write_notes(tmp_path / "data")
    whole = RunFolder(
        run_cipher(tmp_path / "whole", data, Scripted(answer=stub), LowerCaseUser()).folder
    )
    model = Scripted(answer=stub)
    sent = 0
    complete = model.complete

    async def until(request: Request, group: str) -> Any:
        nonlocal sent
        sent += 1
        if sent > calls:
            raise Pulled
        return await complete(request, group)

    model.complete = until  # type: ignore[method-assign]
    with pytest.raises(Pulled):
        run_cipher(tmp_path / "broken", data, model, LowerCaseUser())
    (path,) = (tmp_path / "broken").glob("runs/*/*/*/*/spec.json")
    done = [line.interaction for line in RunFolder(path.parent).iter_predictions()]
    user = LowerCaseUser()
    resumed = run_cipher(tmp_path / "broken", data, Scripted(answer=stub), user)
    predictions = list(RunFolder(resumed.folder).iter_predictions())
    assert resumed.summary.status == "complete"
    assert len(predictions) == 20
    assert [line.interaction for line in predictions[: len(done)]] == done

    def by_round(all_lines: Sequence[Prediction]) -> list[Any]:
        rows = [
            (line.sample_id, line.interaction, line.flags, [c.key for c in line.calls])
            for line in all_lines
        ]
        return sorted(rows, key=lambda row: str(row[0]))

    assert by_round(predictions) == by_round(list(whole.iter_predictions()))
    accepted = sum(line.interaction["decision"] == "accepted" for line in predictions[len(done) :])
    assert len(user.requests) == 2 * (20 - len(done)) - accepted


def test_the_users_words_are_in_the_record_and_its_tokens_are_not_the_agents(
    tmp_path: Path,
) -> None:
    data = write_notes(tmp_path / "data", SOURCES[:1])
    model = Scripted(answer=stub)
    predictions = list(
        RunFolder(
            run_cipher(tmp_path, write_notes(data), model, LowerCaseUser()).folder
        ).iter_predictions()
    )
    first = predictions[0]
    assert first.interaction["decision"] == "rewritten"
    assert first.interaction["reply"] == "No."
    assert first.interaction["raw"].startswith("Revised text:")
    assert first.interaction["final"] == first.interaction["draft"].lower()
    assert first.flags["cleaned_rewrite"] == 1
    assert first.interaction["method"] == {
        "preference": "",
        "nearest": [],
        "inferred": "all lower case",
    }
    agent = [call for call in first.calls if call.phase != "simulate"]
    assert len(agent) == 2
    assert len(first.calls) == 4
    assert first.usage.input_tokens == sum(call.input_tokens for call in agent)
    later = next(line for line in predictions if line.interaction["method"]["preference"])
    (memory_round, cosine), *_ = later.interaction["method"]["nearest"]
    assert memory_round == 0
    assert 0 <= cosine <= 1.000001


@pytest.mark.parametrize("cls", [*FAMILY, Cipher])
def test_acceptance_4_no_memory_is_empty_and_none_is_never_a_preference(
    cls: Any, tmp_path: Path
) -> None:
    result = run_by_rule(
        cls(), tmp_path, SOURCES[:2], lambda r: "None" if stage(r) == "infer" else stub(r)
    )
    prompts = [message.content for request in result.requests for message in request.messages]
    assert not any("None" in prompt or "null" in prompt for prompt in prompts)


def test_acceptance_5_inference_calls_are_the_rounds_that_cost_more_than_delta(
    tmp_path: Path,
) -> None:
    for delta in (0, 3):
        result = run_by_rule(Cipher(Cipher.Params(k=1, delta=delta)), tmp_path)
        for line in result.predictions:
            assert sum(call.phase == "update" for call in line.calls) == (
                line.interaction["cost"] > delta
            )
        assert {line.interaction["cost"] > delta for line in result.predictions} == {True, False}


def test_acceptance_6_calls_per_round_and_the_agents_expense(tmp_path: Path) -> None:
    expected: dict[str, Callable[[int, bool], tuple[int, int]]] = {
        "none": lambda t, paid: (1, 0),
        "oracle": lambda t, paid: (1, 0),
        "cipher": lambda t, paid: (2 if t else 1, int(paid)),
        "icl_edit": lambda t, paid: (1, 0),
        "cot_edit": lambda t, paid: (1, 0),
        "continual": lambda t, paid: (2 if t else 1, 0),
        "e_then_e": lambda t, paid: (1, int(t == 4)),
    }
    for method in (
        NoPersonalization(),
        Oracle(),
        Cipher(),
        IclEdit(),
        CotEdit(),
        Continual(),
        EThenE(),
    ):
        result = run_by_rule(method, tmp_path, SOURCES[:3])
        for rounds in group_rounds(result):
            for t, line in enumerate(rounds):
                phases = Counter(call.phase for call in line.calls)
                calls = expected[method.name](t, line.interaction["cost"] > 0)
                assert (phases["predict"], phases["update"]) == calls, (method.name, t)
        phases = result.summary.usage
        assert phases.keys() <= {"predict", "update"}


@pytest.mark.parametrize("cls", [*FAMILY, NoPersonalization])
def test_acceptance_7_the_agent_sees_no_preference_no_source_and_no_verdict(
    cls: Any, tmp_path: Path
) -> None:
    data = write_notes(tmp_path / "data")
    secret = "zqxv"
    for path in data.glob("*.jsonl"):
        path.rename(path.with_stem(f"{secret}_{path.stem}"))
    text = (data / "summ.json").read_text()
    (data / "summ.json").write_text(re.sub(r'"name": "', f'"name": "{secret}_', text))
    task = PreludeSumm(PreludeSumm.Params(rounds=10, trajectories=1, accuracy="off"))
    user_requests: list[Request] = []

    def user(request: Request) -> str:
        user_requests.append(request)
        return (
            f"{secret} no"
            if "yes or no" in request.messages[-1].content
            else f"Changed {len(user_requests)}."
        )

    result = trial(
        cls(), task, dataset=task.open("all", data), roles={"simulator": user},
        answer=lambda request: f"{stage(request)} said {len(request.messages[-1].content)}",
    )  # fmt: skip
    assert not any(line.error for line in result.predictions)
    assert user_requests
    for request in result.requests:
        whole = "\n".join(message.content for message in request.messages)
        assert "wish of" not in whole
        assert secret not in whole
        if stage(request) in ("infer", "aggregate"):
            assert "Note " not in whole


@pytest.mark.parametrize(
    "method", [NoPersonalization(), *(cls() for cls in FAMILY)], ids=lambda method: method.name
)
def test_a_cut_document_is_counted_once_by_every_method(method: Any, tmp_path: Path) -> None:
    task = PreludeSumm(
        PreludeSumm.Params(user="rule", rounds=8, trajectories=1, accuracy="off", document_tokens=3)
    )
    result = trial(
        method, task, dataset=task.open("all", write_notes(tmp_path, SOURCES[:2])), answer=stub
    )
    assert [line.flags.get("documents_cut") for line in result.predictions] == [1] * 8


def test_memories_are_named_by_their_rounds_and_e_then_e_says_what_it_inferred(
    tmp_path: Path,
) -> None:
    """The first drafts suit, so that the memory's first entry is of a later round."""
    drafts = 0

    def answer(request: Request) -> str:
        nonlocal drafts
        drafts += stage(request) == "generate"
        return BASE.lower() if stage(request) == "generate" and drafts <= 2 else stub(request)

    task = PreludeSumm(PreludeSumm.Params(user="rule", rounds=4, trajectories=1, accuracy="off"))
    result = trial(
        Cipher(), task, dataset=task.open("all", write_notes(tmp_path, ["alpha"])), answer=answer
    )
    nearest = [[t for t, _ in line.interaction["method"]["nearest"]] for line in result.predictions]
    assert nearest == [[], [], [], [2]]
    for rounds in group_rounds(run_by_rule(EThenE(), tmp_path, SOURCES[:2])):
        inferred = [line.interaction["method"].get("inferred") for line in rounds]
        assert inferred == [None] * 4 + [rounds[5].interaction["method"]["preference"]] + [None] * 3
        assert inferred[4]


def test_acceptance_7_only_the_oracle_sees_the_preference(tmp_path: Path) -> None:
    result = run_by_rule(Oracle(), tmp_path)
    prompts = [request.messages[0].content for request in result.requests]
    assert all(any(rule.phrase in prompt for rule in RULES) for prompt in prompts)
    assert Oracle.privileged


@pytest.mark.parametrize("returned", ["", "<think>hm", "Here is the revised summary:"])
@pytest.mark.parametrize("cache", ["off", "use"])
def test_a_user_who_returns_nothing_stops_one_trajectory_for_the_next_command(
    returned: str, cache: str, tmp_path: Path
) -> None:
    data = write_notes(tmp_path / "data")
    silent = Scripted(
        BackendOptions(model="user"),
        answer=lambda r: "no" if "yes or no" in r.messages[-1].content else returned,
    )
    outcome = run_cipher(tmp_path, data, Scripted(answer=stub), silent, cache)
    assert outcome.summary.owed == 20
    assert outcome.summary.n == 0
    assert outcome.summary.status == "incomplete"
    errors = [line.error or "" for line in RunFolder(outcome.folder).iter_predictions()]
    assert len(errors) == 2
    assert all("empty twice" in error for error in errors)
    again = run_cipher(tmp_path, data, Scripted(answer=stub), user := LowerCaseUser(), cache)
    assert again.summary.status == "complete"
    assert again.folder == outcome.folder
    assert {request.repeat for request in user.requests} == {0}


@pytest.mark.parametrize("cls", [Cipher, IclEdit])
def test_the_method_learns_from_a_draft_without_reasoning(cls: Any, tmp_path: Path) -> None:
    plain = run_by_rule(cls(), tmp_path, SOURCES[:2])
    for aloud in ("<think>Hm: lower?</think>\n", "Hm</think> "):
        result = run_by_rule(
            cls(), tmp_path, SOURCES[:2], lambda request, aloud=aloud: aloud + stub(request)
        )  # type: ignore[misc]
        assert [line.interaction for line in result.predictions] == [
            line.interaction for line in plain.predictions
        ]
        assert not any(
            "Hm" in message.content for request in result.requests for message in request.messages
        )
    (first, *_) = run_by_rule(
        cls(), tmp_path, SOURCES[:1], lambda request: "<think>never ends"
    ).predictions
    assert (first.parsed, first.interaction["draft"], first.interaction["final"]) == (None, "", "")


def test_the_user_sees_a_draft_without_reasoning(tmp_path: Path) -> None:
    data = write_notes(tmp_path / "data", SOURCES[:2], 5)
    user = LowerCaseUser()
    outcome = run_cipher(
        tmp_path, data, Scripted(answer=lambda request: f"<think>Hm</think>{stub(request)}"), user
    )
    assert outcome.summary.n == 20
    assert outcome.summary.counters.get("unchanged_rewrite", 0) == 0
    assert user.requests
    assert not any("Hm" in request.messages[-1].content for request in user.requests)


@pytest.mark.parametrize("task", ["prelude_summ", "prelude_email"])
def test_the_example_data_runs_with_one_model_in_both_roles(task: str, tmp_path: Path) -> None:
    options = runner.Options(
        ["none", "cipher"], [task], limit=1, backend="scripted", results=tmp_path
    )
    for outcome in asyncio.run(runner.run(options, backend=Scripted())):
        summary = outcome.summary
        assert summary.status == "complete"
        assert summary.users == 1
        assert any("the simulator is the model under test" in text for text in summary.warnings)
        assert summary.usage["simulate"].calls == 2 * summary.n
        assert summary.counters["undecided"] > 0


def test_methods_that_need_a_past_are_refused_before_any_call(tmp_path: Path) -> None:
    for method in ("rpm", "dpl", "rag", "summary"):
        model = Scripted()
        options = runner.Options([method], ["prelude_summ"], backend="scripted", results=tmp_path)
        with pytest.raises(UsageError, match="does not run on prelude_summ"):
            asyncio.run(runner.run(options, backend=model))
        assert not model.requests


@pytest.mark.parametrize("cls", [PreludeSumm, PreludeEmail])
def test_the_tasks_pass_their_own_check(cls: Any) -> None:
    findings = list(check_task(cls(), "all", None))
    assert [finding for finding in findings if finding.holds is False] == []
    assert len(findings) >= 5


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (PreludeSumm, "cipher"),
        (PreludeEmail, "none"),
        pytest.param(PreludeSumm, "none", marks=pytest.mark.variants),
        pytest.param(PreludeEmail, "cipher", marks=pytest.mark.variants),
    ],
)
def test_a_method_passes_its_check_on_the_tasks(cls: Any, name: str) -> None:
    method = registry.load_class("method", name)
    findings = list(check_method(method(), cls.name, limit=1))
    assert findings
    assert [finding for finding in findings if finding.holds is False] == []
