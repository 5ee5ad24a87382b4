"""The run folder on disk: appending, tearing, locking, filling up."""

from __future__ import annotations

import errno
import json
import os
import secrets
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from synthetic_scores import draw_scores, write_run

from personabench.errors import DataError, RunError, UsageError
from personabench.results.export import writing
from personabench.results.files import replace_text
from personabench.results.rounds import Round
from personabench.results.run_folder import Profile, RunFolder
from personabench.results.spec import RunSpec
from personabench.types import Prediction, Sampling, Usage

SPEC = RunSpec(
    "t", 1, {}, "user", "dev", True, "d" * 64, "m", "s" * 64, {}, {"name": "a/b c:d"}, Sampling(), 0
)


def line(name: str, output: str | None = "out", error: str | None = None) -> Prediction:
    return Prediction(name, "u", output, output, {}, (), Usage(), error)


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    made = RunFolder(tmp_path / "run")
    made.start(SPEC)
    yield made
    made.close()


def test_place_is_readable_and_safe() -> None:
    path = RunFolder.path_of(Path("results"), SPEC)
    assert path.parts == ("results", "runs", "t", "m", "a_b_c_d", SPEC.fingerprint[:8])


def test_start_writes_the_spec_and_numbers_attempts(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        folder = RunFolder(tmp_path)
        log = folder.start(SPEC)
        log.write_text("")
        names.append(log.name)
        folder.close()
    assert names == ["001.log", "002.log", "003.log"]
    assert folder.spec() == SPEC and folder.spec().fingerprint == SPEC.fingerprint


def test_the_latest_line_of_a_sample_counts(folder: RunFolder) -> None:
    for sent in (line("a", None, "down"), line("b"), line("a", "at last")):
        folder.append(folder.predictions_path, sent)
    assert [found.output for found in folder.iter_predictions()] == [None, "out", "at last"]
    ordered = list(folder.ordered_predictions(["b", "missing", "a"]))
    assert [found and found.output for found in ordered] == ["out", None, "at last"]
    found = folder.prediction("a")
    assert found is not None and found.output == "at last" and folder.prediction("missing") is None


def test_older_files_call_an_interaction_a_record(folder: RunFolder) -> None:
    prediction = msgspec.structs.replace(line("a"), interaction={"turns": [{"record": 1}]})
    folder.append(folder.predictions_path, prediction)
    folder.rounds.write(Round("u", 1, None, prediction))
    for path in (folder.predictions_path, *folder.rounds.path.iterdir()):
        text = path.read_text()
        assert text.count('"interaction":') == 1
        path.write_text(text.replace('"interaction":', '"record":'))

    assert folder.prediction("a") == prediction
    assert list(folder.ordered_predictions(["a"])) == [prediction]
    finished = folder.rounds.read("u")
    assert finished is not None and finished.prediction == prediction


def test_an_empty_folder_has_no_predictions(folder: RunFolder) -> None:
    assert list(folder.iter_predictions()) == [] and list(folder.ordered_predictions(["a"])) == [
        None
    ]
    assert folder.profiles() == {} and folder.prediction("a") is None


@pytest.mark.parametrize("torn", [b'{"sample_id":"c","us', b"{", b"x" * (3 << 20)])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    folder = RunFolder(tmp_path)
    folder.start(SPEC)
    for name in "ab":
        folder.append(folder.predictions_path, line(name))
    folder.close()
    whole = folder.predictions_path.read_bytes()
    with folder.predictions_path.open("ab") as file:
        file.write(torn)
    assert [found.sample_id for found in folder.iter_predictions()] == ["a", "b"]
    assert [found and found.sample_id for found in folder.ordered_predictions("abc")] == [
        "a",
        "b",
        None,
    ]
    folder = RunFolder(tmp_path)
    folder.start(SPEC)
    assert folder.predictions_path.read_bytes() == whole
    folder.append(folder.predictions_path, line("c"))
    assert [found.sample_id for found in folder.iter_predictions()] == ["a", "b", "c"]
    folder.close()


def test_a_file_with_nothing_but_a_torn_line_becomes_empty(tmp_path: Path) -> None:
    tmp_path.joinpath("predictions.jsonl").write_bytes(b'{"sample')
    folder = RunFolder(tmp_path)
    folder.start(SPEC)
    folder.close()
    assert folder.predictions_path.read_bytes() == b""


def test_a_damaged_line_in_the_middle_is_named(folder: RunFolder) -> None:
    folder.append(folder.predictions_path, line("a"))
    with folder.predictions_path.open("ab") as file:
        file.write(b'{"sample_id": 3}\n')
    folder.append(folder.predictions_path, line("b"))
    with pytest.raises(DataError, match=r"predictions\.jsonl, line 2 is damaged .*delete the line"):
        list(folder.iter_predictions())


@pytest.mark.parametrize(
    "damaged",
    [
        b"not json\n",
        b'{"sample_id": 3}\n',
        b'{"sample_id": "b"}\n',
        b'{"sample_id": "b", "user_id": "\xff"}\n',
    ],
)
def test_a_damaged_line_is_named_however_predictions_are_read(
    folder: RunFolder, damaged: bytes
) -> None:
    folder.append(folder.predictions_path, line("a"))
    with folder.predictions_path.open("ab") as file:
        file.write(damaged)
    for read in (folder.iter_predictions, lambda: folder.ordered_predictions("ab")):
        with pytest.raises(
            DataError, match=r"predictions\.jsonl, line 2 is damaged .*delete the line"
        ):
            list(read())


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"task": "\xff"}', None])
def test_a_damaged_summary_says_where_and_what_to_do(
    folder: RunFolder, content: bytes | None
) -> None:
    if content is None:
        folder.summary_path.mkdir()
    else:
        folder.summary_path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"summary\.json (is damaged|cannot be read) .*; .*repeat the run's command"
    ):
        folder.summary()


def test_a_summary_without_what_may_be_missing_has_it_empty(tmp_path: Path) -> None:
    folder = RunFolder(write_run(tmp_path, "rag", draw_scores()).path)
    content = json.loads(folder.summary_path.read_text())
    folder.summary_path.write_text(
        json.dumps({k: v for k, v in content.items() if k not in ("data", "warnings")})
    )
    assert (folder.summary().data, folder.summary().warnings) == (None, [])


def test_bytes_that_are_no_text_are_damage(folder: RunFolder) -> None:
    path = folder.path / "spec.json"
    path.write_bytes(path.read_bytes().replace(b'"dev"', b'"d\xffv"'))
    with pytest.raises(
        DataError, match=r"spec\.json is damaged \(invalid UTF-8.*; move the run's folder away"
    ):
        folder.spec()
    folder.close()
    with pytest.raises(UsageError, match=r"spec\.json is damaged"):
        folder.start(SPEC)


def test_another_writer_is_kept_out_and_readers_are_not(folder: RunFolder) -> None:
    folder.append(folder.predictions_path, line("a"))
    other = RunFolder(folder.path)
    with pytest.raises(UsageError, match="another process is writing to"):
        other.start(SPEC)
    assert [found.sample_id for found in other.iter_predictions()] == ["a"]
    folder.close()
    other.start(SPEC)
    other.close()


def test_another_process_is_kept_out(folder: RunFolder) -> None:
    code = (
        "import sys, pathlib; from personabench.results.run_folder import RunFolder\n"
        "folder = RunFolder(pathlib.Path(sys.argv[1]))\n"
        "try: folder.start(folder.spec())\n"
        "except Exception as error: print(error)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(folder.path)], capture_output=True, text=True, check=True
    )
    assert "another process is writing to" in process.stdout


def test_a_folder_of_another_run_is_refused_and_unlocked(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start(SPEC)
    folder.close()
    import msgspec

    other = RunFolder(tmp_path)
    with pytest.raises(UsageError, match="belongs to another run"):
        other.start(msgspec.structs.replace(SPEC, seed=1))
    folder.start(SPEC)
    folder.close()
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(UsageError, match=r"spec\.json is damaged"):
        folder.start(SPEC)
    with pytest.raises(DataError, match=r"spec\.json is damaged"):
        folder.spec()


def test_a_folder_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is .* a run folder"):
        RunFolder(tmp_path).summary()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        RunFolder(tmp_path / "file" / "run").start(SPEC)


def open_files(folder: RunFolder) -> dict[Path, Any]:
    """The files that a run appends to: a full disk is put in their place."""
    return folder._files  # type: ignore[return-value]  # noqa: SLF001


class Filling:
    """A file on a disk that has room for so many bytes more."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self.file.write(data[: self.room])
        self.room -= taken
        return int(taken)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 1, 40])
def test_a_full_disk_leaves_whole_lines(folder: RunFolder, room: int) -> None:
    path = folder.predictions_path
    folder.append(path, line("a"))
    full = Filling(open_files(folder)[path], room)
    open_files(folder)[path] = full
    with pytest.raises(
        RunError, match=r"predictions\.jsonl cannot be written \(No space left.*free some space"
    ):
        folder.append(path, line("b"))
    assert [found.sample_id for found in folder.iter_predictions()] == ["a"]
    full.room = 1 << 20
    folder.append(path, line("c"))
    assert [found.sample_id for found in folder.iter_predictions()] == ["a", "c"]


def test_a_write_taken_in_parts_is_finished(folder: RunFolder) -> None:
    class Sipping(Filling):
        def write(self, data: bytes) -> int:
            return int(self.file.write(data[:7]))

    path = folder.predictions_path
    folder.append(path, line("a"))
    open_files(folder)[path] = Sipping(open_files(folder)[path], 0)
    folder.append(path, line("b", "ü" * 50))
    assert [found.output for found in folder.iter_predictions()] == ["out", "ü" * 50]


def test_replacing_is_all_or_nothing(folder: RunFolder) -> None:
    target = folder.summary_path
    with folder.replacing(target) as file:
        file.write("first")
    with pytest.raises(ValueError, match="half way"), folder.replacing(target) as file:
        file.write("second")
        raise ValueError("half way")
    assert target.read_text() == "first"
    with pytest.raises(RunError, match="cannot be written"), folder.replacing(target) as file:
        raise OSError(errno.ENOSPC, "No space left on device")
    assert target.read_text() == "first"


def test_profiles_are_kept_by_key(folder: RunFolder) -> None:
    for key, state in (("k1", "a"), ("k2", None), ("k1", "b")):
        folder.append(folder.profiles_path, Profile("u", key, state, (), {}))
    assert {key: profile.state for key, profile in folder.profiles().items()} == {
        "k1": "b",
        "k2": None,
    }


def test_files_are_replaced_through_names_that_nobody_can_foresee(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    for name in ("scores.jsonl.tmp", "summary.json.tmp", "file.tmp", "file.part"):
        (tmp_path / name).symlink_to(target)
    folder = RunFolder(tmp_path)
    for path in (folder.scores_path, folder.summary_path):
        with folder.replacing(path) as file:
            file.write("new")
    replace_text(tmp_path / "file", "new")
    with writing(tmp_path / "export") as temporary:
        assert temporary.parent == tmp_path and not temporary.exists()
        temporary.touch(exist_ok=False)
    assert target.read_text() == "mine" and (tmp_path / "file").read_text() == "new\n"

    # A link in the place of the file itself is replaced, not followed.
    folder.scores_path.unlink()
    folder.scores_path.symlink_to(target)
    with folder.replacing(folder.scores_path) as file:
        file.write("new")
    assert target.read_text() == "mine" and not folder.scores_path.is_symlink()


def test_a_name_that_exists_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    monkeypatch.setattr(secrets, "token_hex", lambda _: "foreseen")
    (tmp_path / ".foreseen.tmp").symlink_to(target)
    with pytest.raises(FileExistsError):
        replace_text(tmp_path / "file", "new")
    assert target.read_text() == "mine"


def test_files_have_the_usual_permissions_and_leave_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    replace_text(tmp_path / "file", "new")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "usual").stat().st_mode
    with suppress(ValueError), writing(tmp_path / "file") as temporary:
        temporary.touch()
        raise ValueError
    assert {path.name for path in tmp_path.iterdir()} == {"usual", "file"}
