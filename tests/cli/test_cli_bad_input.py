"""Bad input: one message on stderr that names the place and the remedy, exit code 2, never a
traceback."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command

Refused = Callable[..., str]
RUN = ("run", "-b", "scripted")
PLUGIN = """from personabench import Method


class Mine(Method):
    name = "mine"
    {}

    async def predict(self, sample, state, ctx):
        return ''
"""
MAIN = "from personabench.cli.app import main; main()"


def lamp4(folder: Path, questions: object, golds: object = None) -> Path:
    folder.mkdir(exist_ok=True)
    text = questions if isinstance(questions, bytes) else json.dumps(questions).encode()
    (folder / "dev_questions.json").write_bytes(text)
    if golds is None:
        golds = [{"id": each["id"], "output": "A Gold Title"} for each in json.loads(text)]
    (folder / "dev_outputs.json").write_text(json.dumps({"task": "LaMP_4", "golds": golds}))
    return folder


def question(number: str, profile: object = None) -> dict[str, object]:
    entry = {"id": "p1", "title": "Bridge Shut Again", "text": "The old bridge is closed."}
    asked = "Generate a headline for the following article: The market moves indoors."
    return {"id": number, "input": asked, "profile": [entry] if profile is None else profile}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-m", "rga", "-t", "lamp4"), ["no method named 'rga'", "did you mean rag"]),
        (("-m", "none", "-t", "lamp44"), ["no task named 'lamp44'", "lamp4"]),
        (("-m", "none", "-t", "lamp2"), ["lamp2", "lamp2m", "lamp2n"]),
        (("-m", "", "-t", "lamp4"), ["--method '' contains no name", "list methods"]),
        (("-m", "none", "-t", ","), ["--task ',' contains no name", "list tasks"]),
        (
            ("-m", "none", "-t", "lamp4", "-b", "loca"),
            ["no backend named 'loca'", "did you mean local?"],
        ),
        (("-m", "none", "-t", "lamp4", "-n", "0"), ["--limit"]),
        (("-m", "none", "-t", "lamp4", "-j", "0"), ["--concurrency"]),
        (("-m", "none", "-t", "lamp4", "--cache", "maybe"), ["--cache", "maybe", "refresh"]),
        (("-m", "none", "-t", "lamp4", "--history", "lent"), ["--history lent", "shuffled"]),
        (("-m", "none", "-t", "lamp4", "--split", "dve"), ["no split 'dve'", "time/dev"]),
        (("-m", "none", "-t", "lamp4", "--split", "test"), ["example data", "--data"]),
        (("-m", "none", "-t", "lamp4", "--data", "nowhere"), ["--data", "nowhere"]),
        (("-m", "none", "-t", "lamp4", "--metric", "bleu"), ["--metric bleu", "evaluate:NAME"]),
        (("-m", "none", "-t", "lamp4", "--prices", "prices.json"), ["prices.json"]),
        (("-m", "none", "-t", "lamp4", "--max-cost", "1"), ["--max-cost", "--prices"]),
        (
            ("-m", "none", "-t", "lamp4", "--timeout", "5"),
            ["--timeout", "scripted", "server backends"],
        ),
        (("-m", "none", "-t", "lamp4", "--rpm", "5"), ["--rpm", "--backend openai"]),
        (("-m", "none", "-t", "lamp4", "--batch"), ["--batch", "--backend openai"]),
        (
            ("-m", "none", "-t", "lamp4", "--omit-params", "seed"),
            ["--omit-params", "--backend openai"],
        ),
        (("-m", "none", "-t", "lamp4", "--header", "Cookie"), ["--header number 1", "Name: value"]),
        (("-m", "rag", "-t", "lamp4", "--set", "k"), ["--set k", "key=value"]),
        (("-m", "rag", "-t", "lamp4", "--set", "kk=3"), ["no parameter 'kk'", "did you mean k?"]),
        (("-m", "rag", "-t", "lamp4", "--set", "k=few"), ["method rag", "'k'", "int"]),
        (("-m", "rag", "-t", "lamp4", "--set", "k=-1"), ["k is -1"]),
        (("-m", "rag", "-t", "lamp4", "--set", "dpl.k=1"), ["'dpl' is not part of this run"]),
        (("-m", "rag", "-t", "lamp4", "--set", "retriever=bm52"), ["bm52", "bm25"]),
        (("-m", "none,rag", "-t", "lamp4", "--set", "kk=3"), ["--set kk", "none, rag"]),
        (("-m", "none", "-t", "lamp4", "--set", "task.template=prose"), ["task lamp4", "template"]),
        (("-m", "missing.py", "-t", "lamp4"), ["no file missing.py"]),
    ],
)
def test_a_wrong_name_or_value_is_refused(
    refused: Refused, words: tuple[str, ...], said: list[str]
) -> None:
    message = refused(*RUN, *words)
    assert not [part for part in said if part not in message], message


def test_an_unknown_retriever_leaves_no_run(refused: Refused, tmp_path: Path) -> None:
    said = refused(*RUN, "-m", "rag", "-t", "lamp4", "--set", "retriever=bm52")
    assert "unknown retriever 'bm52'; choose one of bm25, dense" in said
    assert not (tmp_path / "results").exists()


def test_data_without_the_files_lists_the_places_looked_at(
    refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    message = refused(*RUN, "-m", "none", "-t", "lamp4", "--data", "empty")
    assert (
        "empty/dev_questions.json" in message and "empty/LaMP_4/dev/dev_questions.json" in message
    )


@pytest.mark.parametrize(
    ("questions", "golds", "said"),
    [
        ([question("1"), question("2")], [{"id": "1", "output": "A"}], ["does not fit", "2"]),
        ([question("1"), question("1")], None, ["ids must be unique", "repeated", "1"]),
        (
            [question("7", [{"id": "p1", "title": 3, "text": "x"}])],
            None,
            ["record 7", "profile[0].title", "p1"],
        ),
        (
            json.dumps([question("7")]).encode()[:-30],
            [],
            ["at byte", "line 1", "download may be incomplete"],
        ),
        (b'[{"id": "7", "input": "a\xff"}]', [], ["UTF-8"]),
        (b"<html>moved</html>", [], ["HTML page"]),
        (b"\xef\xbb\xbf[]", [], ["byte order mark"]),
        ("[]".encode("utf-16"), [], ["byte order mark"]),
        (b"[" * 200_000, [], ["at byte"]),
        ([], None, ["no questions"]),
    ],
)
def test_broken_data_is_named_by_file_record_and_field(
    refused: Refused, tmp_path: Path, questions: object, golds: object, said: list[str]
) -> None:
    message = refused(
        *RUN, "-m", "none", "-t", "lamp4", "--data", lamp4(tmp_path / "data", questions, golds)
    )
    assert not [part for part in ["data/dev_", *said] if part not in message], message


@pytest.mark.parametrize(
    ("output", "said"), [("/dev/full", "cannot be written: No space left on device"), (None, "")]
)
def test_what_cannot_be_printed_is_no_traceback(
    tmp_path: Path, output: str | None, said: str
) -> None:
    environment = {"PYTHONIOENCODING": "latin-1", "COLUMNS": "100"}
    with Path(output or tmp_path / "out.txt").open("w") as stdout:
        ended = subprocess.run(
            [sys.executable, "-c", MAIN, "list", "matrix", "--task", "lamp3"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=60,
        )
    assert "Traceback" not in ended.stderr and said in ended.stderr
    assert ended.returncode == (1 if output else 0)
    assert output or re.search(r"user_mean +\?", (tmp_path / "out.txt").read_text("latin-1"))


def test_one_method_that_wants_dates_does_not_keep_the_others_from_undated_data(
    personabench: Command, refused: Refused, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = (*RUN, "-t", "lamp4", "--data", lamp4(tmp_path / "data", [question("1")]))
    assert "method recency sorts records by date" in refused(*words, "-m", "recency")
    ended = personabench(*words, "-m", "recency,none", "--json")
    assert (ended.code, [run["method"] for run in ended.json]) == (0, ["none"])
    assert "sorts records by date" in caplog.text and "skipped: method recency" in caplog.text


def test_mixed_2m_and_2n_records_name_the_other_task(refused: Refused, tmp_path: Path) -> None:
    film = {"id": "a", "tag": "comedy", "description": "A baker inherits a circus."}
    news = {"id": "b", "title": "Cup Final", "text": "Sold out.", "category": "sports"}
    asked = (
        "Which tag does this movie relate to among the following tags? "
        "Just answer with the tag name: x"
    )
    questions = [
        {"id": str(n), "input": asked, "profile": [entry]}
        for n, entry in enumerate((film, news), 10)
    ]
    folder = lamp4(tmp_path / "data", questions)
    message = refused(*RUN, "-m", "none", "-t", "lamp2m", "--data", folder)
    assert "record 11" in message and "lamp2n" in message


def test_an_empty_profile_is_asked_and_counted(personabench: Command, tmp_path: Path) -> None:
    folder = lamp4(tmp_path / "data", [question("1", []), question("2")])
    (summary,) = personabench(*RUN, "-m", "rag", "-t", "lamp4", "--data", folder, "--json").json
    assert (summary["status"], summary["n"], summary["counters"]["empty_profile"]) == (
        "complete",
        2,
        1,
    )
    assert summary["source"] == str(folder / "dev_questions.json") and not summary["sample"]


def test_quotes_in_a_title_are_kept(personabench: Command, tmp_path: Path) -> None:
    title = 'The "Quiet" Man\'s \\ Return'
    folder = lamp4(
        tmp_path / "data", [question("1", [{"id": "p1", "title": title, "text": "He is back."}])]
    )
    assert personabench(*RUN, "-m", "rag", "-t", "lamp4", "--data", folder).code == 0
    calls = personabench("show", "last", "1", "--json").json["calls"]
    assert any(title in message["content"] for message in calls[-1]["messages"])


def test_recency_without_dates_is_refused_before_any_call(refused: Refused, tmp_path: Path) -> None:
    folder = lamp4(tmp_path / "data", [question("1")])
    message = refused(*RUN, "-m", "recency", "-t", "lamp4", "--data", folder)
    assert "method recency" in message and "date" in message
    assert not (tmp_path / "results" / "runs").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"not a model at all", "GGUF"), (b"GGUF\x03\x00\x00\x00" + bytes(64), "broken.gguf")],
)
def test_an_unreadable_gguf(refused: Refused, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "broken.gguf").write_bytes(content)
    message = refused("run", "-m", "none", "-t", "lamp4", "-n", "1", "--model", "broken.gguf")
    assert said in message and "broken.gguf" in message


def test_no_key(refused: Refused) -> None:
    message = refused("run", "-m", "none", "-t", "lamp4", "-b", "openai", "--model", "any")
    assert "OPENAI_API_KEY" in message and "--base-url" in message


def test_a_refused_connection(personabench: Command) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"
        ended = personabench(
            "run", "-m", "none", "-t", "lamp4", "-b", "openai", "--base-url", url, "--model", "any"
        )
    assert ended.code == 1
    assert url in ended.err and "cannot be reached" in ended.err and "Traceback" not in ended.err


def test_results_that_cannot_be_written(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    message = refused(*RUN, "-m", "none", "-t", "lamp4", "--results", "taken")
    assert "taken" in message


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("class Broken(:\n", ["mine.py, line 1", "SyntaxError"]),
        ("import no_such_module\n", ["mine.py", "no_such_module"]),
        ("x = 1\n", ["one subclass of personabench.Method", "none"]),
        (
            "from personabench import Method\n\n\n"
            "class A(Method):\n    async def predict(self, s, t, c): ...\n\n\n"
            "class B(A): ...\n",
            ["A, B", "mine.py:Class"],
        ),
        (
            "from personabench import Method\n\n\nclass A(Method): ...\n",
            ["does not implement predict"],
        ),
        (
            PLUGIN.format("class Params:\n        k = 3"),
            ["Mine.Params (", "mine.py, line 6", "@dataclass"],
        ),
        (
            PLUGIN.format("def __init__(self, params=None):\n        raise KeyError('where')"),
            ["Mine.__init__ (", "mine.py, line 7", "KeyError: 'where'"],
        ),
    ],
)
def test_a_plugin_that_cannot_be_used(
    refused: Refused, tmp_path: Path, source: str, said: list[str]
) -> None:
    (tmp_path / "mine.py").write_text(source)
    for words in ((*RUN, "-m", "mine.py", "-t", "lamp4"), ("check", "method", "mine.py")):
        message = refused(*words)
        assert not [part for part in said if part not in message], message


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_plugin_whose_preparation_fails_ends_the_run(
    personabench: Command, tmp_path: Path, more: tuple[str, ...]
) -> None:
    prepare = (
        'needs = ("population",)\n\n'
        "    async def prepare(self, population, ctx):\n        return 1 / 0"
    )
    (tmp_path / "mine.py").write_text(PLUGIN.format(prepare))
    ended = personabench(*RUN, "-m", "mine.py", "-t", "lamp4", "-n", "2", *more)
    assert ended.code == 1 and "Traceback" not in ended.err
    assert (
        "Mine.prepare (" in ended.err
        and "mine.py, line 9): expected results on `self`, but it raised ZeroDivisionError"
        in ended.err
    )


def test_a_plugin_that_raises_prints_no_traceback_outside_a_run(
    personabench: Command, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        PLUGIN.format("pass").replace("return ''", "raise KeyError('where')")
    )
    for words, code in (
        (("check", "method", "mine.py"), 1),
        ((*RUN, "-m", "mine.py", "-t", "lamp4", "--dry-run"), 1),
        (("show", "--dry-run", "-m", "mine.py", "-t", "lamp4", "--sample", "310"), 1),
    ):
        ended = personabench(*words)
        assert ended.code == code and "Traceback" not in ended.err, ended
        said = ended.out + ended.err
        assert "mine.py, line 9): expected the answer as text (str), but it raised KeyError" in said


@pytest.mark.parametrize("prices", ['{"scripted": {"input": 1}}', "not json", '{"scripted": 3}'])
def test_a_broken_price_file(refused: Refused, tmp_path: Path, prices: str) -> None:
    (tmp_path / "prices.json").write_text(prices)
    assert "prices.json" in refused(
        *RUN, "-m", "none", "-t", "lamp4", "--dry-run", "--prices", "prices.json"
    )


def test_nothing_to_rank_or_show(personabench: Command, refused: Refused) -> None:
    assert "no runs under results/runs" in refused("leaderboard")
    assert "no runs under results/runs" in refused("show", "last")
    assert "no response cache at results/cache.sqlite" in refused("cache", "stats")
    personabench(*RUN, "-m", "none", "-t", "lamp4", "-n", "3")
    assert "there are runs of lamp4" in refused("leaderboard", "-t", "lamp3")
    assert "no run matches '00000000'" in refused("show", "00000000")
    assert "no prediction for sample 'x'" in refused("show", "last", "x")
    assert "personabench show last" in refused("show")
    assert "has no sample 'x'" in refused(
        "cache", "why", "-m", "none", "-t", "lamp4", "-b", "scripted", "x"
    )
    assert "has no sample 'x'" in refused(
        "show", "--dry-run", "-m", "none", "-t", "lamp4", "--sample", "x"
    )
    assert "--sample ID" in refused("show", "--dry-run", "-m", "none")
    assert "--older-than" in refused("cache", "prune")
    assert "cannot be written" in refused("leaderboard", "-o", "nowhere/board.txt")


def test_a_damaged_summary_is_named(
    personabench: Command, refused: Refused, tmp_path: Path
) -> None:
    (summary,) = personabench(*RUN, "-m", "none", "-t", "lamp4", "-n", "3", "--json").json
    (tmp_path / summary["folder"] / "summary.json").write_text("{")
    message = refused("leaderboard")
    assert f"{summary['folder']}/summary.json is damaged" in message and "repeat" in message


def test_the_installed_command_ends_with_exit_code_2_and_one_line(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-c",
        "from personabench.cli.app import main; main()",
        "run",
        "-m",
        "nnone",
        "-t",
        "lamp4",
    ]
    ended = subprocess.run(
        words, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: no method named 'nnone'; did you mean none?\n"
