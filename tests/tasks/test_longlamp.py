"""LongLaMP: formats, the benchmark's prompts, cutting, ids and scores."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_hub import COMMIT, serve_dataset

from personabench.api import registry
from personabench.errors import DataError, UsageError
from personabench.metrics import meteor, wordnet
from personabench.models.tokens import EstimatedTokens
from personabench.retrieval.search import search
from personabench.tasks import longlamp
from personabench.tasks.longlamp import scoring
from personabench.tasks.longlamp.download import download
from personabench.tasks.longlamp.forms import FORMS
from personabench.testing import trial
from personabench.types import Record, Sample

NAMES = tuple(FORMS)
CONFIGS = {name: f"{form.config}_user" for name, form in FORMS.items()}
OFFICIAL = "longlamp-official"
LLAMA = "longlamp-llama"


async def no_vectors(texts: Sequence[str]) -> Any:
    raise AssertionError("no vectors are needed")


def create(name: str, **params: Any) -> Any:
    cls = registry.load_class("task", name)
    return cls(cls.Params(**params))


def write_rows(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / CONFIGS[name] / "test.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return folder


def prompt(name: str, data: Path, k: int | None = None, **params: Any) -> str:
    """The only message of the official prompt with all entries of the first row."""
    task = create(name, **{"template": OFFICIAL, "length": 0, **params})
    sample = task.open("user/test", data).load(0)
    records = sample.history if k is None else sample.history[:k]
    (message,) = task.render(sample, records, "", EstimatedTokens()).messages
    assert message.role == "user"
    return message.content


TOPIC = {"author": "ada", "input": "Write about rain.", "output": "It rained."}
OLD = [
    {"id": "1", "summary": "Sun", "content": 'It "shone".'},
    {"id": 2, "summary": "Wind", "content": "It blew."},
]


def test_acceptance_1_empty_answers_count_and_the_reference_leaves_them_out() -> None:
    task = create("longlamp_topic")
    sample = Sample("1", "u", input="x", references=("a b",))
    rows = [
        task.measure(task.parse(output, sample, "official"), sample) for output in ("a b", "", "  ")
    ]
    values: dict[str, float] = {}
    for metric in task.metrics:
        values[metric.name] = metric.aggregate(np.array([row[metric.name] for row in rows]))
    assert values["rouge-1"] == pytest.approx(1 / 3, abs=1e-4)
    assert values["rouge-1-reference-compatible"] == 1.0 and values["n-skipped"] == 2


def test_acceptance_2_meteor(monkeypatch: pytest.MonkeyPatch) -> None:
    if meteor.describe_missing_data():
        pytest.skip("WordNet is missing")
    assert meteor.meteor("one two three four", "one two three four") == pytest.approx(
        0.9922, abs=1e-4
    )
    assert meteor.meteor("one two", "three four") == 0.0
    assert meteor.meteor("y" * 10_000, "y" * 10_000) > 0

    monkeypatch.setattr(wordnet, "find_wordnet", lambda: None)
    task = create("longlamp_topic")
    assert not any(metric.name.startswith("meteor") for metric in task.metrics)
    result = trial("none", task, answer=lambda _: "It rained.")
    assert result.summary is not None and "meteor" not in result.summary.metrics["official"]
    warnings = task.open("user/test", None).warnings
    assert any("METEOR is left out" in text for text in warnings)


def test_acceptance_3_topic_entries_of_both_names_give_the_official_prompt(tmp_path: Path) -> None:
    other = [{"id": e["id"], "input": e["summary"], "output": e["content"]} for e in OLD]
    first = write_rows(tmp_path / "a", "longlamp_topic", [{**TOPIC, "profile": OLD}])
    second = write_rows(tmp_path / "b", "longlamp_topic", [{**TOPIC, "profile": other}])
    expected = (
        '"Sun" is a summary for "It "shone"." , and "Wind" is a summary for "It blew." '
        ". Following the given patterns, Write about rain."
    )
    assert prompt("longlamp_topic", first) == prompt("longlamp_topic", second) == expected
    assert prompt("longlamp_topic", first, template=LLAMA) == expected.replace(
        "patterns,", "patterns"
    )


def test_official_prompts_of_the_other_tasks(tmp_path: Path) -> None:
    entry = {"overall": 4, "summary": "Warm", "description": "A hat", "reviewText": "It fits."}
    second = {**entry, "overall": "4.0", "reviewText": " ".join(["word"] * 120)}
    row = {"reviewerId": None, "input": "Write the review.", "output": "x", "profile": [entry]}
    data = write_rows(tmp_path, "longlamp_review", [row])
    assert prompt("longlamp_review", data) == (
        '"4" is a rating for the product with description "A hat". "Warm" is summary for '
        '"It fits." . Following the given patterns Write the review.'
    )
    write_rows(tmp_path, "longlamp_review", [{**row, "profile": [entry, second]}])
    assert '"4.0" is a rating' in prompt("longlamp_review", data)
    llama = prompt("longlamp_review", data, template=LLAMA)
    assert llama.startswith('Below are a list of review texts by the reviewer:"It fits."')
    assert llama.count("word") == 100
    assert llama.endswith(
        "Use the above list of review texts by the reviewer as context to understand the writing "
        "style and language of the reviewer and, Write the review."
    )
    email = {
        "name": "b",
        "input": "Complete: Hi",
        "output": "x",
        "profile": [{"title": "T", "text": "Yes."}],
    }
    data = write_rows(tmp_path, "longlamp_email", [email])
    assert prompt("longlamp_email", data) == '"T" is the title for "Yes." . Complete: Hi'


def abstract_row(words: int, text: str = "Write. items: 1. bees") -> dict[str, Any]:
    content = " ".join(f"w{number}" for number in range(words))
    entry = {"id": "a", "title": "Bees", "abstract": content, "year": 2019}
    return {"name": "ada", "input": text, "output": "x", "profile": [entry]}


def test_acceptance_4_words_of_abstracts_queries_and_empty_profiles(tmp_path: Path) -> None:
    name = "longlamp_abstract"
    data = write_rows(tmp_path, name, [abstract_row(800)])
    shown = prompt(name, data)
    assert (
        shown.startswith('"w0 w1 ') and 'w749" is the abstract for the title "Bees". Use' in shown
    )
    task = create(name)
    sample = task.open("user/test", data).load(0)
    assert task.query_text(sample) == "1. bees"
    assert task.document_text(sample.history[0]).startswith("Bees w0 w1")
    assert sample.history[0].time == "2019"

    bare = {**abstract_row(3, "Write of bees"), "profile": []}
    write_rows(tmp_path, name, [bare])
    sample = task.open("user/test", data).load(0)
    assert task.query_text(sample) == "Write of bees"
    assert prompt(name, data) == "Write of bees"
    result = trial("rag", task, dataset=task.open("user/test", data), answer=lambda _: "x")
    assert result.summary is not None
    assert result.summary.counters["query_fallback"] == 1
    assert result.summary.counters["empty_profile"] == 1


async def test_acceptance_5_unknown_retrievers_are_refused_and_file_order_is_the_last_first() -> (
    None
):
    with pytest.raises(UsageError, match="unknown retriever 'contriver'"):
        rag = registry.load_class("method", "rag")
        trial(rag(rag.Params(retriever="contriver")), create("longlamp_topic"))

    records = [Record(str(number), response=f"text {number}") for number in range(1, 6)]
    found = await search(
        records,
        query="text",
        document=lambda record: record.response,
        k=2,
        by="file-order",
        tokenizer="whitespace",
        rng=random.Random(0),
        embed=no_vectors,
        ranking=None,
        flag=print,
    )
    assert [record.id for record in found] == ["5", "4"]


@pytest.mark.parametrize("template", ["chat", OFFICIAL, LLAMA])
@pytest.mark.parametrize("name", NAMES)
def test_acceptance_6_long_texts_are_cut_to_shares_and_the_input_stays(
    name: str, template: str, tmp_path: Path
) -> None:
    rows = [
        json.loads(line)
        for line in (longlamp.SAMPLE / CONFIGS[name] / "test.jsonl").read_text().splitlines()
    ]
    field = FORMS[name].long_field
    for row in rows:
        for entry in row["profile"][1:]:
            entry[field] = f"{entry[field]} " * 40
    data = write_rows(tmp_path, name, rows)
    task = create(name, template=template, length=700)
    tokens = EstimatedTokens()
    sample = task.open("user/test", data).load(0)
    rendered = task.render(sample, sample.history, "", tokens)
    text = "\n\n".join(message.content for message in rendered.messages)
    assert tokens.count(text) <= 700 and rendered.flags["tokens_dropped"] > 0
    assert len(rendered.records) == len(sample.history) and sample.input in text
    # The short text is whole, and the others share what it leaves.
    if template != LLAMA:
        assert rows[0]["profile"][0][field] in text
    assert tokens.count(text) > 600 or template == LLAMA

    small = create(name, template=template, length=tokens.count(sample.input) + 60)
    rendered = small.render(sample, sample.history, "", tokens)
    text = "\n\n".join(message.content for message in rendered.messages)
    assert sample.input in text
    assert {"bare_fallback", "records_dropped", "tokens_dropped"} & rendered.flags.keys()


def test_acceptance_6_an_input_over_the_context_is_counted() -> None:
    task = create("longlamp_topic", template=OFFICIAL, length=20)
    sample = Sample("1", "u", input="Write about rain. " * 40, references=("x",))
    rendered = task.render(sample, (), "", EstimatedTokens())
    assert rendered.flags["input_truncated"] == 1
    assert rendered.messages[0].content.startswith("Write about rain.")
    result = trial("rag", create("longlamp_topic", length=0), answer=lambda _: "x", window=1300)
    assert result.summary is not None and result.summary.counters["records_dropped"] > 0
    assert all(prediction.error is None for prediction in result.predictions)


def test_acceptance_7_users_ids_and_hashes(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {**TOPIC, "profile": OLD},
        {**TOPIC, "author": None, "input": "Of snow.", "profile": OLD},
        {"input": "Of hail.", "output": "It hailed.", "profile": OLD},
    ]
    data = write_rows(tmp_path, "longlamp_topic", rows)
    first = create("longlamp_topic").open("user/test", data)
    second = create("longlamp_topic").open("test", data)
    assert [*first.index()] == [*second.index()] and first.hash == second.hash
    assert [user for _, user in first.index()] == [
        "ada",
        "topic_writing_user-test-1",
        "topic_writing_user-test-2",
    ]
    assert any("2 rows name no user" in warning for warning in first.warnings)
    rows[0]["output"] = "It poured."
    write_rows(tmp_path, "longlamp_topic", rows)
    changed = create("longlamp_topic").open("user/test", data)
    assert [*changed.index()] == [*first.index()] and changed.hash != first.hash
    assert changed.load(0).hidden["content"] != first.load(0).hidden["content"]


def test_repeated_ids_of_entries_and_parquet_are_read(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    folder = tmp_path / "topic_writing_temporal"
    folder.mkdir()
    twice = [OLD[0], {**OLD[1], "id": "1"}]
    pandas.DataFrame([{**TOPIC, "profile": twice}]).to_parquet(
        folder / "val-00000-of-00001.parquet"
    )
    dataset = create("longlamp_topic").open("temporal/dev", tmp_path)
    assert [record.id for record in dataset.load(0).history] == ["1", "1-2"]
    assert dataset.split == "val" and dataset.separation == "temporal"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.update(profile="none"), "profile is str, expected a list"),
        (lambda row: row["profile"].append(3), "profile entry 3 is int"),
        (lambda row: row["profile"][1].pop("summary"), "profile entry 2 has no field 'summary'"),
        (lambda row: row.pop("output"), "output is None, expected text"),
    ],
)
def test_a_broken_row_is_named(change: Any, message: str, tmp_path: Path) -> None:
    row = json.loads(json.dumps({**TOPIC, "profile": OLD}))
    change(row)
    data = write_rows(tmp_path, "longlamp_topic", [{**TOPIC, "profile": OLD}, row])
    with pytest.raises(DataError, match=message) as caught:
        create("longlamp_topic").open("user/test", data)
    assert "test.json, entry 2" in str(caught.value)


def test_splits_that_are_not_there() -> None:
    task = create("longlamp_topic")
    with pytest.raises(UsageError, match="such as temporal/test"):
        task.open("user/all", None)
    with pytest.raises(UsageError, match=r"user/test alone.*topic_writing_temporal"):
        task.open("temporal/test", None)


def test_emails_need_a_licence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="need a licence"):
        create("longlamp_email").open("user/test", tmp_path)
    with pytest.raises(UsageError, match="Avocado"):
        download("longlamp_email", "user/test", tmp_path)


def test_repetition_is_the_share_of_sequences_seen_before() -> None:
    assert scoring.measure_repetition("a b c") == 0.0
    assert scoring.measure_repetition("a b c d e f") == 0.0
    assert scoring.measure_repetition("a " * 7) == pytest.approx(3 / 4)


def test_scales_of_metrics() -> None:
    values = scoring.measure_text("the cat sat on the mat", "the cat sat on the mat", False)
    metrics = {metric.name: metric for metric in scoring.METRICS}
    assert metrics["bleu"].aggregate(np.array([values["bleu"]])) == pytest.approx(100.0)
    assert values["rouge-2"] == values["rouge-Lsum"] == 1.0 and "meteor" not in values


@pytest.mark.parametrize("name", NAMES)
def test_golds_reach_no_request(name: str) -> None:
    task = create(name)
    golds = [sample.references[0] for sample in task.open("user/test", None).samples()]
    result = trial("rag", task, answer=lambda _: "x")
    text = "\n".join(m.content for request in result.requests for m in request.messages)
    assert len(golds) == 12 and not any(gold in text for gold in golds)


def test_a_split_is_fetched_checked_and_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    shutil.copytree(longlamp.SAMPLE, tmp_path / "served")
    notices: list[str] = []
    target = tmp_path / "data"
    with serve_dataset(tmp_path / "served") as url:
        download("longlamp_review", "user/test", target, base_url=url, notice=notices.append)
    assert notices == ["product_review_user/test has 12 rows, published are 1822"]
    files = json.loads((target / "longlamp" / "manifest.json").read_text())["files"]
    (entry,) = files.values()
    assert entry["count"] == 12 and f"/resolve/{COMMIT}/product_review_user" in entry["url"]
    assert len(create("longlamp_review").open("user/test", target).index()) == 12

    broken = tmp_path / "served" / "topic_writing_user" / "test.jsonl"
    broken.write_text('{"input": "x"}\n')
    with (
        serve_dataset(tmp_path / "served") as url,
        pytest.raises(DataError, match="line 1: output"),
    ):
        download("longlamp_topic", "user/test", tmp_path / "other", base_url=url)
    assert not (tmp_path / "other" / "longlamp" / "manifest.json").exists()
