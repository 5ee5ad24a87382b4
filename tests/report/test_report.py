"""The report's contents: the leaderboard's numbers, sentences that claim no more, packs that hold
every text once."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import SUITE, Method, make

from personabench.errors import UsageError
from personabench.leaderboard import BoardOptions, boards
from personabench.report import write
from personabench.report.groups import gather
from personabench.report.sample_facts import SampleFacts
from personabench.report.samples import MARK, Pack
from personabench.report.tables import describe
from personabench.report.user_scores import user_gains
from personabench.report.words import summary
from personabench.results.index import read_runs
from personabench.results.published import publish
from personabench.results.run_folder import RunFolder
from personabench.types import Call, Prediction, Sample, Usage


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made_up") / "results"
    make(folder)
    return folder


@pytest.fixture(scope="module")
def page(results: Path) -> str:
    path = results.parent / "report.html"
    assert write(results, path) == []
    return path.read_text(encoding="utf-8")


def block(page: str, name: str) -> Any:
    found = re.search(rf'<script type="([a-z/]+)" id="{name}">(.*?)</script>', page, re.S)
    assert found, name
    if found[1] == "application/json":
        return json.loads(found[2])
    return json.loads(gzip.decompress(base64.b64decode(found[2])))


def test_every_number_is_the_leaderboards(results: Path, page: str) -> None:
    (board,) = boards(read_runs(results), options=BoardOptions(thorough=True))
    (group,) = block(page, "report")["groups"]
    assert [row["label"] for row in group["rows"]] == [row.label for row in board.rows]
    for shown, row in zip(group["rows"], [row.columns for row in board.rows], strict=True):
        for metric in ("rouge-1", "rouge-L"):
            found = shown["metrics"][metric]
            assert found["value"] == pytest.approx(row[metric], rel=1e-5)
            assert found["low"] == pytest.approx(row[f"{metric}/low"], rel=1e-5)
        for name, key in (("value", "gain"), ("high", "gain_high"), ("p", "gain_p")):
            assert shown["gain"][name] == (row[key] and pytest.approx(row[key], rel=1e-5))
        assert shown["personal"] is row["personal"]
        assert len(shown["beats"]) == len(row["beats"])
    assert group["rows"][group["baseline"]]["label"] == "none"


def test_letters_of_beaten_rows_are_rows_that_score_lower(page: str) -> None:
    (group,) = block(page, "report")["groups"]
    value = {row["letter"]: row["metrics"]["rouge-1"]["value"] for row in group["rows"]}
    beaten = [(row["letter"], other) for row in group["rows"] for other in row["beats"]]
    assert len(beaten) >= 5
    assert all(value[row] > value[other] for row, other in beaten)


def test_gains_of_users_agree_with_the_gain_of_the_table(results: Path) -> None:
    (group,) = gather(results)
    base = group.rows[group.baseline or 0]
    for row in group.rows:
        if row is base:
            continue
        gains = user_gains(row, base)
        assert gains is not None
        assert gains == sorted(gains)
        assert len(gains) == 40
        assert sum(gains) / 40 == pytest.approx(row.row.columns["gain"], abs=1e-9)
        assert sum(gain < -1e-12 for gain in gains) == row.row.columns["loss_users"]


def test_gains_of_many_users_become_quantiles(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("personabench.report.user_scores.POINTS", 10)
    (group,) = gather(results)
    gains = user_gains(group.rows[0], group.rows[group.baseline or 0])
    assert gains is not None and len(gains) == 10 and gains == sorted(gains)


def test_curves_are_runs_that_share_everything_else(page: str) -> None:
    (group,) = block(page, "report")["groups"]
    found = {curve["over"]: curve for curve in group["curves"]}
    assert found.keys() == {"history", "k"}
    assert [point["x"] for point in found["history"]["points"]] == [1, 3, None]
    assert [point["x"] for point in found["k"]["points"]] == [1, 2, 4]
    labels = [group["rows"][point["row"]]["label"] for point in found["k"]["points"]]
    assert labels == ["rag (k=1)", "rag (k=2)", "rag (k=4)"]


def test_words_claim_what_the_corrected_tests_carry(page: str) -> None:
    (group,) = block(page, "report")["groups"]
    text = " ".join(group["words"])
    for row in group["rows"]:
        if row["baseline"] or row["history"] != "own":
            continue
        claimed = f"{row['label']} is significantly" in text
        assert claimed == (row["gain"]["p"] is not None and row["gain"]["p"] <= 0.05), row["label"]
    assert "What rag (k=4) gains is personal" in text
    assert text.startswith("rag (k=4) has the highest rouge-1, ")


def row(label: str, value: float, **changes: Any) -> dict[str, Any]:
    nothing = {"value": None, "low": None, "high": None, "n": None, "p": None, "over": None}
    return {
        "label": label,
        "history": "own",
        "status": "complete",
        "n": 9,
        "leader": False,
        "ranked": True,
        "emphasized": False,
        "beats": [],
        "personal": None,
        "detectable": None,
        "users_changed": None,
        "baseline": False,
        "gain": nothing,
        "shuffled": nothing,
        "trivial": nothing,
        "metrics": {"MAE": {"value": value, "low": None, "high": None}},
        **changes,
    }


def described(
    *rows: dict[str, Any], baseline: int | None = 1, sample: bool = False
) -> dict[str, Any]:
    return {
        "primary": "MAE",
        "metrics": [{"name": "MAE", "higher": False}],
        "rows": list(rows),
        "baseline": baseline,
        "sample": sample,
    }


def gain(value: float, p: float | None, over: str = "none") -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9, "p": p, "over": over}


def test_words_of_a_loss_turn_the_interval_round() -> None:
    text = summary(described(row("none", 0.5), row("rag", 0.8, gain=gain(-0.3, 0.01)), baseline=0))
    assert (
        "rag is significantly worse than none, by 0.3000 [0.2000, 0.4000] (p = 0.010, corrected)."
        in text
    )


def test_words_for_a_metric_where_lower_is_better() -> None:
    (first, *_) = summary(described(row("rag", 0.4), row("none", 0.5)))
    assert first == "rag has the lowest MAE, 0.4000, significantly better than every other run."


def test_words_do_not_call_the_untested_equal() -> None:
    rows = (
        row("rag", 0.4, gain=gain(0.1, None), detectable=0.23, leader=True),
        row("none", 0.5, leader=True),
    )
    text = " ".join(summary(described(*rows)))
    assert "no other run can be told apart" in text
    assert "Not told apart from none: rag. That does not make them equal" in text
    assert "0.23" in text


def test_words_name_doubtful_gains_unfinished_runs_and_samples() -> None:
    doubtful = row("rag", 0.4, personal=False, status="incomplete", trivial=gain(-0.1, 1.0, "mode"))
    text = summary(described(doubtful, row("none", 0.5, n=8), sample=True))
    assert any("rag gains is not shown to be personal" in line for line in text)
    assert "rag does not beat mode, which calls no model." in text
    assert "Not finished: rag." in text
    assert any("different numbers of samples" in line for line in text)
    assert "nothing here is a result about a method" in text[-1]


def test_words_say_when_the_best_saw_fewer_samples_and_name_the_trivial_once() -> None:
    beaten = [row(name, 0.4, n=9, trivial=gain(-0.1, None, "mode")) for name in ("rag", "dpl")]
    text = summary(described(row("rpm", 0.1, n=2), *beaten, row("none", 0.5), baseline=3))
    assert text[0].startswith("rpm has the lowest MAE, 0.1000 (on 2 samples only), ")
    assert "rag and dpl do not beat mode, which calls no model." in text


def test_words_without_a_baseline_and_with_one_run() -> None:
    assert "There is no run of none here" in " ".join(
        summary(described(row("a", 1.0), row("b", 2.0), baseline=None))
    )
    assert summary(described(row("a", 1.0), baseline=None)) == [
        "a is the only run here; its MAE is 1.0000."
    ]


def test_a_pack_stores_a_line_once() -> None:
    pack = Pack()
    first, second = pack.text("one\ntwo\none"), pack.text("two\nthree")
    assert (first, second) == ([0, 1, 0], [1, 2])
    assert pack.plain()["lines"] == ["one", "two", "three"]
    assert pack.size == len("onetwothree")


def test_samples_hold_what_was_asked_said_and_used(page: str) -> None:
    index, pack = block(page, "index-0"), block(page, "pack-0-0")
    group = block(page, "report")["groups"][0]
    at = index["samples"].index("q00003-1")
    sample = pack["samples"][at]

    def text(lines: list[int]) -> str:
        return "\n".join(pack["lines"][line] for line in lines)

    assert text(sample["input"]).endswith("q00003-1")
    assert len(sample["references"]) == 1
    assert sample["history"] == 6
    used: dict[str, int] = {}
    for record in sample["records"]:
        for number in record["rows"]:
            label = group["rows"][number]["label"]
            used[label] = used.get(label, 0) + 1
    shuffled = "rag (k=4, history=shuffled)"
    assert used == {
        "rag (k=4)": 4,
        "rag (k=2)": 2,
        "rag (k=1)": 1,
        "recency": 4,
        "random": 4,
        shuffled: 4,
        "rag (k=4, history=size=1)": 1,
        "rag (k=4, history=size=3)": 3,
    }
    other = [
        text(record["text"])
        for record in sample["records"]
        if group["rows"][record["rows"][0]]["label"] == shuffled
    ]
    assert other and not any(" 3-" in record for record in other), (
        "the shuffled rows saw another user's records"
    )
    by_label = {
        group["rows"][number]["label"]: answer for number, answer in enumerate(sample["answers"])
    }
    (call,) = by_label["rag (k=2)"]["calls"]
    assert [role for role, _ in call["messages"]] == ["system", "user", "user", "user"]
    assert text(call["reply"]) == text(by_label["rag (k=2)"]["output"])
    state = pack["states"][by_label["summary"]["state"]]
    assert json.loads(text(state["text"])) == {"about": "u00003 likes short headlines."}
    assert state["calls"][0]["phase"] == "profile"


def test_samples_of_a_user_stand_together(page: str) -> None:
    users = block(page, "index-0")["users"]
    assert len(users) == 120
    assert sum(a != b for a, b in itertools.pairwise(users)) == len(set(users)) - 1


def test_the_policy_names_every_script_and_allows_no_load(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].replace("&#x27;", "'").split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy[1] and "http" not in policy[1] and "*" not in policy[1]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert rules["script-src"].split() == [f"'sha256-{each}'" for each in hashes]
    assert len(hashes) == 3
    assert rules["img-src"] == "blob:"
    assert rules.keys().isdisjoint({"connect-src", "font-src", "frame-src"})


def test_markup_in_names_cannot_end_a_data_block(tmp_path: Path) -> None:
    name = "x</script><!--<script>alert(1)"
    make(tmp_path, (Method("none"),), users=2, each=1, model={"kind": "scripted", "name": name})
    write(tmp_path, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert block(page, "report")["groups"][0]["model"] == name


def test_messages_go_first_when_the_page_would_grow_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("personabench.report.samples.PACK", 3000)
    make(tmp_path, SUITE[:2], users=30, each=2, words=200)
    whole = tmp_path / "whole.html"
    assert write(tmp_path, whole) == []
    (remark,) = write(tmp_path, tmp_path / "small.html", budget=30_000)
    small = (tmp_path / "small.html").read_text()
    index = block(small, "index-0")
    start = index["bare_from"]
    assert 0 < start < 60
    assert f"from sample {start + 1} of 60" in remark
    assert len(small) < len(whole.read_text()) - 30_000
    parts = [block(small, f"pack-0-{part}") for part in range(len(index["packs"]))]
    samples = [sample for part in parts for sample in part["samples"]]
    assert len(samples) == 60
    asked = [sample["answers"][0]["calls"][0]["messages"] is not None for sample in samples]
    assert asked == [at < start for at in range(60)]
    assert all(sample["answers"][0]["output"] for sample in samples)


def test_without_data_and_cache_the_answers_remain(tmp_path: Path) -> None:
    make(tmp_path, SUITE[:2], users=8, each=1)
    (tmp_path / "data" / "dev_questions.json").unlink()
    (tmp_path / "cache.sqlite").unlink()
    (remark,) = write(tmp_path, tmp_path / "report.html")
    assert "is not what the run read" in remark
    page = (tmp_path / "report.html").read_text()
    assert block(page, "index-0")["located"] is False
    sample = block(page, "pack-0-0")["samples"][0]
    assert sample["input"] is None and sample["references"] is None and sample["records"] == []
    assert [answer["calls"][0]["messages"] for answer in sample["answers"]] == [None, None]
    assert all(answer["output"] for answer in sample["answers"])


def test_records_count_as_used_by_their_beginning(results: Path) -> None:
    from personabench.report.samples import _is_quoted
    from personabench.types import Record

    record = Record("1", "a" * MARK + "b", "reply")
    assert _is_quoted(record, ["... " + "a" * MARK + " cut here"])
    assert not _is_quoted(record, ["a" * (MARK - 1)])
    assert not _is_quoted(Record("2", "", ""), ["anything"])


def test_runs_of_two_models_are_two_groups(tmp_path: Path) -> None:
    make(tmp_path, SUITE[:2], users=8, each=1)
    make(tmp_path, SUITE[:2], users=8, each=1, model={"kind": "scripted", "name": "another"})
    groups = [describe(group, at) for at, group in enumerate(gather(tmp_path))]
    assert sorted(group["model"] for group in groups) == ["another", "made-up"]
    assert [len(group["rows"]) for group in groups] == [2, 2]
    assert [group["rows"][group["baseline"]]["method"] for group in groups] == ["none", "none"]


def test_published_results_have_rows_but_no_samples(tmp_path: Path) -> None:
    make(tmp_path, SUITE[:2], users=8, each=1)
    run = next(run for run in read_runs(tmp_path) if run.summary.method == "rag")
    publish(RunFolder(run.path), tmp_path / "reference")
    shutil.rmtree(run.path)
    assert write(tmp_path, tmp_path / "report.html") == []
    page = (tmp_path / "report.html").read_text()
    assert [row["method"] for row in block(page, "report")["groups"][0]["rows"]] == ["none"]
    assert write(tmp_path, tmp_path / "report.html", with_reference=True) == []
    page = (tmp_path / "report.html").read_text()
    rows = block(page, "report")["groups"][0]["rows"]
    assert {row["method"]: row["published"] for row in rows} == {"none": False, "rag": True}
    at = [row["method"] for row in rows].index("rag")
    assert len(rows[at]["user_gains"]) == 8
    assert block(page, "index-0")["scores"][at] == [None] * 8
    samples = block(page, "pack-0-0")["samples"]
    assert all(sample["answers"][at] is None and sample["answers"][1 - at] for sample in samples)


def test_several_seeds_are_one_row_and_a_run_each(tmp_path: Path) -> None:
    make(
        tmp_path, (Method("none"), Method("rag", 0.1), Method("rag", 0.1, seed=1)), users=8, each=2
    )
    write(tmp_path, tmp_path / "report.html")
    contents = block((tmp_path / "report.html").read_text(), "report")
    rag = next(row for row in contents["groups"][0]["rows"] if row["method"] == "rag")
    assert rag["seeds"] == [0, 1] and rag["seed_sd"] > 0
    assert sum(rag["user_gains"]) / 8 == pytest.approx(rag["gain"]["value"], abs=1e-5)
    assert sorted(run["facts"]["seed"] for run in contents["runs"] if run["row"] == rag["run"]) == [
        0,
        1,
    ]


def test_nothing_to_report_says_how_to_get_something(tmp_path: Path, results: Path) -> None:
    with pytest.raises(UsageError, match="make one with"):
        write(tmp_path, tmp_path / "report.html")
    with pytest.raises(UsageError, match=r"task 'lamp9'.*there are runs of lamp4"):
        write(results, tmp_path / "report.html", "lamp9")
    with pytest.raises(UsageError, match="cannot be written"):
        write(results, tmp_path / "no such folder" / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_samples_have_marks_and_metadata_to_filter_by() -> None:
    facts = SampleFacts(2)
    for number, tone in enumerate(("dry", "warm", "dry")):
        sample = Sample(attributes={"tone": tone, "options": f"[{number}]" * 30})
        cut = Call("k", "predict", False, 9, 9, 0.1, finish="length")
        first = Prediction("s", "u", "yes", "yes", {"k_eff": 2}, (cut,) if number else (), Usage())
        second = Prediction("s", "u", "?", None, {}, (), Usage())
        facts.add(sample, (first, second if number == 1 else None))
    described = facts.describe()
    assert described["attributes"] == {"tone": {"values": ["dry", "warm"], "codes": [0, 1, 0]}}
    assert described["marks"] == {
        "k_eff": [None, []],
        "truncated": [[1, 2], []],
        "unparsed": [[], None],
    }


def test_pairs_of_own_and_shuffled_agree_with_the_control_of_the_table(results: Path) -> None:
    (group,) = gather(results)
    index = group.index_of("rag (k=4)")
    assert index is not None
    row = describe(group, 0)["rows"][index]
    twin = describe(group, 0)["rows"][row["twin"]]
    assert (twin["method"], twin["history"], twin["line"]) == ("rag", "shuffled", row["line"])
    differences = [own - other for own, other in row["twin_pairs"]]
    assert len(differences) == 40 and differences == sorted(differences)
    assert sum(differences) / 40 == pytest.approx(row["shuffled"]["value"], abs=1e-5)
    assert "120 samples of 40 users" in describe(group, 0)["protocol"]
