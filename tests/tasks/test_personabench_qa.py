"""PersonaBench's private-data questions: files, times, scores, and what methods see."""

from __future__ import annotations

import asyncio
import json
import locale
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import folder_server, serving

from personabench.api import registry
from personabench.errors import DataError, UsageError
from personabench.leaderboard import BoardOptions, boards
from personabench.leaderboard.run_comparison import compare_runs, to_dict
from personabench.metrics import private_qa
from personabench.results.index import read_run, read_runs
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.run.options import Options
from personabench.tasks import personabench_qa
from personabench.tasks.personabench_qa import PersonaBenchQA
from personabench.tasks.personabench_qa.download import download
from personabench.tasks.personabench_qa.files import read_time
from personabench.testing import check_task, trial

EXAMPLE = Path(personabench_qa.__file__).parent / "sample"


def test_the_example_has_people_with_documents_and_a_warning_about_others() -> None:
    dataset = PersonaBenchQA().open("all", None)
    assert len(dataset.index()) == 72 and len({user for _, user in dataset.index()}) == 12
    assert dataset.warnings == ("people without documents, who are left out: 1",)
    subjective = PersonaBenchQA(PersonaBenchQA.Params(subjective=True)).open("all", None)
    assert len(subjective.index()) == 84


def test_an_audit_counts_categories_outdated_values_and_answers_that_are_no_texts() -> None:
    task = PersonaBenchQA()
    dataset = task.open("all", None)
    path = EXAMPLE / "community_0" / "eval_info" / "eval_info_all.json"
    named = {user.partition("/")[2] for _, user in dataset.index()}
    questions = [
        question
        for person in json.loads(path.read_text())
        if person["Name"] in named
        for question in person["Eval_Info"]["qa"]
        if question["type"] != "Subjective"
    ]
    kinds = [
        {type(m) for m in (q["answer"] if isinstance(q["answer"], list) else [q["answer"]])}
        for q in questions
    ]
    categories, values = task.counts(dataset)
    basic = sum(q["type"] == "Basic information" for q in questions)
    assert categories.startswith(f"questions by category: {basic} basic, ")
    assert values == (
        f"{sum(bool(q['outdated_value']) for q in questions)} questions have an outdated value, "
        f"{sum(int in kind for kind in kinds)} a number as their answer and "
        f"{sum(dict in kind for kind in kinds)} an object"
    )


def test_a_score_of_a_category_is_over_its_questions() -> None:
    task = PersonaBenchQA()
    samples = list(task.open("all", None).samples())
    rows = [task.measure("x", sample) for sample in samples]
    sizes = {
        metric.name: metric.size(np.array([row[metric.name] for row in rows]))
        for metric in task.metrics
        if metric.size is not None
    }
    outdated = sum(sample.hidden["outdated"] != "[]" for sample in samples)
    assert sizes.pop("outdated-recall") == outdated > 0
    assert min(sizes.values()) > 0 and sum(sizes.values()) == len(samples)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2023/Feb/03/09:05 PM", "2023-02-03T21:05"),
        ("2023/Feb/03/12:05 AM", "2023-02-03T00:05"),
        ("2023/Dec/13/12:05 PM", "2023-12-13T12:05"),
    ],
)
def test_times_are_read_in_any_locale(text: str, time: str) -> None:
    before = locale.setlocale(locale.LC_TIME)
    try:
        for name in ("C", "de_DE.UTF-8"):
            try:
                locale.setlocale(locale.LC_TIME, name)
            except locale.Error:
                continue
            assert read_time(text, "x") == time
    finally:
        locale.setlocale(locale.LC_TIME, before)


@pytest.mark.parametrize(
    "value",
    [
        *("2023-02-03", "2023/Foo/03/09:05 PM", None, 7),
        *("2023/Feb/31/09:05 PM", "2023/Feb/03/13:05 PM", "2023/Feb/03/09:65 PM"),
    ],
)
def test_another_time_is_an_error_with_its_place(value: object) -> None:
    with pytest.raises(DataError, match="file, segment 7: time is"):
        read_time(value, "file, segment 7")


def test_a_level_that_is_missing_is_an_error_with_those_that_exist() -> None:
    with pytest.raises(DataError, match=re.escape("has no noise 0.7; it has: 0.0")):
        PersonaBenchQA(PersonaBenchQA.Params(noise="0.7")).open("all", None)


def test_every_gold_as_words_has_f1_1() -> None:
    task = PersonaBenchQA()
    for sample in task.open("all", None).samples():
        assert task.measure(sample.references[0], sample)["f1"] == 1.0


@pytest.mark.parametrize(
    ("gold", "answer", "precision", "recall"),
    [
        ([{"dog": "Rex"}], "Rex", 1.0, 0.5),
        ([{"dog": "Rex"}], "dog Rex", 1.0, 1.0),
        (39, "39", 1.0, 1.0),
        (["A b", "c"], "C, a b", 1.0, 1.0),
        ("Jazz", "!!!", 0.0, 0.0),
    ],
)
def test_answers_of_every_type(gold: Any, answer: str, precision: float, recall: float) -> None:
    score = private_qa.score_overlap(answer, gold)
    assert (score.precision, score.recall) == (precision, recall)
    assert score.emptied == (answer == "!!!")
    total = precision + recall
    assert score.f1 == pytest.approx(2 * precision * recall / total if total else 0.0)


def test_an_outdated_value_among_others_is_repeated_whole() -> None:
    assert private_qa.outdated_recall("rock and jazz", ["Jazz"]) == 1.0


def test_word_sets_equal_an_independent_computation() -> None:
    """On 500 pairs of a gold of every type and the words of some golds."""
    draw = random.Random(0)
    samples = PersonaBenchQA().open("all", None).samples()
    golds = ["Green Tea", *(json.loads(sample.hidden["answer"]) for sample in samples)]
    kinds = {type(gold) for gold in golds}
    assert kinds == {str, int, list} and any(
        isinstance(member, dict) for gold in golds if isinstance(gold, list) for member in gold
    )
    pool = [word for gold in golds for word in str(gold).split()]
    for _ in range(500):
        gold = draw.choice(golds)
        answer = " ".join([*draw.choices(pool, k=draw.randint(0, 5)), *str(gold).split()[:2]])
        score = private_qa.score_overlap(answer, gold)
        assert (score.precision, score.recall, score.f1) == pytest.approx(
            _independent_scores(answer, gold)
        )


def _independent_scores(answer: str, gold: Any) -> tuple[float, float, float]:
    def split(text: str) -> list[str]:
        kept = [c for c in text.lower() if c.isspace() or (c.isascii() and c.isalnum())]
        return sorted(set("".join(kept).split()))

    # Members as Python writes them: an object with its key and its value.
    members = [str(member) for member in gold] if isinstance(gold, list) else [str(gold)]
    wanted, given = split(" ".join(members)), split(answer)
    shared = len([word for word in given if word in wanted])
    if not shared:
        return 0.0, 0.0, 0.0
    precision, recall = shared / len(given), shared / len(wanted)
    return precision, recall, 2 * precision * recall / (precision + recall)


def test_retrieval_is_scored_by_the_best_choice_of_segments() -> None:
    task = PersonaBenchQA()
    sample = next(
        s for s in task.open("all", None).samples() if len(json.loads(s.hidden["segments"])) == 2
    )
    first, second = json.loads(sample.hidden["segments"])
    both = task.measure_retrieval(sample, [first[0], second[0], first[0]])
    assert both["retrieval-recall"] == 1.0 and both["retrieval-ndcg"] == 1.0
    assert both["evidence-recall"] == 1.0
    # Nothing was searched for, and nothing was found.
    values = task.measure_retrieval(sample, ())
    assert values == {"evidence-recall": 0.0, "records-shown": 0.0}


@pytest.mark.parametrize(("owner", "count"), [("named", 1), ("unnamed", 0)])
def test_nothing_hidden_reaches_a_request_and_the_owner_is_named_once(
    tmp_path: Path, owner: Any, count: int
) -> None:
    data = tmp_path / "data"
    shutil.copytree(EXAMPLE, data)
    for path in data.glob("community_*/eval_info/*.json"):
        plant(path, ("answer", "outdated_value"))
    (data / "community_0" / "graph_json").mkdir(exist_ok=True)
    (data / "community_0" / "graph_json" / "social_graph.json").write_text('["SENTINEL"]')
    # Gold segments are documents, which have ids of digits alone.
    for path in data.rglob("*.json"):
        path.write_text(re.sub(r'"(\d{12})"', r'"SENTINEL\1"', path.read_text()))

    task = PersonaBenchQA(PersonaBenchQA.Params(owner=owner))
    dataset = task.open("all", data)
    samples = list(dataset.samples())
    assert all(mark.startswith("SENTINEL") for sample in samples for mark in sample.evidence)
    names = {sample.attributes["name"] for sample in samples}
    questions = {sample.input for sample in samples}
    chunks = {record.response for sample in samples for record in sample.history}
    for method in ("none", "rag", "recency", "full", "summary"):
        result = trial(method, task, dataset=dataset, limit=6)
        for request in result.requests:
            text = "\n".join(message.content for message in request.messages)
            assert "SENTINEL" not in text
            if method == "summary" or "Question: " not in text:
                continue
            for part in chunks | questions:
                text = text.replace(part, "")
            assert sum(text.count(name) for name in names) == count


def plant(path: Path, fields: tuple[str, ...]) -> None:
    """Replace what hidden fields hold, of whatever type, by a sentinel."""

    def replace(value: Any) -> Any:
        if isinstance(value, list):
            return [replace(member) for member in value]
        if not isinstance(value, dict):
            return value
        return {
            key: "SENTINEL" if key in fields and part else replace(part)
            for key, part in value.items()
        }

    path.write_text(json.dumps(replace(json.loads(path.read_text()))))


def test_the_oracle_shows_each_gold_segment_once_and_counts_those_that_are_missing(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    shutil.copytree(EXAMPLE, data)
    path = data / "community_0" / "eval_info" / "qa_gt_context_all_noise_0.0.json"
    golds = json.loads(path.read_text())
    missing = golds[0]["q_id"]
    for alternatives in golds[0]["segment_id"].values():
        alternatives.append("999999999999")
    path.write_text(json.dumps(golds))
    task = PersonaBenchQA()
    result = trial("evidence", task, dataset=task.open("all", data))
    assert registry.load_class("method", "evidence").privileged
    flagged = [line.sample_id for line in result.predictions if "evidence_missing" in line.flags]
    assert flagged == [f"community_0-{missing}"]
    for line in result.predictions:
        assert line.shown and len(set(line.shown)) == len(line.shown)


def test_a_question_without_gold_segments_fails_the_check_by_its_id(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(EXAMPLE, data)
    path = data / "community_0" / "eval_info" / "qa_gt_context_all_noise_0.0.json"
    golds = json.loads(path.read_text())
    path.write_text(json.dumps(golds[1:]))
    failed = [f for f in check_task(PersonaBenchQA(), "all", data) if f.holds is False]
    assert any(f"community_0-{golds[0]['q_id']}" in f"{f.what} {f.detail}" for f in failed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": None}, "question 7: an answer is None, expected a text or a number"),
        ({"answer": [True]}, "question 7: an answer is True"),
        ({"answer": []}, "question 7: answer is an empty list"),
        ({"type": "Riddle"}, "type and difficulty are 'Riddle' and 'easy'"),
        ({"type": "Preference", "difficulty": "odd"}, "are 'Preference' and 'odd'"),
    ],
)
def test_a_question_that_cannot_be_scored_is_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "data")
    question = {"q_id": "7", "question": "Who?", "answer": "x", "type": "Social"}
    question |= {"difficulty": "easy", **change}
    people = [{"Name": "Alma Reyes", "Eval_Info": {"qa": [question]}}]
    path = tmp_path / "data" / "community_0" / "eval_info" / "eval_info_all.json"
    path.write_text(json.dumps(people))
    with pytest.raises(DataError, match=re.escape(message)):
        PersonaBenchQA().open("all", tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("private_data/noise_0.0/purchase_history_data_all.json", "{}", "not a file of"),
        (
            "private_data/noise_0.0/purchase_history_data_all.json",
            '[{"Name": "Alma Reyes", "Data": [{"session": "x"}]}]',
            "a session has no list purchase_history",
        ),
        (
            "private_data/noise_0.0/conversation_data_all.json",
            '[{"Name": "Alma Reyes", "Data": [{"Conversations": [{"conversation": []}]}]}]',
            "segment_id is no text",
        ),
        (
            "private_data/noise_0.0/conversation_data_all.json",
            '[{"Name": "Alma Reyes", "Data": [{"Conversations": [{"segment_id": "1", '
            '"conversation": [{"role": "Alma", "content": null}]}]}]}]',
            "segment 1, turn 0: role and content are not both texts",
        ),
        ("eval_info/eval_info_all.json", "[1]", "not a file of"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "data")
    (tmp_path / "data" / "community_0" / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        PersonaBenchQA().open("all", tmp_path / "data")
    assert Path(name).name in str(caught.value)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(folder_server(EXAMPLE)) as http_server:
        yield http_server.url


def test_files_are_fetched_checked_and_open(server: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"base_url": server, "levels": ("0.0",)}
    paths = download("all", tmp_path, communities={"community_0": 84}, **options)
    assert len(paths) == 5
    assert len(PersonaBenchQA().open("all", tmp_path).index()) == 72
    with pytest.raises(DataError, match="84 questions about people with documents"):
        download("all", tmp_path, communities={"community_0": 133}, **options)
    with pytest.raises(UsageError, match="it has: all"):
        download("dev", tmp_path)


def test_two_levels_of_noise_give_robustness_and_updating() -> None:
    low = ({"noise": "0.0", "owner": "named"}, {"f1": 0.5, "outdated-recall": 0.25})
    high = ({"noise": "0.7", "owner": "named"}, {"f1": 0.3, "outdated-recall": 0.5})
    expected = {
        "noise robustness": pytest.approx(0.8),
        "information updating at 0.0": 0.75,
        "information updating at 0.7": 0.5,
    }
    for first, second in ((low, high), (high, low)):
        derived = PersonaBenchQA.derive((first[0], second[0]), (first[1], second[1]))
        assert derived == expected
    other = {**high[0], "owner": "unnamed"}
    assert PersonaBenchQA.derive((low[0], other), (low[1], high[1])) == {}
    assert PersonaBenchQA.derive((low[0], low[0]), (low[1], low[1])) == {}


@pytest.mark.usefixtures("few_draws")
def test_compare_prints_them(tmp_path: Path) -> None:
    """On a second level that is a copy of the first, nothing is lost to noise."""
    data = tmp_path / "data"
    shutil.copytree(EXAMPLE, data)
    for community in data.glob("community_*"):
        documents = community / "private_data"
        shutil.copytree(documents / "noise_0.0", documents / "noise_0.5")
        golds = community / "eval_info" / "qa_gt_context_all_noise_0.0.json"
        shutil.copy(golds, golds.with_name("qa_gt_context_all_noise_0.5.json"))
    runs = []
    for noise in ("0.0", "0.5"):
        options = Options(
            ["none"],
            ["personabench_qa"],
            backend="scripted",
            limit=4,
            data=data,
            results=tmp_path,
            assignments=[f"task.noise={noise}"],
        )
        (outcome,) = asyncio.run(runner.run(options))
        runs.append(read_run(outcome.folder))
    comparison = compare_runs(*runs, allow_mismatch=True)
    assert comparison.derived["noise robustness"] == 1.0
    assert set(to_dict(comparison)["derived"]) == {
        *("noise robustness", "information updating at 0.0", "information updating at 0.5")
    }


@pytest.mark.variants
def test_a_table_of_six_people_says_who_carries_the_interval_and_the_n_of_categories(
    tmp_path: Path,
) -> None:
    methods = ["none", "copy_input"]
    options = Options(methods, ["personabench_qa"], backend="scripted", users=6, results=tmp_path)
    asyncio.run(runner.run(options))
    (board,) = boards(read_runs(tmp_path), options=BoardOptions(results=tmp_path, thorough=True))
    (note,) = [note for note in board.notes if note.startswith("Only ")]
    assert note.startswith("Only 6 users carry the intervals and tests")
    columns = board.rows[0].columns
    golds = list(PersonaBenchQA().open("all", None).samples())
    measured = {line.sample_id for line in RunFolder(Path(board.rows[0].folder)).iter_predictions()}
    for name in ("basic", "preference-easy", "preference-hard", "social"):
        ids = {sample.id for sample in golds if sample.hidden["category"] == name}
        assert columns[f"f1-{name}/n"] == len(ids & measured) > 0
    assert columns["f1/n"] == len(measured)
