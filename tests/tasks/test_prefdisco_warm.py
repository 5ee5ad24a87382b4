"""PrefDisco's warm start: the split, what of earlier problems is visible, and what each method makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prefdisco_files import graded, play, row, said, written

from personabench import Request
from personabench.errors import DataError, UsageError
from personabench.run.controls import controlled
from personabench.run.selection import select
from personabench.tasks.prefdisco import PrefDiscoWarm
from personabench.tasks.prefdisco.files import read
from personabench.tasks.prefdisco.warm import WarmData, seen, stated

METHODS = ("none", "rag", "summary", "cipher", "rpm", "dpl")
PEOPLE = ("ann", "bob", "cat", "dan", "eva", "fay", "gil", "hal")


def wants(person: str, number: int) -> dict[str, tuple[str, int]]:
    """A person's general wish, one that depends on the problem, and one that never matters enough to be said."""
    return {
        "Length": (f"as {person} likes it", 5),
        f"Detail {number}": (f"{person} on {number}", 4),
        "Mood": (f"whatever {number % 5}", 1),
    }


def set_of(folder: Path, people: Sequence[str] = PEOPLE, problems: int = 24) -> Path:
    """A set of several people's wishes on the same problems."""
    return written(
        folder,
        [row(number, each, wants(each, number)) for number in range(problems) for each in people],
    )


def opened(data: Path, **options: Any) -> WarmData:
    dataset = PrefDiscoWarm(PrefDiscoWarm.Params(**options)).open("own", data)
    assert isinstance(dataset, WarmData)
    return dataset


def answer(request: Request) -> str:
    """Follows every form that a method asks for, and says different things to different requests."""
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
    data = set_of(tmp_path / "data", PEOPLE[:2], 5)
    sent = []
    for method in ("none", "rag", "rpm"):
        played = play(
            tmp_path / method,
            data,
            answer,
            task="prefdisco_warm",
            methods=method,
            limit=1,
            assignments=["task.h=0"],
        )
        sent.append(
            {request.messages for request in played.model.requests if len(request.messages) == 1}
        )
        assert len(played.model.requests) == 6, (
            "three targets, each base and known; the method's own is base again"
        )
    assert all(each == sent[0] for each in sent) and len(sent[0]) == 3
    assert all(message.role == "user" for (message,) in sent[0])


@pytest.mark.parametrize("method", METHODS)
def test_acceptance_12_leakage(tmp_path: Path, method: str) -> None:
    """What a target's record and other people's records of its problem hold is marked, and shown to no method."""
    data = set_of(tmp_path / "data")
    dataset = opened(data, targets=1)
    (place,) = select(dataset, 1, 0)
    target = dataset.entries[place]
    number = target.id.split("_")[1]
    lines = [json.loads(line) for line in (data / "own.jsonl").read_text().splitlines()[1:]]
    for record in lines:
        record["persona"]["backstory"] = "MARKED backstory"
        record["original_problem"]["answer"] = "MARKED gold"
        for criterion in record["evaluation_rubric"]["evaluation_criteria"]:
            criterion["description"] = "MARKED rubric"
        for told in record["persona_preferences"].values():
            told["justification"] = "MARKED reason"
            if record["problem_id"].startswith(f"problem_{number}_"):
                told["value"] = "MARKED value"
    marked = written(tmp_path / "marked", lines)
    played = play(
        tmp_path / "results",
        marked,
        answer,
        task="prefdisco_warm",
        methods=method,
        limit=1,
        assignments=["task.targets=1"],
    )
    assert list(played.lines) == [target.id]
    known, *others = sorted(
        played.model.requests, key=lambda each: "described below" not in each.messages[0].content
    )
    assert "MARKED value" in known.messages[0].content
    assert others and not [request for request in others if "MARKED" in str(request.messages)]
    assert not [request for request in others if "importance" in str(request.messages)]


def test_acceptance_13_nesting(tmp_path: Path) -> None:
    data = set_of(tmp_path / "data")
    five, three = opened(data, h=5), opened(data, h=3)
    assert five.index() == three.index() and len(five.index()) == 3 * len(PEOPLE)
    for place in range(len(five.index())):
        long, short = five.load(place).history, three.load(place).history
        assert (len(long), len(short)) == (5, 3) and long[-3:] == short
    shared = {
        str(five.load(place).history)
        for place in range(len(five.index()))
        if five.index()[place][1] == "ann"
    }
    assert len(shared) == 1, "all targets of a persona have one history"
    code = (
        "import sys; from pathlib import Path; from personabench.tasks.prefdisco import PrefDiscoWarm; "
        "data = PrefDiscoWarm().open('own', Path(sys.argv[1])); "
        "places = range(len(data.index())); "
        "print([[data.index()[at], [record.id for record in data.load(at).history]] for at in places])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(data)], capture_output=True, text=True, check=True
    )
    mine = [
        [five.index()[at], [record.id for record in five.load(at).history]]
        for at in range(len(five.index()))
    ]
    assert ended.stdout == f"{mine}\n"
    assert opened(data, seed=1).index() != five.index()

    records = [row(number, "ann") for number in range(6)]
    target = opened(written(tmp_path / "six", records)).entries[0]
    twin = row(9, "ann")
    twin["original_problem"]["question"] = f"  {target.problem.question.upper()} "
    doubled = opened(written(tmp_path / "twin", [*records, twin]), targets=3)
    keys = [record.stimulus for record in doubled.load(0).history]
    for entry in doubled.entries:
        assert not [
            key
            for key in keys
            if key and entry.key == " ".join(key.partition("\n")[0].casefold().split())
        ]


def test_an_entry_tells_name_and_value_of_the_most_important_and_nothing_else(
    tmp_path: Path,
) -> None:
    record = opened(set_of(tmp_path / "data"), m=2).load(0).history[0]
    assert record.response.splitlines() == sorted(record.response.splitlines())
    assert record.fields["dimensions"].split("\n")[-1] == "Length" and "Mood" not in record.response
    assert seen([record])["Length"].startswith("as ")
    assert not [
        word
        for word in ("because", "backstory", "baker", "level", "5")
        if word in f"{record.response}{record.fields}"
    ]
    tied = row(0, "ann", {name: (name.lower(), 3) for name in ("C", "A", "B", "D")})
    (entry,) = read(written(tmp_path / "tied", [tied]) / "own.jsonl").entries
    assert stated(entry, 3).text == "A: a\nB: b\nC: c"


CALLS = {"none": 1, "rag": 1, "summary": 1, "cipher": 2, "rpm": 2, "dpl": 5}


@pytest.mark.parametrize("method", METHODS)
def test_acceptance_14_calls_of_each_target(tmp_path: Path, method: str) -> None:
    """Beyond what builds the state, and beside the two answers of the model alone that all methods share."""
    data = set_of(tmp_path / "data")
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
    played = play(
        tmp_path / "results",
        data,
        answer,
        task="prefdisco_warm",
        methods=method,
        assignments=settings.get(method, ()),
        limit=1,
    )
    lines = list(played.lines.values())
    assert {line.error for line in lines} == {None} and len(lines) == 3
    own = [len(line.calls) - 2 for line in lines]
    inferences = 3 if method == "cipher" else 0
    assert set(own) == {CALLS[method] + inferences}
    usage = played.summary.usage
    assert (usage["profile"].calls if "profile" in usage else 0) == {
        "summary": 1,
        "rpm": 3 * 5 + 1,
    }.get(method, 0)
    if method == "dpl":
        assert (played.summary.counters["tier_1"], "fallback" in played.summary.counters) == (
            9,
            False,
        )


def test_acceptance_15_shuffled(tmp_path: Path) -> None:
    data = set_of(tmp_path / "data")
    own, lent = opened(data, h=3), controlled(opened(data, h=3), "shuffled", 0)
    for place, (_, user) in enumerate(own.index()):
        before, after = own.load(place), lent.load(place)
        assert len(after.history) == len(before.history) == 3
        assert all(not record.id.endswith(user) for record in after.history)
        asked = {own.load(at).item for at, (_, other) in enumerate(own.index()) if other == user}
        assert not asked & {record.item for record in after.history}
    scores = {}
    for history in ("own", "shuffled"):
        played = play(
            tmp_path / "results",
            data,
            lambda request: "\n".join(message.content for message in request.messages),
            task="prefdisco_warm",
            methods="rag",
            judge=graded(
                lambda text: (
                    5
                    if text.partition("What the user wants: ")[2].partition("\n")[0]
                    in text.partition("\n\nWhat the user wants")[0]
                    else 1
                )
            ),
            history=history,
            limit=6,
            assignments=["task.h=3"],
        )
        scores[history] = played.metrics["prefalign"]
    assert scores["own"] > scores["shuffled"], "the lift of a model that echoes its context"


def test_the_population_owner_tells_what_most_others_said(tmp_path: Path) -> None:
    records = [
        row(
            number,
            each,
            {
                "Tone": ("dry" if each == "ann" else "kind" if each < "d" else "loud", 5),
                f"On {number}": ("x", 4),
            },
        )
        for number in range(8)
        for each in ("ann", "bob", "cat", "dan")
    ]
    dataset = opened(written(tmp_path / "data", records), owner="population")
    places = {user: place for place, (_, user) in enumerate(dataset.index())}
    assert {record.response.splitlines()[-1] for record in dataset.load(places["ann"]).history} == {
        "Tone: kind"
    }
    own = opened(tmp_path / "data")
    assert [(user.id, user.history) for user in dataset.population()] == [
        (u.id, u.history) for u in own.population()
    ]
    assert [each.item for each in own.load(0).history] == [
        each.item for each in dataset.load(0).history
    ]


def test_seen_unseen_and_agreement_are_measured(tmp_path: Path) -> None:
    data = set_of(tmp_path / "data", PEOPLE[:3], 9)
    judge = graded(lambda text: 5 if "Criterion: Length" in text else 2)
    played = play(tmp_path / "results", data, answer, task="prefdisco_warm", judge=judge)
    found = played.metrics
    assert found["prefalign-seen"] > found["prefalign"] > found["prefalign-unseen"] == 2
    assert 0.5 <= found["seen-share"] <= 0.9 and 0 < found["agreement"] < 1


def test_asking_adds_a_condition_and_its_numbers(tmp_path: Path) -> None:
    data = set_of(tmp_path / "data", PEOPLE[:2], 5)
    told = "as ann likes it"

    def asks(request: Request) -> str:
        discovering = "Action:" in request.messages[0].content
        return (
            f"Action: ask_question\nResponse: {told in str(request.messages)}?"
            if discovering
            else answer(request)
        )

    played = play(
        tmp_path / "results",
        data,
        asks,
        task="prefdisco_warm",
        methods="rag",
        simulator=lambda _: said("Yes."),
        assignments=["task.ask=true", "task.max_turns=2"],
    )
    assert played.metrics["questions"] == 2 and "prefalign-ask" in played.metrics
    (line, *_) = (line for line in played.lines.values() if line.user_id == "ann")
    assert line.record["conditions"]["ask"]["turns"][0]["text"] == "True?", (
        "the history is at hand while asking"
    )
    assert set(line.record["conditions"]) == {"base", "known", "final", "ask"}


@pytest.mark.parametrize("form", ["dialogue", "response"])
def test_a_reference_writers_run_is_a_history(tmp_path: Path, form: str) -> None:
    data = set_of(tmp_path / "data", PEOPLE[:2], 5)

    def writes(request: Request) -> str:
        if request.messages[0].role == "user":
            return "the draft"
        return (
            "the known answer"
            if "described below" in request.messages[0].content
            else "Which length?"
        )

    def tells(request: Request) -> str:
        return said("Length is all I care for.")

    with pytest.raises(UsageError, match=r"task\.writer=RUN_FOLDER"):
        opened(data, form=form)
    writer = play(
        tmp_path / "writer", data, writes, simulator=tells, assignments=["task.max_turns=1"]
    )
    dataset = opened(data, form=form, writer=str(writer.outcomes[0].folder))
    record = dataset.load(0).history[0]
    expected = (
        ("Length is all I care for.", "")
        if form == "dialogue"
        else ("the known answer", "the draft")
    )
    assert (record.response, record.fields["draft"]) == expected
    assert record.fields["dimensions"] == ("Length" if form == "dialogue" else "")
    assert "writer=tested" in " ".join(dataset.warnings) and dataset.hash != opened(data).hash
    part = play(tmp_path / "part", data, writes, simulator=tells, limit=1)
    with pytest.raises(DataError, match="run it without --limit"):
        opened(data, form=form, writer=str(part.outcomes[0].folder))


def test_other_tasks_records_widen_the_history(tmp_path: Path) -> None:
    data = set_of(tmp_path, ["ann"], 4)
    more = [row(number, "ann", {"Other": (f"x{number}", 5)}) for number in range(4)]
    for record in more:
        record["original_problem"]["question"] += " Elsewhere."
    written(tmp_path, more, "other")
    assert len(opened(data).load(0).history) == 1
    wide = opened(data, scope="cross_task", h=10)
    assert len(wide.index()) == 3 and len(wide.load(0).history) == 5
    assert len({record.id for record in wide.load(0).history}) == 5
    assert "5 earlier" not in " ".join(wide.warnings) and wide.hash != opened(data).hash


def test_a_curve_uses_people_with_enough_records_only(tmp_path: Path) -> None:
    records = [
        row(number, each) for each, most in (("ann", 8), ("bob", 5)) for number in range(most)
    ]
    data = written(tmp_path, records)
    assert {user for _, user in opened(data).index()} == {"ann", "bob"}
    assert {user for _, user in opened(data, min_pool=5, h=1).index()} == {"ann"}
    with pytest.raises(UsageError, match="no persona has 3 records and 9 more"):
        opened(data, min_pool=9)
