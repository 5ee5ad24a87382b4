"""Damage to every file of a results folder: readers show what was scored, or say what is damaged.

No command may print a traceback, and none may print another number than the run's.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from cli_calls import call

Case = Callable[[str], AbstractContextManager[None]]
Damage = Callable[[bytes, random.Random], bytes | None]
SUITE = "damage to files of results"
RUN = ("run", "-t", "lamp4", "-m", "none,summary", "-n", "12", "-b", "scripted")
JUDGED = ("run", "-t", "prefdisco_warm", "-m", "none", "-n", "3", "-b", "scripted")


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) or 1)]


def flip(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return b"\x00"
    position = rng.randrange(len(content))
    changed = content[position] ^ (1 << rng.randrange(8))
    return content[:position] + bytes([changed]) + content[position + 1 :]


def drop_line(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if lines:
        del lines[rng.randrange(len(lines))]
    return b"".join(lines)


def repeat_line(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    return content + (rng.choice(lines) if lines else b"{}\n")


def change_digit(content: bytes, rng: random.Random) -> bytes:
    digits = [index for index, byte in enumerate(content) if chr(byte).isdigit()]
    if not digits:
        return content + b"7"
    position = rng.choice(digits)
    digit = str((int(chr(content[position])) + 1) % 10).encode()
    return content[:position] + digit + content[position + 1 :]


DAMAGE: dict[str, Damage] = {
    "cut": cut,
    "flip": flip,
    "drop_line": drop_line,
    "repeat_line": repeat_line,
    "change_digit": change_digit,
    "empty": lambda content, rng: b"",
    "gone": lambda content, rng: None,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A results folder with runs of two protocols, shards and a published result."""
    folder = tmp_path_factory.mktemp("finished")
    before = Path.cwd()
    os.chdir(folder)
    for words in (RUN, JUDGED, (*RUN, "--shard", "1/2"), ("publish", "last")):
        ended = call(*words)
        assert ended.code == 0, ended
    yield folder
    os.chdir(before)


def list_files(folder: Path) -> list[str]:
    """Every file that a command reads: no lock and no log."""
    names = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".log", ".lock") and path.name != "lock"
    ]
    return sorted(name for name in names if not name.endswith(("-wal", "-shm")))


def read_board() -> dict[str, dict[str, Any]]:
    """The rows of the leaderboard by task and label, as far as they are scores."""
    ended = call("leaderboard", "--with-reference", "--format", "json")
    if ended.code:
        return {}
    scores = {}
    for row in json.loads(ended.out):
        # Without its summary a run is shown from its published file, with the same scores.
        name = f"{row['task']} {row['label']}"
        scores[name] = {key: row.get(key) for key in ("primary", "n", "users", row["primary"])}
    return scores


def check_damage(finished: Path, folder: Path, name: str, kind: str, seed: int) -> None:
    """Damage a file in a copy; all readers end well, and no row has another score than before."""
    os.chdir(finished)
    whole = read_board()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(finished, folder)
    os.chdir(folder)
    path = folder / name
    content = DAMAGE[kind](path.read_bytes(), random.Random(f"{name} {kind} {seed}"))
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)

    damaged = read_board()
    for row, scores in damaged.items():
        assert row in whole and scores == whole[row], (name, kind, seed, row, scores)
    for words in (
        ("show", "last"),
        ("export", "last", "--to", "csv", "-o", "x.csv"),
        ("publish", "last", "--to", "p"),
        ("cache", "stats"),
        ("list", "runs"),
    ):
        call(*words)

    # The command that made the run mends it, or says what stands in its way.
    words = JUDGED if "prefdisco" in name else RUN
    ended = call(*words)
    if ended.code == 0:
        for row, scores in read_board().items():
            assert row in whole and scores == whole[row], (name, kind, seed, row, scores)


@pytest.mark.trust
def test_damage_to_the_files_of_scores(finished: Path, tmp_path: Path, case: Case) -> None:
    for name in list_files(finished):
        if name.startswith("results/runs/lamp4/none") and name.endswith(("scores.jsonl", "y.json")):
            for kind in ("drop_line", "change_digit"):
                with case(SUITE):
                    check_damage(finished, tmp_path / "d", name, kind, 0)


def test_a_changed_number_of_a_summary_is_shown_by_no_reader(
    finished: Path, tmp_path: Path, case: Case
) -> None:
    shutil.copytree(finished, tmp_path / "d")
    os.chdir(tmp_path / "d")
    summaries = sorted(Path().glob("results/runs/lamp4/*/*/*/summary.json"))
    published = sorted(Path().glob("results/reference/*.json"))
    changes = {"n": 99, "metrics": {"official": {"rouge-1": 0.9}}, "counters": {"truncated": 7}}
    for path in (*summaries[:1], *published):
        content = path.read_text()
        for name, value in changes.items():
            with case(SUITE):
                whole = json.loads(content)
                holder = whole.get("summary", whole)
                old = json.dumps(holder[name], separators=(",", ":"), sort_keys=True)
                changed = {**holder[name], **value} if isinstance(value, dict) else value
                new = json.dumps(changed, separators=(",", ":"), sort_keys=True)
                altered = json.dumps({**whole, "summary": {**holder, name: changed}})
                text = content.replace(f'"{name}":{old}', f'"{name}":{new}', 1)
                path.write_text(altered if "summary" in whole else text)
                assert path.read_text() != content
                ended = call("leaderboard", "--with-reference", "--format", "json")
                assert ended.code == 2 and str(path) in ended.err, (path, name, ended)
                path.write_text(content)
    os.chdir(finished)


@pytest.mark.trust
@pytest.mark.parametrize("number", range(3))
def test_damage_to_every_file(finished: Path, tmp_path: Path, number: int, case: Case) -> None:
    for name in list_files(finished):
        kind = random.Random(f"damage of {name}").sample(list(DAMAGE), 3)[number]
        with case(SUITE):
            check_damage(finished, tmp_path / "d", name, kind, 0)
