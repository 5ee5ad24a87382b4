"""PrefDisco's warm start: the split, the visible part of earlier problems, methods."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prefdisco_files import make_judge, make_row, play, word_reply, write_set

from personabench import Request
from personabench.errors import DataError, UsageError
from personabench.run.controls import apply_control
from personabench.run.selection import select
from personabench.tasks.prefdisco import PrefDiscoWarm
from personabench.tasks.prefdisco.files import read_records
from personabench.tasks.prefdisco.warm_start import WarmData, find_revealed, state_preferences

METHODS = ("none", "rag", "summary", "cipher", "rpm", "dpl")
PEOPLE = ("ann", "bob", "cat", "dan", "eva", "fay", "gil", "hal")


def make_wants(person: str, number: int) -> dict[str, tuple[str, int]]:
    """A general wish, one that depends on the problem, and one too unimportant to be stated."""
    return {
        "Length": (f"as {person} likes it", 5),
        f"Detail {number}": (f"{person} on {number}", 4),
        "Mood": (f"whatever {number % 5}", 1),
    }


def write_people(folder: Path, people: Sequence[str] = PEOPLE, problems: int = 24) -> Path:
    """A set of several people's wishes on the same problems."""
    return write_set(
        folder,
        [
            make_row(number, person, make_wants(person, number))
            for number in range(problems)
            for person in people
        ],
    )


def open_set(data: Path, **options: Any) -> WarmData:
    dataset = PrefDiscoWarm(PrefDiscoWarm.Params(**options)).open("own", data)
    assert isinstance(dataset, WarmData)
    return dataset


def answer(request: Request) -> str:
    """Follow every schema of a method, with different answers to different requests."""
    if request.schema is None:
        return f"Summary: the answer is B. {len(str(request.messages))}"
    listed = request.messages[-1].content.count("\n1. ")
    forms = {
        "features": {"features": [{"name": "kind", "context": "thing", "factor": "kind"}]},
        "factors": {
            "factors": [{"factor": "kind", "description": "what it is", "ids": [1, 2, 3, 4, 5]}]
        },
        "judgements": {
            "judgements": [{"id": 1, "influential": True, "polarity": "neutral"}] * max(listed, 1)
        },
        "answer": {"reasoning": "so", "answer": "The answer is B."},
    }
    return json.dumps(
        next(form for name, form in forms.items() if name in request.schema["properties"])
    )


def test_acceptance_11_without_history_all_send_the_same(tmp_path: Path) -> None:
    data = write_people(tmp_path / "data", PEOPLE[:2], 5)
    sent = []
    for method in ("none", "rag", "rpm"):
        run = play(
            tmp_path / method,
            data,
            answer,
            task="prefdisco_warm",
            methods=method,
            limit=1,
            assignments=["task.h=0"],
        )
        sent.append(
            {request.messages for request in run.model.requests if len(request.messages) == 1}
        )
        assert len(run.model.requests) == 6, (
            "three targets, each base and known; the method's own is base again"
        )
    assert all(messages == sent[0] for messages in sent)
    assert len(sent[0]) == 3
    assert all(message.role == "user" for (message,) in sent[0])


@pytest.mark.parametrize("method", METHODS)
def test_acceptance_12_leakage(tmp_path: Path, method: str) -> None:
    """Targets and peers' records of their problems are marked; no method sees a mark."""
    data = write_people(tmp_path / "data")
    dataset = open_set(data, targets=1)
    (index,) = select(dataset, 1, 0)
    target = dataset.entries[index]
    number = target.id.split("_")[1]
    records = [json.loads(line) for line in (data / "own.jsonl").read_text().splitlines()[1:]]
    for record in records:
        record["persona"]["backstory"] = "MARKED backstory"
        record["original_problem"]["answer"] = "MARKED gold"
        for criterion in record["evaluation_rubric"]["evaluation_criteria"]:
            criterion["description"] = "MARKED rubric"
        for preference in record["persona_preferences"].values():
            preference["justification"] = "MARKED reason"
            if record["problem_id"].startswith(f"problem_{number}_"):
                preference["value"] = "MARKED value"
    marked = write_set(tmp_path / "marked", records)
    run = play(
        tmp_path / "results",
        marked,
        answer,
        task="prefdisco_warm",
        methods=method,
        limit=1,
        assignments=["task.targets=1"],
    )
    assert list(run.lines) == [target.id]
    informed, *rest = sorted(
        run.model.requests, key=lambda request: "described below" not in request.messages[0].content
    )
    assert "MARKED value" in informed.messages[0].content
    assert rest
    assert not [request for request in rest if "MARKED" in str(request.messages)]
    assert not [request for request in rest if "importance" in str(request.messages)]


def test_acceptance_13_nesting(tmp_path: Path) -> None:
    data = write_people(tmp_path / "data")
    five = open_set(data, h=5)
    three = open_set(data, h=3)
    assert five.index() == three.index()
    assert len(five.index()) == 3 * len(PEOPLE)
    for index in range(len(five.index())):
        long = five.load(index).history
        short = three.load(index).history
        assert (len(long), len(short)) == (5, 3)
        assert long[-3:] == short
    shared = {
        str(five.load(index).history)
        for index in range(len(five.index()))
        if five.index()[index][1] == "ann"
    }
    assert len(shared) == 1, "all targets of a persona have one history"
    code = (
        "import sys; from pathlib import Path; "
        "from personabench.tasks.prefdisco import PrefDiscoWarm; "
        "data = PrefDiscoWarm().open('own', Path(sys.argv[1])); "
        "histories = [data.load(index).history for index in range(len(data.index()))]; "
        "ids = [[record.id for record in history] for history in histories]; "
        "print([list(pair) for pair in zip(data.index(), ids)])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(data)], capture_output=True, text=True, check=True
    )
    expected = [
        [five.index()[index], [record.id for record in five.load(index).history]]
        for index in range(len(five.index()))
    ]
    assert ended.stdout == f"{expected}\n"
    assert open_set(data, seed=1).index() != five.index()

    records = [make_row(number, "ann") for number in range(6)]
    target = open_set(write_set(tmp_path / "six", records)).entries[0]
    twin = make_row(9, "ann")
    twin["original_problem"]["question"] = f"  {target.problem.question.upper()} "
    doubled = open_set(write_set(tmp_path / "twin", [*records, twin]), targets=3)
    keys = [record.stimulus for record in doubled.load(0).history]
    for entry in doubled.entries:
        assert not [
            key
            for key in keys
            if key and entry.key == " ".join(key.partition("\n")[0].casefold().split())
        ]


def test_a_history_record_holds_names_and_values_of_the_most_important_and_nothing_else(
    tmp_path: Path,
) -> None:
    record = open_set(write_people(tmp_path / "data"), m=2).load(0).history[0]
    assert record.response.splitlines() == sorted(record.response.splitlines())
    assert record.fields["dimensions"].split("\n")[-1] == "Length"
    assert "Mood" not in record.response
    assert find_revealed([record])["Length"].startswith("as ")
    assert not [
        word
        for word in ("because", "backstory", "baker", "level", "5")
        if word in f"{record.response}{record.fields}"
    ]
    tied = make_row(0, "ann", {name: (name.lower(), 3) for name in ("C", "A", "B", "D")})
    (entry,) = read_records(write_set(tmp_path / "tied", [tied]) / "own.jsonl").entries
    assert state_preferences(entry, 3).text == "A: a\nB: b\nC: c"


CALLS = {"none": 1, "rag": 1, "summary": 1, "cipher": 2, "rpm": 2, "dpl": 5}


@pytest.mark.parametrize("method", METHODS)
def test_acceptance_14_calls_of_each_target(tmp_path: Path, method: str) -> None:
    """Calls beside those for the profile and the two conditions that all methods share."""
    data = write_people(tmp_path / "data")
    settings = {
        "dpl": [
            "dpl.n_docs=3",
            "dpl.k_peers=4",
            "dpl.min_peers=4",
            "dpl.tiers=T1",
            "dpl.dup_max=0",
        ],
        "cipher": ["cipher.k=3"],
    }
    run = play(
        tmp_path / "results",
        data,
        answer,
        task="prefdisco_warm",
        methods=method,
        assignments=settings.get(method, ()),
        limit=1,
    )
    predictions = list(run.lines.values())
    assert {line.error for line in predictions} == {None}
    assert len(predictions) == 3
    calls = [len(line.calls) - 2 for line in predictions]
    inferences = 3 if method == "cipher" else 0
    assert set(calls) == {CALLS[method] + inferences}
    usage = run.summary.usage
    profile_calls = usage["profile"].calls if "profile" in usage else 0
    # Work on records, such as drafts and differences, is booked once for all three targets.
    offline = {"summary": 1, "rpm": 3 * 5 + 1, "cipher": 2 + 3, "dpl": 3}
    assert profile_calls == offline.get(method, 0)
    if method == "dpl":
        assert (run.summary.counters["tier_1"], "fallback" in run.summary.counters) == (
            9,
            False,
        )


def test_acceptance_15_shuffled(tmp_path: Path) -> None:
    data = write_people(tmp_path / "data")
    original = open_set(data, h=3)
    lent = apply_control(open_set(data, h=3), "shuffled", 0)
    for index, (_, user) in enumerate(original.index()):
        before = original.load(index)
        after = lent.load(index)
        assert len(after.history) == len(before.history) == 3
        assert all(not record.id.endswith(user) for record in after.history)
        target_items = {
            original.load(position).item
            for position, (_, owner) in enumerate(original.index())
            if owner == user
        }
        assert not target_items & {record.item for record in after.history}
    scores = {}
    for history in ("own", "shuffled"):
        run = play(
            tmp_path / "results",
            data,
            lambda request: "\n".join(message.content for message in request.messages),
            task="prefdisco_warm",
            methods="rag",
            judge=make_judge(
                lambda text: (
                    5
                    if text.partition("What the user wants, and why:\n")[2].splitlines()[1]
                    in text.partition("\n\nWhat the user wants")[0]
                    else 1
                )
            ),
            history=history,
            limit=6,
            assignments=["task.h=3"],
        )
        scores[history] = run.metrics["prefalign"]
    assert scores["own"] > scores["shuffled"], "the lift of a model that echoes its context"


def test_the_population_owner_shows_the_most_frequent_wishes_of_peers(tmp_path: Path) -> None:
    records = [
        make_row(
            number,
            person,
            {
                "Tone": ("dry" if person == "ann" else "kind" if person < "d" else "loud", 5),
                f"On {number}": ("x", 4),
            },
        )
        for number in range(8)
        for person in ("ann", "bob", "cat", "dan")
    ]
    dataset = open_set(write_set(tmp_path / "data", records), owner="population")
    indices = {user: index for index, (_, user) in enumerate(dataset.index())}
    assert {
        record.response.splitlines()[-1] for record in dataset.load(indices["ann"]).history
    } == {"Tone: kind"}
    original = open_set(tmp_path / "data")
    assert [(user.id, user.history) for user in dataset.population()] == [
        (u.id, u.history) for u in original.population()
    ]
    assert [person.item for person in original.load(0).history] == [
        person.item for person in dataset.load(0).history
    ]


def test_seen_unseen_and_agreement_are_measured(tmp_path: Path) -> None:
    data = write_people(tmp_path / "data", PEOPLE[:3], 9)
    judge = make_judge(lambda text: 5 if "Criterion: Length" in text else 2)
    run = play(tmp_path / "results", data, answer, task="prefdisco_warm", judge=judge)
    metrics = run.metrics
    assert metrics["prefalign-seen"] > metrics["prefalign"] > metrics["prefalign-unseen"] == 2
    assert 0.5 <= metrics["seen-share"] <= 0.9
    assert 0 < metrics["agreement"] < 1


def test_asking_adds_a_condition_and_its_numbers(tmp_path: Path) -> None:
    data = write_people(tmp_path / "data", PEOPLE[:2], 5)
    wish = "as ann likes it"

    def asks(request: Request) -> str:
        discovering = "Action:" in request.messages[0].content
        return (
            f"Action: ask_question\nResponse: {wish in str(request.messages)}?"
            if discovering
            else answer(request)
        )

    run = play(
        tmp_path / "results",
        data,
        asks,
        task="prefdisco_warm",
        methods="rag",
        simulator=lambda _: word_reply("Yes."),
        assignments=["task.ask=true", "task.max_turns=2"],
    )
    assert run.metrics["questions"] == 2
    assert "prefalign-ask" in run.metrics
    (line, *_) = (line for line in run.lines.values() if line.user_id == "ann")
    assert line.interaction["conditions"]["ask"]["turns"][0]["text"] == "True?", (
        "the history is at hand while asking"
    )
    assert set(line.interaction["conditions"]) == {"base", "known", "final", "ask"}


@pytest.mark.parametrize("form", ["dialogue", "response"])
def test_a_reference_writers_run_is_a_history(tmp_path: Path, form: str) -> None:
    data = write_people(tmp_path / "data", PEOPLE[:2], 5)

    def writes(request: Request) -> str:
        if request.messages[0].role == "user":
            return "the draft"
        return (
            "the known answer"
            if "described below" in request.messages[0].content
            else "Which length?"
        )

    def tells(request: Request) -> str:
        return word_reply("Length is all I care for.")

    with pytest.raises(UsageError, match=r"task\.writer=RUN_FOLDER"):
        open_set(data, form=form)
    writer = play(
        tmp_path / "writer", data, writes, simulator=tells, assignments=["task.max_turns=1"]
    )
    dataset = open_set(data, form=form, writer=str(writer.outcomes[0].folder))
    record = dataset.load(0).history[0]
    expected = (
        ("Length is all I care for.", "")
        if form == "dialogue"
        else ("the known answer", "the draft")
    )
    assert (record.response, record.fields["draft"]) == expected
    assert record.fields["dimensions"] == ("Length" if form == "dialogue" else "")
    assert "writer=tested" in " ".join(dataset.warnings)
    assert dataset.hash != open_set(data).hash
    part = play(tmp_path / "part", data, writes, simulator=tells, limit=1)
    with pytest.raises(DataError, match="run it without --limit"):
        open_set(data, form=form, writer=str(part.outcomes[0].folder))


def test_other_tasks_records_widen_the_history(tmp_path: Path) -> None:
    data = write_people(tmp_path, ["ann"], 4)
    more = [make_row(number, "ann", {"Other": (f"x{number}", 5)}) for number in range(4)]
    for record in more:
        record["original_problem"]["question"] += " Elsewhere."
    write_set(tmp_path, more, "other")
    assert len(open_set(data).load(0).history) == 1
    wide = open_set(data, scope="cross_task", h=10)
    assert len(wide.index()) == 3
    assert len(wide.load(0).history) == 5
    assert len({record.id for record in wide.load(0).history}) == 5
    assert "5 earlier" not in " ".join(wide.warnings)
    assert wide.hash != open_set(data).hash


def test_a_curve_uses_people_with_enough_records_only(tmp_path: Path) -> None:
    records = [
        make_row(number, person)
        for person, most in (("ann", 8), ("bob", 5))
        for number in range(most)
    ]
    data = write_set(tmp_path, records)
    assert {user for _, user in open_set(data).index()} == {"ann", "bob"}
    assert {user for _, user in open_set(data, min_pool=5, h=1).index()} == {"ann"}
    with pytest.raises(UsageError, match="no persona has 3 records and 9 more"):
        open_set(data, min_pool=9)
