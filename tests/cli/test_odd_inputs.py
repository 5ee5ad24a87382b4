"""A corpus of damage: whatever stands in the place of a file, every verb ends with a message.

Each case puts one odd thing in the place of one file that some verbs read. None may hang, print a
traceback, or be an error that the last net does not know.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from conftest import Command, Ended

from personabench.cli import crash
from personabench.cli import main as entry
from personabench.models import environment

Make = Callable[[Path], object]
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
LIMIT = 20.0
"""Seconds of a command on a busy machine; those that hang do so for ever."""


def content(text: bytes) -> Make:
    return lambda path: path.write_bytes(text)


ODD: dict[str, Make] = {
    "folder": Path.mkdir,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name),
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/full"),
    "deep object": content(DEEP + b"\n"),
    "deep list": content(b"[" * 100_000 + b"]" * 100_000 + b"\n"),
    "deep field": content(b'{"sample_id":"x","task":"LaMP_4","golds":[' + DEEP + b"]}\n"),
    "bytes": content(b'{"a":"\xff\xfe"}\n'),
    "nothing": content(b""),
    "null": content(b"null\n"),
    "list": content(b'[1,null,"x",[]]\n'),
    "object": content(b"{}\n"),
    "cut": content(b'{"a": [1, 2'),
    "number": content(b'{"a":1e999,"n":' + b"9" * 5000 + b"}\n"),
    "surrogate": content(b'{"a":"\\ud800"}\n'),
}
QUICK = ("folder", "pipe", "deep object")
CORPUS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ODD]
GOLDS = [
    b'{"task":"LaMP_4","golds":[1]}',
    b'{"task":"LaMP_4","golds":["x",null]}',
    b'{"task":"LaMP_4","golds":{"a":1}}',
    b'{"task":"LaMP_4","golds":[[1]]}',
    b'{"task":"LaMP_4","golds":null}',
    b'{"task":"LaMP_4","golds":[{"id":1,"output":2}]}',
    b'{"task":"LaMP_4","golds":[{"output":"x"},{"id":"1","output":5}]}',
    b'{"golds":[{"id":"1","output":5}],"task":"LaMP_4","golds":[]}',
    b'{"task":"LaMP_4","golds":[{"id":"1","output":5}],"x":"\xff"}',
    b'{"task":"LaMP_4","golds":[{"id":"1","output":' + DEEP + b"}]}",
    b'{"task":"LaMP_4","golds":[{"id":"1","output":5},' + DEEP + b"]}",
]
RUN = ("run", "-m", "none", "-t", "lamp4", "-b", "scripted", "-n", "2")
SCORE = ("score", "-t", "lamp4")
INPUT = "Generate a headline for the following article: x"
QUESTIONS = [{"id": "1", "input": INPUT, "profile": []}]


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError("the command hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def end_well(command: Command, *words: object) -> Ended:
    with time_limit(LIMIT):
        ended = command(*words)
    assert ended.code in (0, 1, 2), words
    for trace in ("Traceback", "did not expect", "hangs"):
        assert trace not in ended.err, (words, ended.err)
    if ended.code:
        assert ended.err.strip(), words
    return ended


def put(path: Path, make: Make) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a run, its published result and one of two shards."""
    folder = tmp_path_factory.mktemp("finished")
    for words in (RUN, ("publish", "last"), (*RUN, "--shard", "1/2")):
        script = "from personabench.cli import main; main()"
        subprocess.run([sys.executable, "-c", script, *words], cwd=folder, check=True)
    return folder


READERS = {
    "spec.json": [("leaderboard",), ("show", "last"), ("list", "runs"), RUN],
    "summary.json": [("leaderboard",), ("show", "last"), ("publish", "last")],
    "scores.jsonl": [("leaderboard",), ("export", "last", "--to", "csv", "-o", "x.csv")],
    "predictions.jsonl": [("show", "last", "310"), ("publish", "last"), RUN],
    "artifacts/profiles.jsonl": [("export", "last", "--to", "inspect", "-o", "x.json"), RUN],
    "refresh.json": [RUN],
    "lock": [RUN],
}
RESULTS_FILES = {
    "reference/x.json": [
        ("leaderboard", "--with-reference"),
        ("report", "--with-reference", "-o", "x.html"),
    ],
    "cache.sqlite": [("cache", "stats"), ("show", "last", "310"), RUN],
    "runs": [("leaderboard",), ("list", "runs"), RUN],
    "statistics": [("leaderboard",)],
}


@pytest.mark.parametrize(
    "odd",
    # Each starts a dozen processes.
    [
        pytest.param("folder", marks=pytest.mark.variants),
        pytest.param("deep object", marks=pytest.mark.variants),
        *(name for name in CORPUS if name not in ("folder", "deep object")),
    ],
)
def test_in_the_place_of_a_file_of_a_results_folder(
    personabench: Command, finished: Path, tmp_path: Path, odd: str
) -> None:
    (run,) = finished.glob("results/runs/*/*/*/*")
    places = {run.relative_to(finished) / name: readers for name, readers in READERS.items()}
    places |= {Path("results") / name: readers for name, readers in RESULTS_FILES.items()}
    for place, readers in places.items():
        shutil.rmtree("results", ignore_errors=True)
        shutil.copytree(finished / "results", "results")
        put(tmp_path / place, ODD[odd])
        for words in readers:
            end_well(personabench, *words)


@pytest.mark.parametrize("odd", CORPUS)
def test_in_the_place_of_a_file_of_a_shard(
    personabench: Command, finished: Path, tmp_path: Path, odd: str
) -> None:
    (shard,) = finished.glob("results/shards/*/runs/*/*/*/*")
    for name in ("spec.json", "shard.json", "summary.json", "predictions.jsonl"):
        shutil.rmtree("results", ignore_errors=True)
        shutil.copytree(finished / "results", "results")
        put(tmp_path / shard.relative_to(finished) / name, ODD[odd])
        ended = end_well(personabench, "merge", "--partial")
        assert ended.code == 2 or name not in ("spec.json", "shard.json")


@pytest.mark.parametrize("odd", CORPUS)
def test_in_the_place_of_a_file_that_an_option_names(
    personabench: Command, tmp_path: Path, odd: str
) -> None:
    for name in ("odd", "odd.py", "odd.gguf"):
        put(tmp_path / name, ODD[odd])
    golds = {"task": "LaMP_4", "golds": [{"id": "1", "output": "x"}]}
    (tmp_path / "golds.json").write_text(json.dumps(golds))
    (tmp_path / "answers.jsonl").write_text('{"id": "1", "output": "x"}\n')
    for words in (
        (*RUN, "--prices", "odd"),
        ("run", "-m", "none", "-t", "./odd.py", "-b", "scripted"),
        ("check", "method", "./odd.py"),
        (*SCORE, "--predictions", "odd", "--references", "golds.json"),
        (*SCORE, "--predictions", "answers.jsonl", "--references", "odd"),
        ("judge-report", "odd"),
        ("show", "odd"),
        ("leaderboard", "--results", "odd"),
        ("run", "-m", "none", "-t", "lamp4", "-n", "1", "--model", "./odd.gguf"),
    ):
        ended = end_well(personabench, *words)
        assert ended.code != 0 or odd in ("null", "object", "nothing", "folder", "cut"), words


TASKS = ("lamp4", "personamem", "prefdisco", "prefdisco_warm", "prelude_email", "reviews")


@pytest.mark.parametrize("odd", CORPUS)
def test_in_the_place_of_data(personabench: Command, tmp_path: Path, odd: str) -> None:
    put(tmp_path / "data", ODD[odd])
    for task in TASKS:
        words = ("run", "-m", "none", "-t", task, "-b", "scripted", "--data", "data")
        assert end_well(personabench, *words).code == 2, task
    for name in ("dev_questions.json", "dev_outputs.json"):
        put(tmp_path / "data", Path.mkdir)
        (tmp_path / "data" / "dev_questions.json").write_text(json.dumps(QUESTIONS))
        put(tmp_path / "data" / name, ODD[odd])
        words = ("run", "-m", "none", "-t", "lamp4", "-b", "scripted", "--data", "data")
        ended = end_well(personabench, *words)
        assert ended.code == 2 or odd == "dangling link", (name, odd)


def test_golds_that_are_no_golds(personabench: Command, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "dev_questions.json").write_text(json.dumps(QUESTIONS))
    (tmp_path / "answers.jsonl").write_text('{"id": "1", "output": "x"}\n')
    outputs = folder / "dev_outputs.json"
    for golds in GOLDS:
        outputs.write_bytes(golds)
        words = ("run", "-m", "none", "-t", "lamp4", "-b", "scripted", "--data", "data")
        score = (*SCORE, "--predictions", "answers.jsonl", "--references", outputs)
        for command in (words, score):
            ended = end_well(personabench, *command)
            assert ended.code == 2 and "dev_outputs.json" in ended.err, golds[:80]


@pytest.mark.parametrize(
    "shard", ["1/99999999999", "1/100000", "1/" + "9" * 5000, "0" * 5000 + "1/2", "0/2", "3/2"]
)
def test_shards_that_no_cluster_has(personabench: Command, shard: str) -> None:
    ended = end_well(personabench, *RUN, "--shard", shard)
    assert ended.code == 2 and "write i/n" in ended.err


# The last net -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyError("odd"), 1, "did not expect this: KeyError: 'odd'"),
        (MemoryError(), 1, "--limit"),
        (RecursionError("deep"), 2, "nested too deeply"),
        (OSError(24, "Too many open files", "x"), 1, "ulimit -n"),
        (OSError(28, "No space left on device", "x"), 1, "free some space"),
        (OSError(21, "Is a directory", "data/x"), 2, "data/x cannot be used: Is a directory"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), 2, "not UTF-8"),
    ],
)
def test_the_net_says_what_and_writes_where(
    personabench: Command,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: Exception,
    code: int,
    words: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("personabench.results.index.read_runs", fail)
    monkeypatch.setattr("personabench.cli.app._leave", sys.exit)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    ended = personabench("list", "runs")
    assert ended.code == code and words in ended.err and "Traceback" not in ended.err
    path = Path(ended.err.rsplit("the traceback is in ", 1)[1].strip())
    assert path.parent == tmp_path and "in fail" in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


def test_secrets_are_in_no_traceback(
    personabench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secrets = ["sk-geheim-0123", "Pass/wort#99", "cookie-0123456789", "Urlwort/77"]
    monkeypatch.setenv("JUDGE_API_KEY", secrets[0])
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{secrets[1]}@proxy:1")
    monkeypatch.setattr(environment, "encode_proxies", lambda: None)

    def fail(*_: object) -> None:
        raise ValueError(f"no: {secrets}, port 'Pass'")

    monkeypatch.setattr("personabench.run.runner.run", fail)
    words = ("--header", f"Cookie: {secrets[2]}", "--base-url", f"http://a:{secrets[3]}@b")
    monkeypatch.setattr(sys, "argv", ["personabench", *words])
    message, _ = crash.explain(ValueError(f"no: {secrets}, port 'Pass'"))
    text = message + Path(message.rsplit(" ", 1)[1]).read_text()
    assert not any(secret in text for secret in (*secrets, "Pass'")) and "***" in text


def test_interrupted_imports_print_nothing() -> None:
    script = """
import signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from personabench.cli import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGINT
    assert (ended.stdout, ended.stderr) == ("", "")


def test_the_entry_point_leaves_ctrl_c_to_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("personabench.cli.app.main", lambda: None)
    entry()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_certificates_that_are_missing_are_named(
    personabench: Command, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "nowhere.pem")
    words = (*RUN[:5], "-b", "openai", "--model", "x", "--base-url", "https://127.0.0.1:9/v1")
    ended = end_well(personabench, *words)
    assert ended.code != 0


def test_too_many_open_files_are_named(tmp_path: Path) -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (14, 14))\n"
        "from personabench.cli import main; main()"
    )
    words = ("run", "-m", "none,rag", "-t", "lamp4", "-b", "scripted")
    ended = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    assert ended.returncode in (0, 1, 2)
    assert ended.returncode == 0 or ended.stderr.strip()


def test_memory_that_ends_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "dev_questions.json").open("wb") as file:
        file.truncate(3 << 30)
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "from personabench.cli import main; main()"
    )
    words = ("run", "-m", "none", "-t", "lamp4", "-b", "scripted", "--data", "data")
    ended = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert ended.returncode in (1, 2) and "Traceback" not in ended.stderr, ended.stderr
    assert ended.stderr.strip()
