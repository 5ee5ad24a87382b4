"""LaMP downloads from a local server with an official tree, sound or broken."""

from __future__ import annotations

import functools
import http.server
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import LoopbackServer, serving

from personabench.errors import DataError, UsageError
from personabench.tasks.lamp.download import download

FIELDS: dict[str, dict[str, str]] = {
    "lamp1": {"title": "On tides", "abstract": "We measure tides."},
    "lamp2m": {"tag": "comedy", "description": "A baker inherits a lighthouse."},
    "lamp2n": {"title": "Ferry late", "text": "The ferry was late.", "category": "travel"},
    "lamp3": {"text": "Sturdy kettle.", "score": "4"},
    "lamp4": {"title": "Ferry late", "text": "The ferry was late."},
    "lamp5": {"title": "On tides", "abstract": "We measure tides."},
    "lamp6": {"title": "Keys", "text": "Who has the keys?"},
    "lamp7": {"text": "rain again"},
}
INPUTS = {
    "lamp2m": (
        "Which tag does this movie relate to? tags: [comedy, action] description: Two clowns."
    ),
    "lamp2n": (
        "Which category does this article relate to? categories: [travel] article: The ferry."
    ),
}


def questions(task: str, count: int, **extra: str) -> list[dict[str, Any]]:
    dated = {"date": "2013-01-02"} if "user_id" in extra else {}
    return [
        {
            "id": f"0{n}",
            "input": INPUTS.get(task, "A request."),
            "profile": [{"id": f"0{n}0", **FIELDS[task], **dated}],
            **extra,
        }
        for n in range(count)
    ]


def outputs(task: str, count: int) -> dict[str, Any]:
    return {
        "task": f"LaMP_{task[4]}",
        "golds": [{"id": f"0{n}", "output": "x"} for n in reversed(range(count))],
    }


class Site:
    """A folder served over HTTP without ranges.

    `cut` truncates each file to that many bytes, `log` holds the requested paths.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.log = root, list[str]()
        self.cut: int | None = None
        self.url = ""

    def put(self, folder: str, split: str, records: Any, golds: Any = None) -> None:
        for kind, content in (("questions", records), ("outputs", golds)):
            if content is not None:
                path = self.root / folder / split / f"{split}_{kind}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content if isinstance(content, str) else json.dumps(content))


class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, site: Site) -> None:
        self.site = site
        super().__init__(*args, directory=str(site.root))

    def log_message(self, *_: object) -> None:
        pass

    def copyfile(self, source: Any, outputfile: Any) -> None:
        self.site.log.append(self.path)
        outputfile.write(source.read(self.site.cut))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site(tmp_path / "site")
    site.root.mkdir()
    with serving(LoopbackServer(functools.partial(Handler, site=site))) as server:
        site.url = server.url
        yield site


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data"


def get(
    site: Site, task: str, split: str, target: Path, expected: int | None = 3, notes: Any = None
) -> list[str]:
    """Download without waiting; returns the paths below `target`."""
    notice = (lambda _: None) if notes is None else notes.append
    paths = download(
        task,
        split,
        target,
        base_url=site.url,
        expected=expected,
        notice=notice,
        wait=lambda _: None,
    )
    return [path.relative_to(target).as_posix() for path in paths]


def refused(site: Site, task: str, split: str, target: Path, expected: int | None = 3) -> str:
    """The message of a download that must fail and leave no file that could pass for data."""
    with pytest.raises(DataError) as caught:
        get(site, task, split, target, expected)
    assert not list(target.rglob("*.json"))
    return str(caught.value)


@pytest.mark.parametrize(
    ("task", "split", "folder"),
    [
        ("lamp1", "dev", "LaMP_1/dev"),
        ("lamp2m", "user/dev", "LaMP_2/new/dev"),
        ("lamp2n", "train", "LaMP_2/train"),
        ("lamp2m", "time/dev", "time/LaMP_2/new/dev"),
        ("lamp2n", "time/dev", "time/LaMP_2/dev"),
        ("lamp3", "time/train", "time/LaMP_3/train"),
        ("lamp4", "dev", "LaMP_4/dev"),
        ("lamp5", "dev", "LaMP_5/dev"),
        ("lamp6", "dev", "LaMP_6/dev"),
        ("lamp7", "dev", "LaMP_7/dev"),
    ],
)
def test_official_tree(site: Site, target: Path, task: str, split: str, folder: str) -> None:
    base, name = folder.rsplit("/", 1)
    extra = {"user_id": "9"} if split.startswith("time/") else {}
    site.put(base, name, questions(task, 3, **extra), outputs(task, 3))
    assert get(site, task, split, target) == [
        f"{folder}/{name}_questions.json",
        f"{folder}/{name}_outputs.json",
    ]
    for path in site.root.rglob("*.json"):
        assert (target / path.relative_to(site.root)).read_bytes() == path.read_bytes()
    assert not [path for path in target.rglob("*") if ".part" in path.name]


def test_test_split_has_no_outputs(site: Site, target: Path) -> None:
    site.put("LaMP_3", "test", {"task": "LaMP_3", "golds": questions("lamp3", 3)})
    assert get(site, "lamp3", "test", target) == ["LaMP_3/test/test_questions.json"]
    assert site.log == ["/LaMP_3/test/test_questions.json"]


def test_manifest_tells_origin_and_content(site: Site, target: Path) -> None:
    site.put("LaMP_4", "dev", questions("lamp4", 3), outputs("lamp4", 3))
    site.put("LaMP_7", "test", questions("lamp7", 3))
    get(site, "lamp4", "dev", target)
    get(site, "lamp7", "test", target)
    entries = json.loads((target / "manifest.json").read_text())["files"]
    assert sorted(entries) == [
        "LaMP_4/dev/dev_outputs.json",
        "LaMP_4/dev/dev_questions.json",
        "LaMP_7/test/test_questions.json",
    ]
    for name, entry in entries.items():
        assert entry["url"] == f"{site.url}/{name}"
        assert entry["bytes"] == (target / name).stat().st_size
        assert (len(entry["sha256"]), entry["count"], entry["time"][-6:]) == (64, 3, "+00:00")


def test_complete_files_are_not_fetched_again(site: Site, target: Path) -> None:
    site.put("LaMP_4", "dev", questions("lamp4", 3), outputs("lamp4", 3))
    paths = get(site, "lamp4", "dev", target)
    site.log.clear()
    assert get(site, "lamp4", "dev", target) == paths
    assert not site.log
    (target / paths[1]).unlink()
    assert get(site, "lamp4", "dev", target) == paths
    assert site.log == ["/LaMP_4/dev/dev_outputs.json"]


def test_own_copy_is_checked_and_kept(site: Site, target: Path) -> None:
    own_copy = Site(target)
    own_copy.put("LaMP_4", "dev", questions("lamp4", 3), outputs("lamp4", 3))
    assert len(get(site, "lamp4", "dev", target)) == 2
    assert not site.log
    entries = json.loads((target / "manifest.json").read_text())["files"]
    assert {entry["url"] for entry in entries.values()} == {""}

    own_copy.put("LaMP_4", "dev", questions("lamp4", 2))
    with pytest.raises(
        DataError, match=r"dev_questions\.json is not the data: it holds 2 records.*Move it away"
    ):
        get(site, "lamp4", "dev", target)
    assert len(json.loads((target / "LaMP_4/dev/dev_questions.json").read_text())) == 2


def test_acceptance_10_html_with_status_200(site: Site, target: Path) -> None:
    page = "\n<html><head><title>Object moved</title></head><body>" + "filler " * 20
    site.put("LaMP_4", "dev", page, outputs("lamp4", 3))
    message = refused(site, "lamp4", "dev", target)
    assert f"{site.url}/LaMP_4/dev/dev_questions.json" in message
    assert (
        "<html><head><title>Object moved</title></head><body>filler" in message
        and "--data" in message
    )
    assert not list(target.rglob("*.part*"))


def test_acceptance_10_truncated_transfer_is_kept_and_finished_later(
    site: Site, target: Path
) -> None:
    site.put("LaMP_4", "dev", questions("lamp4", 3), outputs("lamp4", 3))
    site.cut = 100
    message = refused(site, "lamp4", "dev", target)
    assert "the connection ended after 100 of" in message
    assert [path.stat().st_size for path in target.rglob("*.part")] == [100]
    site.cut = None
    assert len(get(site, "lamp4", "dev", target)) == 2


@pytest.mark.parametrize("keep", [1, 60, -1])
def test_acceptance_10_json_cut_in_the_middle(site: Site, target: Path, keep: int) -> None:
    site.put("LaMP_4", "dev", json.dumps(questions("lamp4", 3))[:keep], outputs("lamp4", 3))
    assert "not whole JSON" in refused(site, "lamp4", "dev", target)
    assert not list(target.rglob("*.part*"))


def test_acceptance_10_ids_differ_between_files(site: Site, target: Path) -> None:
    golds = outputs("lamp4", 3)
    golds["golds"][0]["id"] = "07"
    site.put("LaMP_4", "dev", questions("lamp4", 3), golds)
    message = refused(site, "lamp4", "dev", target)
    assert "1 ids without an output (02)" in message and "1 ids without a question (07)" in message
    assert not list(target.rglob("*.part*"))


def test_wrong_count_against_the_published_number(site: Site, target: Path) -> None:
    site.put("LaMP_7", "dev", questions("lamp7", 1499), outputs("lamp7", 1499))
    assert "it holds 1,499 records, and lamp7/user/dev has 1,500" in refused(
        site, "lamp7", "dev", target, None
    )
    site.put("LaMP_7", "dev", questions("lamp7", 1500), outputs("lamp7", 1500))
    assert len(get(site, "lamp7", "dev", target, None)) == 2


@pytest.mark.parametrize(
    ("task", "split", "folder", "note"),
    [
        ("lamp2m", "test", "LaMP_2/new", "870 by a number that was never verified"),
        ("lamp2n", "time/test", "time/LaMP_2", "no published number"),
    ],
)
def test_unverified_counts_only_warn(
    site: Site, target: Path, task: str, split: str, folder: str, note: str
) -> None:
    notes: list[str] = []
    site.put(folder, "test", questions(task, 2, user_id="9"))
    get(site, task, split, target, None, notes)
    get(site, task, split, target, None, notes)
    assert len(notes) == 2 and notes[0] == notes[1] and note in notes[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda records: records[0].pop("input"), "first record lacks input"),
        (lambda records: records[0].update(profile="none"), "first record lacks profile"),
        (
            lambda records: records[0]["profile"][0].pop("score"),
            "first profile entry lacks score (it has id, text)",
        ),
        (lambda records: records[1].update(id=1), "record 1 has no id that is a string"),
        (lambda records: records[1].update(id="00"), "id 00 occurs 2 times"),
        (lambda records: records.clear(), "it holds 0 records"),
    ],
)
def test_wrong_question_records(site: Site, target: Path, change: Any, reason: str) -> None:
    records = questions("lamp3", 3)
    change(records)
    site.put("LaMP_3", "dev", records, outputs("lamp3", 3))
    assert reason in refused(site, "lamp3", "dev", target)


@pytest.mark.parametrize(
    ("golds", "reason"),
    [
        ({**outputs("lamp4", 3), "task": "LaMP_3"}, "states task LaMP_3, not LaMP_4"),
        (outputs("lamp4", 3)["golds"], "not of the form"),
        (
            {"task": "LaMP_4", "golds": [{"id": f"0{n}"} for n in range(3)]},
            "first record lacks output",
        ),
        ({"task": "LaMP_4"}, "missing required field"),
        (outputs("lamp4", 4), "it holds 4 records"),
    ],
)
def test_wrong_output_files(site: Site, target: Path, golds: Any, reason: str) -> None:
    site.put("LaMP_4", "dev", questions("lamp4", 3), golds)
    assert reason in refused(site, "lamp4", "dev", target)


def test_task_name_with_a_hyphen_and_empty_first_profile_are_fine(site: Site, target: Path) -> None:
    records = questions("lamp4", 3)
    records[0]["profile"] = []
    site.put("LaMP_4", "dev", records, {**outputs("lamp4", 3), "task": "LaMP-4"})
    assert len(get(site, "lamp4", "dev", target)) == 2


def test_time_separation_needs_users_and_dates(site: Site, target: Path) -> None:
    site.put("time/LaMP_4", "test", questions("lamp4", 3))
    assert "first record lacks user_id" in refused(site, "lamp4", "time/test", target)
    undated = questions("lamp4", 3, user_id="9")
    del undated[0]["profile"][0]["date"]
    site.put("time/LaMP_4", "test", undated)
    assert "first profile entry lacks date" in refused(site, "lamp4", "time/test", target)


def test_the_two_lamp2_datasets_are_told_apart(site: Site, target: Path) -> None:
    site.put("LaMP_2/new", "dev", questions("lamp2n", 3), outputs("lamp2n", 3))
    message = refused(site, "lamp2m", "dev", target)
    assert "news categorisation (lamp2n), not of movie tagging" in message
    mixed = questions("lamp2n", 3)[:2] + questions("lamp2m", 3)[2:]
    site.put("LaMP_2", "dev", mixed, outputs("lamp2n", 3))
    assert "movie tagging (lamp2m) and news categorisation" in refused(
        site, "lamp2n", "dev", target
    )


def test_mangled_first_input_of_lamp2m_is_no_reason_to_refuse(site: Site, target: Path) -> None:
    records = questions("lamp2m", 3)
    records[0]["input"] = "two clowns"
    site.put("LaMP_2/new", "dev", records, outputs("lamp2m", 3))
    assert len(get(site, "lamp2m", "dev", target)) == 2


def test_unfilled_lamp6_is_explained_and_marked(site: Site, target: Path) -> None:
    records = questions("lamp6", 3)
    for record in records:
        record |= {
            "input": "077-000134-EM.txt",
            "profile": [{"id": record["id"] + "0", "text": "077-000135-EM.txt"}],
        }
    site.put("LaMP_6", "dev", records)
    notes: list[str] = []
    assert get(site, "lamp6", "dev", target, notes=notes) == ["LaMP_6/dev/dev_questions.json"]
    assert "Avocado" in notes[0] and "--data" in notes[0]
    assert json.loads((target / "manifest.json").read_text())["files"][
        "LaMP_6/dev/dev_questions.json"
    ]["unfilled"]
    site.log.clear()
    get(site, "lamp6", "dev", target, notes=notes)
    assert notes[1] == notes[0] and not site.log


@pytest.mark.parametrize(
    ("task", "split", "hint"),
    [
        ("lamp2", "dev", "lamp2m .* lamp2n"),
        ("lamp8", "dev", "no LaMP task lamp8"),
        ("lamp3", "valid", "no split 'valid'"),
        ("lamp3", "place/dev", "for example time/dev"),
    ],
)
def test_unknown_names(target: Path, task: str, split: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        download(task, split, target)
    assert not target.exists()


def test_foreign_manifest_stops_the_download(site: Site, target: Path) -> None:
    site.put("LaMP_7", "test", questions("lamp7", 3))
    target.mkdir()
    (target / "manifest.json").write_text('{"mine": 1}')
    with pytest.raises(DataError, match="not a download manifest"):
        get(site, "lamp7", "test", target)
    assert not site.log and (target / "manifest.json").read_text() == '{"mine": 1}'


def test_the_command_says_what_to_type_next_or_why_nothing_can_run(
    site: Site, target: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from personabench.cli.download import download as command
    from personabench.tasks.lamp import download as module

    monkeypatch.setattr(
        module, "SIZES", {("lamp4", "time"): (3, 3, 3), ("lamp6", "user"): (3, 3, 3)}
    )
    site.put("time/LaMP_4", "dev", questions("lamp4", 3, user_id="u"), outputs("lamp4", 3))
    command("lamp4", split="time/dev", target=target, base_url=site.url)
    words = (
        f"ready: personabench run --task lamp4 --split time/dev --data {target} --method none,rag\n"
    )
    assert capsys.readouterr().out == words

    unfilled = [
        {"id": f"0{n}", "input": "Generate a subject for the following email: a.txt"}
        for n in range(3)
    ]
    entries = [{"id": "1", "text": "b.txt", "title": "x"}]
    site.put("LaMP_6", "dev", [{**record, "profile": entries} for record in unfilled])
    with pytest.raises(DataError, match="holds the name of an e-mail file"):
        command("lamp6", split="user/dev", target=target, base_url=site.url)
    captured = capsys.readouterr()
    assert (
        captured.out == ""
        and "warning: LaMP_6/dev/dev_questions.json: LaMP-6 as published" in captured.err
    )
    assert ".py" not in captured.err
