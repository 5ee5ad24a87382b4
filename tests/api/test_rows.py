"""Rows of data files: formats, splits, and errors that name file and line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from personabench import read_rows
from personabench.errors import DataError, UsageError

ROWS = [{"user": "ann", "text": "ä, \"b\""}, {"user": "bob", "text": "c"}]  # fmt: skip
CONTENTS = {
    "x.jsonl": '{"user": "ann", "text": "ä, \\"b\\""}\n\n{"user": "bob", "text": "c"}',
    "x.json": '[{"user": "ann", "text": "ä, \\"b\\""},\n{"user": "bob", "text": "c"}]',
    "lines.json": '{"user": "ann", "text": "ä, \\"b\\""}\n{"user": "bob", "text": "c"}\n',
    "x.csv": 'user,text\r\nann,"ä, ""b"""\r\nbob,c\r\n',
}
ZIPPED = gzip.compress(CONTENTS["x.jsonl"].encode(), mtime=0)


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_formats_give_the_same_rows(tmp_path: Path, name: str, mark: str) -> None:
    content = (mark + CONTENTS[name]).encode()
    (tmp_path / name).write_bytes(content)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    assert list(read_rows(tmp_path / name)) == ROWS
    assert list(read_rows(tmp_path / f"{name}.gz")) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"a": 1}\n{"b": ', "x.jsonl, line 2: .*expected JSON"),
        ("x.jsonl", b'{"a": 1}\n[1]', "x.jsonl, line 2: expected an object of fields, not list"),
        ("x.json", b'[{"a": 1}, 5]', "x.json, entry 2: expected an object of fields, not int"),
        ("x.json", b'[{"a": 1}', "x.json: .*expected JSON"),
        ("x.csv", b"user,text\nann,a\nbob", "x.csv, line 3: the row has more or fewer cells"),
        ("x.csv", b"user,text\nann,a,b\n", "x.csv, line 2: the row has more or fewer cells"),
        ("x.csv", b'user,text\nann,"a\n', "x.csv, line 1: unexpected end of data"),
        ("x.jsonl", b'{"a": "\xff"}', "x.jsonl is not UTF-8 text"),
        ("x.txt", b"", "x.txt: expected a file that ends in .jsonl, .json, .csv"),
        ("x.jsonl.gz", b"no gzip", "x.jsonl.gz cannot be read"),
        ("x.jsonl.gz", ZIPPED[:-9], "x.jsonl.gz cannot be read: Compressed file ended"),
        ("x.jsonl.gz", ZIPPED[:10] + b"\xff" * 20, "x.jsonl.gz cannot be read: Error"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_rows(tmp_path / name))


def test_a_missing_field_names_file_line_and_fields(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a": 1, "nested": [{"b": 2}]}')
    first, second = read_rows(tmp_path / "x.jsonl")
    with pytest.raises(DataError, match=r"x\.jsonl, line 1: no field 'nested'; it has: a"):
        first["nested"]
    with pytest.raises(DataError, match=r"x\.jsonl, line 2: no field 'c'; it has: b"):
        second["nested"][0]["c"]
    assert first.get("nested") is None


def test_a_folder_has_a_file_per_split_or_one_for_all(tmp_path: Path) -> None:
    for name in ("dev", "test"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"split": "{name}"}}')
    assert list(read_rows(tmp_path, "test")) == [{"split": "test"}]
    with pytest.raises(DataError, match=r"one file per split, such as train.jsonl, .*dev.jsonl"):
        list(read_rows(tmp_path, "train"))
    (tmp_path / "dev.jsonl").unlink()
    assert list(read_rows(tmp_path, "train")) == [{"split": "test"}]


def test_no_file_and_no_data_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl cannot be read: No such file"):
        list(read_rows(tmp_path / "none.jsonl"))
    with pytest.raises(UsageError, match="no example data beside its file; name a file with"):
        list(read_rows(None))
