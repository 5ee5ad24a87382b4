"""PersonaBench's private-data questions: files, times, scores, and what methods see."""

from __future__ import annotations

import asyncio
import json
import locale
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import folder_server, serving

from personabench.errors import DataError, UsageError
from personabench.leaderboard.run_comparison import compare_runs, to_dict
from personabench.metrics import private_qa
from personabench.results.index import read_run
from personabench.run import runner
from personabench.run.options import Options
from personabench.tasks import personabench_qa
from personabench.tasks.personabench_qa import PersonaBenchQA
from personabench.tasks.personabench_qa.download import download
from personabench.tasks.personabench_qa.files import read_time
from personabench.testing import trial

EXAMPLE = Path(personabench_qa.__file__).parent / "sample"


def test_the_example_has_people_with_documents_and_a_warning_about_others() -> None:
    dataset = PersonaBenchQA().open("all", None)
    assert len(dataset.index()) == 72 and len({user for _, user in dataset.index()}) == 12
    assert dataset.warnings == ("people without documents, who are left out: 1",)
    subjective = PersonaBenchQA(PersonaBenchQA.Params(subjective=True)).open("all", None)
    assert len(subjective.index()) == 84


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
    ],
)
def test_answers_of_every_type(gold: Any, answer: str, precision: float, recall: float) -> None:
    score = private_qa.score_overlap(answer, gold)
    assert (score.precision, score.recall) == (precision, recall)


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


def test_nothing_hidden_reaches_a_request_and_the_owner_is_named_once(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "data")
    folder = tmp_path / "data" / "community_0" / "eval_info"
    for path in folder.glob("*.json"):
        text = re.sub(
            r'"(answer|outdated_value)": ("[^"]*")', r'"\1": "SENTINEL"', path.read_text()
        )
        path.write_text(text)
    for owner, count in (("named", 1), ("unnamed", 0)):
        task = PersonaBenchQA(PersonaBenchQA.Params(owner=owner))  # type: ignore[arg-type]
        result = trial("none", task, dataset=task.open("all", tmp_path / "data"), limit=6)
        for request in result.requests:
            text = "\n".join(message.content for message in request.messages)
            assert "SENTINEL" not in text
            assert text.count("asks about their own life") == count


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
