"""Generated PrefDisco sets: rules for personas, dimensions and rubrics, and failures."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from personabench import Request
from personabench.cli.app import app
from personabench.errors import DataError, UsageError
from personabench.models import backends
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted, fill_schema
from personabench.models.cache import Cache
from personabench.models.client import Client
from personabench.models.roles import Role
from personabench.tasks.prefdisco import PrefDisco
from personabench.tasks.prefdisco.files import read_records
from personabench.tasks.prefdisco.personas import BRACKETS, OCCUPATIONS

ROWS = [
    {"problem": "How long is a journey from 9:40 to 12:15, in minutes?", "answer": "155"},
    {
        "question": "Which planet is nearest to the sun?",
        "choices": ["Venus", "Mercury"],
        "answer": 1,
    },
    {"question": "What floats on water?", "choices": ["a stone", "a cork"], "answer": 1},
]


def find_kind(request: Request) -> str:
    """Name the kind of a request by the fields of its schema."""
    assert request.schema is not None
    (name, *_) = sorted(
        {"coherent", "backstory", "dimensions", "matches", "preferences", "criteria"}
        & request.schema["properties"].keys()
    )
    return name


class Author:
    """Answers requests by the rules; `spoil` may break a reply, given its number among its kind."""

    def __init__(
        self, spoil: Callable[[str, int, dict[str, Any]], object] = lambda *_: None
    ) -> None:
        self.spoil = spoil
        self.asked: Counter[str] = Counter()

    def __call__(self, request: Request) -> str:
        name = find_kind(request)
        user = request.messages[-1].content
        self.asked[name] += 1
        reply: dict[str, Any] = getattr(self, name)(request, user)
        self.spoil(name, self.asked[name], reply)
        return json.dumps(reply)

    def coherent(self, request: Request, user: str) -> dict[str, Any]:
        return {"issues": [], "coherent": True}

    def backstory(self, request: Request, user: str) -> dict[str, Any]:
        assert request.schema is not None
        person: dict[str, Any] = json.loads(fill_schema(request.schema))
        number = self.asked["backstory"]
        wished = {
            name: re.search(rf"^{name}: (.*)\.$", user, re.MULTILINE)
            for name in ("Occupation", "Age")
        }
        life = person["demographics"]
        life |= {
            "age": 33,
            "location": f"Town {number}",
            "occupation": "free",
            "hobbies": ["chess"],
        }
        if wished["Occupation"] and wished["Age"]:
            life |= {"occupation": wished["Occupation"][1], "age": int(wished["Age"][1].split()[0])}
        return {**person, "name": f"Ann Nr{number}", "domain_expertise": ["bread"]}

    def dimensions(self, request: Request, user: str) -> dict[str, Any]:
        assert request.schema is not None
        count = request.schema["properties"]["dimensions"]["minItems"]
        about = "general" if count < 20 else f"{len(user)}"
        return {
            "dimensions": [
                {
                    "name": f"Way {number} {about if number > 9 or count < 20 else 'shared'}",
                    "description": "how",
                    "value_range": "1-5",
                    "importance": "high",
                    "type": "expertise" if number < 2 else "personal",
                }
                for number in range(count)
            ]
        }

    def matches(self, request: Request, user: str) -> dict[str, Any]:
        return {
            "matches": [
                {"new": name, "known": ""}
                for name in re.findall(r"^- (.*?): how", user, re.MULTILINE)
            ]
        }

    def preferences(self, request: Request, user: str) -> dict[str, Any]:
        dimensions = re.findall(r"^- (.*?): how", user, re.MULTILINE)
        fields = {"local_importance": 3, "justification": "so"}
        return {
            "preferences": [
                {"name": name, "value": f"v of {name}", **fields} for name in dimensions
            ]
        }

    def criteria(self, request: Request, user: str) -> dict[str, Any]:
        dimensions = re.findall(r"^- (.*?): v of", user, re.MULTILINE)
        fields = {
            "description": "whether",
            "weight": 1 / 24,
            "level_1": "bad",
            "level_3": "fair",
            "level_5": "good",
        }
        return {"criteria": [{"preference": name, **fields} for name in dimensions]}


def generate_set(
    folder: Path, *authors: Author, people: int = 2, library: int = 4, cache: Cache | None = None
) -> tuple[Path, list[str], list[Scripted]]:
    """Generate a set on three problems; returns its file, the notices, and the authors."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "quiz-source.jsonl"
    source.write_text("\n".join(map(json.dumps, ROWS)))
    models = [
        Scripted(BackendOptions(model=f"author {number}"), author)
        for number, author in enumerate(authors)
    ]
    roles = [
        Role("simulator", Client(model, cache, "use" if cache else "off", 8), "", 0)
        for model in models
    ]
    notices: list[str] = []
    work = PrefDisco().generate(
        str(source),
        folder / "sets",
        roles,
        problems=9,
        people=people,
        library=library,
        seed=0,
        notice=notices.append,
    )
    return asyncio.run(work), notices, models


def test_a_generated_set_is_a_sound_set(tmp_path: Path) -> None:
    path, notices, (model,) = generate_set(tmp_path, Author())
    entries, counts, metadata = read_records(path)
    assert (len(entries), counts.total(), metadata["dataset"]) == (6, 0, "quiz-source")
    for entry in entries:
        types = Counter(preference.type for preference in entry.preferences.values())
        assert len(entry.preferences) == len(entry.criteria) == 24
        assert types["expertise"] == 2
    assert entries[2].problem.options == {"A": "Venus", "B": "Mercury"}
    assert entries[2].problem.answer == "B"
    assert notices[-1] == "problem 3 of 3: 2 of 2 records"
    dataset = PrefDisco().open("quiz-source", tmp_path / "sets")
    assert len(dataset.index()) == 6
    assert dataset.warnings == ()
    assert {request.temperature for request in model.requests} == {0.7}


def test_calls_of_a_record_and_of_a_problem(tmp_path: Path) -> None:
    author = Author()
    generate_set(tmp_path, author)
    assert author.asked == {
        "backstory": 4,
        "coherent": 4,
        "dimensions": 1 + 3,
        "matches": 3,
        "preferences": 6,
        "criteria": 2 * 6,
    }


def test_names_of_earlier_problems_are_kept_and_values_shown_again(tmp_path: Path) -> None:
    path, _, (model,) = generate_set(tmp_path, Author(), people=4)
    entries = read_records(path).entries
    first, second = (set(entry.preferences) for entry in (entries[0], entries[4]))
    assert len(first & second) == 4 + 10, "general ones, and those named alike"
    contents = [
        request.messages[-1].content
        for request in model.requests
        if find_kind(request) == "preferences"
    ]
    assert ["Wanted earlier:" in text for text in contents] == [False] * 4 + [True] * 8
    assert "- Way 3 shared: v of Way 3 shared" in contents[4]


def test_a_match_takes_the_known_name_once(tmp_path: Path) -> None:
    def spoil(name: str, number: int, reply: dict[str, Any]) -> None:
        if name == "matches":
            for match in reply["matches"]:
                match["known"] = "way 0 GENERAL"

    path, _, _ = generate_set(tmp_path, Author(spoil))
    assert {len(entry.preferences) for entry in read_records(path).entries} == {23}, (
        "20, of which one is one of the general four"
    )


def test_personas_are_unlike_one_another(tmp_path: Path) -> None:
    _, _, (model,) = generate_set(tmp_path, Author(), library=20)
    people = json.loads((tmp_path / "sets" / "personas.json").read_text())
    contents = [
        request.messages[-1].content
        for request in model.requests
        if find_kind(request) == "backstory"
    ]
    constrained = [text for text in contents if "Occupation:" in text]
    assert len(people) == 20
    assert 10 <= len(constrained) <= 18
    occupations = [person["demographics"]["occupation"] for person in people]
    drawn = [occupation for occupation in occupations if occupation != "free"]
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= set(OCCUPATIONS)
    ages = [person["demographics"]["age"] for person in people]
    used = [bracket for bracket in BRACKETS if any(bracket[0] <= age <= bracket[1] for age in ages)]
    assert len(used) == 6
    assert contents[12].count("\n- ") == 8, "the last eight are shown"
    assert all(re.fullmatch(r"nr\d+_[0-9a-f]{8}", person["id"]) for person in people)
    last = next(text for text in reversed(contents) if "None of these names and places" in text)
    assert last.partition("None of these")[2].count("Town") == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda person: person["demographics"].update(age=17), "age must lie between 18 and 75"),
        (lambda person: person.update(name="Ann"), "a first name and a surname"),
        (lambda person: person.update(backstory=" "), "backstory is missing"),
        (
            lambda person: person["personality_big5"]["openness"].update(score=6),
            "openness.score must lie between 1 and 5",
        ),
        (lambda person: person["demographics"].pop("hobbies"), "hobbies must be a list"),
    ],
)
def test_personas_that_break_a_rule_are_requested_again(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    author = Author(
        lambda name, number, reply: change(reply) if name == "backstory" and number == 1 else None
    )
    _, _, (model,) = generate_set(tmp_path, author)
    assert author.asked["backstory"] == 5
    assert message in model.requests[1].messages[-1].content
    with pytest.raises(DataError, match="persona 0, attempt 0: no usable reply in 3 tries"):
        generate_set(
            tmp_path / "never",
            Author(lambda name, number, reply: change(reply) if name == "backstory" else None),
        )


def test_incoherent_personas_are_made_again(tmp_path: Path) -> None:
    def spoil(name: str, number: int, reply: dict[str, Any]) -> None:
        if name == "coherent" and number == 1:
            reply.update(coherent=False, issues=["a retired surgeon of 20"])

    author = Author(spoil)
    _, _, (model,) = generate_set(tmp_path, author)
    assert author.asked["coherent"] == 5
    assert "not coherent: a retired surgeon of 20" in model.requests[2].messages[-1].content


def test_records_that_the_authors_fail_are_left_out_with_a_notice(tmp_path: Path) -> None:
    def spoil(name: str, number: int, reply: dict[str, Any]) -> None:
        if name == "dimensions" and number in (2, 3, 4):
            reply["dimensions"].pop()
        if name == "preferences":
            reply["preferences"][0]["local_importance"] = 3 if number > 3 else 9

    path, notices, _ = generate_set(tmp_path, Author(spoil), people=1)
    assert [entry.id[:9] for entry in read_records(path).entries] == ["problem_2"]
    assert [
        notice
        for notice in notices
        if "left out" in notice and "20 dimensions with different names" in notice
    ]
    assert [notice for notice in notices if "left out" in notice and "local_importance" in notice]


def test_missing_criteria_are_requested_again_and_surplus_ones_dropped(tmp_path: Path) -> None:
    def spoil(name: str, number: int, reply: dict[str, Any]) -> None:
        if name == "criteria" and len(reply["criteria"]) > 5:
            reply["criteria"][-1]["preference"] = "Something Else"

    author = Author(spoil)
    path, _, (model,) = generate_set(tmp_path, author, people=1)
    entries, counts, _ = read_records(path)
    assert not counts.total()
    assert {len(entry.criteria) for entry in entries} == {24}
    again = [
        request.messages[-1].content
        for request in model.requests
        if find_kind(request) == "criteria"
    ]
    assert author.asked["criteria"] == 3 * 3
    assert sorted(text.count("v of") for text in again) == [1] * 3 + [2] * 3 + [22] * 3


def test_several_authors_share_the_work_and_a_second_time_costs_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache.sqlite")
    path, _, models = generate_set(tmp_path, Author(), Author(), Author(), cache=cache)
    first = path.read_bytes()
    assert all(len(model.requests) > 5 for model in models)
    path.unlink()
    path, _, repeated = generate_set(tmp_path, Author(), Author(), Author(), cache=cache)
    cache.close()
    assert path.read_bytes() == first
    assert [model.requests for model in repeated] == [[], [], []]


def test_personas_are_shared_by_a_folders_sets(tmp_path: Path) -> None:
    generate_set(tmp_path, Author(), library=3)
    before = json.loads((tmp_path / "sets" / "personas.json").read_text())
    author = Author()
    author.asked["backstory"] = 10
    generate_set(tmp_path, author, library=4)
    after = json.loads((tmp_path / "sets" / "personas.json").read_text())
    assert after[:3] == before
    assert len(after) == 4
    assert author.asked["backstory"] == 11
    generate_set(tmp_path, Author(), library=2)
    assert json.loads((tmp_path / "sets" / "personas.json").read_text()) == after, (
        "no persona is lost"
    )
    with pytest.raises(UsageError, match="at most --persona-pool 2"):
        generate_set(tmp_path, author, people=3, library=2)
    (tmp_path / "sets" / "personas.json").write_text('[{"id": "x"}]')
    with pytest.raises(
        DataError, match=r"personas.json is not a list of personas \(.*`name` - at `\$\[0\]`"
    ):
        generate_set(tmp_path, author)


def test_the_command_writes_a_set_and_prints_how_to_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authors = [Scripted(BackendOptions(model=name), Author()) for name in ("one", "two")]
    waiting = iter(authors)
    monkeypatch.setattr(backends, "create", lambda name, options: next(waiting))
    (tmp_path / "quiz.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    monkeypatch.chdir(tmp_path)
    words = "generate prefdisco --source quiz.jsonl --target sets "
    words += "--problems 2 --personas 1 --persona-pool 2 -b scripted"
    ended = CliRunner().invoke(app, [*words.split(), "--model", "one,two"])
    assert ended.exit_code == 0, ended.output
    assert (
        "ready: personabench run --task prefdisco --data sets --split quiz --method none"
        in ended.output
    )
    assert "problem 2 of 2: 1 of 1 records" in ended.output
    assert "calls, 0 of them cached" in ended.output
    assert len(read_records(tmp_path / "sets" / "quiz.jsonl").entries) == 2
    assert all(author.requests for author in authors)


def test_other_tasks_make_no_sets() -> None:
    words = "generate lamp4 --source x --target sets -b scripted --model one"
    ended = CliRunner().invoke(app, words.split())
    assert isinstance(ended.exception, UsageError)
    assert "task lamp4 makes no sets of its own" in str(ended.exception)
