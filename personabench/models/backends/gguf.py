"""Read the metadata of a GGUF file without loading the model."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

CHAT_TEMPLATE = "tokenizer.chat_template"

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)


def has_chat_template(path: Path) -> bool:
    """Whether a model has a chat template; base models have none.

    A file that cannot be read counts as one with a template, since loading it will say more.
    """
    try:
        with path.open("rb") as file:
            return any(key.startswith(CHAT_TEMPLATE) for key in _iter_keys(file))
    except (OSError, ValueError, LookupError, struct.error):
        return True


def read_outline(path: Path) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Read the single values of a model's metadata, and the shapes of its tensors, columns first.

    Raises:
        OSError, ValueError, LookupError, struct.error: the file cannot be read.
    """
    values: dict[str, Any] = {}
    shapes = {}
    with path.open("rb") as file:
        tensors, count = _read_header(file)
        for _ in range(count):
            key = _read_string(file)
            (kind,) = _unpack(file, "I")
            if kind == _STRING:
                values[key] = _read_string(file)
            elif kind in _SCALARS:
                (values[key],) = _unpack(file, _SCALARS[kind])
            else:
                _skip(file, kind)
        for _ in range(tensors):
            name = _read_string(file)
            (dimensions,) = _unpack(file, "I")
            shapes[name] = list(_unpack(file, "Q" * dimensions))
            # Its format and its place in the file.
            _unpack(file, "IQ")
    return values, shapes


def _read_header(file: IO[bytes]) -> tuple[int, int]:
    """The numbers of tensors and of keys."""
    magic = file.read(4)
    (version,) = _unpack(file, "I")
    if magic != b"GGUF" or version not in _VERSIONS:
        raise ValueError("not a GGUF file of a version in use")
    tensors, count = _unpack(file, "QQ")
    return tensors, count


def _iter_keys(file: IO[bytes]) -> Iterator[str]:
    _, count = _read_header(file)
    for _ in range(count):
        yield _read_string(file)
        _skip(file, _unpack(file, "I")[0])


def _skip(file: IO[bytes], kind: int) -> None:
    """Skip a value; those of arrays one after the other only if they are strings."""
    if kind == _STRING:
        (length,) = _unpack(file, "Q")
        file.seek(length, 1)
    elif kind == _ARRAY:
        item_kind, count = _unpack(file, "IQ")
        if item_kind in _SCALARS:
            file.seek(count * struct.calcsize("<" + _SCALARS[item_kind]), 1)
        else:
            for _ in range(count):
                _skip(file, item_kind)
    else:
        file.seek(struct.calcsize("<" + _SCALARS[kind]), 1)


def _read_string(file: IO[bytes]) -> str:
    (length,) = _unpack(file, "Q")
    return file.read(length).decode()


def _unpack(file: IO[bytes], layout: str) -> tuple[Any, ...]:
    packing = "<" + layout
    return struct.unpack(packing, file.read(struct.calcsize(packing)))
