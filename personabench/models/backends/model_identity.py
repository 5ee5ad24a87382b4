"""What names a model that vLLM serves: its hub name, or the content of its folder.

A folder is read in samples (small files whole, of large ones evenly spaced blocks), which tells two checkpoints apart
in a second instead of the minutes that hashing a hundred gigabytes takes.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from personabench.errors import UsageError
from personabench.hashing import digest
from personabench.models.backends.vllm_arguments import counting
from personabench.types import to_json

WHOLE = 1 << 20
BLOCK, BLOCKS = 1 << 16, 64
_CONTENT = {".json", ".safetensors", ".bin", ".gguf", ".model", ".jinja", ".txt", ".pt"}


def model_identity(model: str, arguments: Sequence[str] = ()) -> dict[str, str]:
    """The identity of a model by hub name or path, and of the serving arguments that may change its answers.

    A folder or file is named by its last component with a hash of its content, so that no place enters a key.

    Raises:
        UsageError: a file cannot be read.
    """
    path = Path(model)
    if _is_place(model):
        named = {"kind": "vllm", "name": path.resolve().name, "sha256": fingerprint(path)}
    else:
        named = {"kind": "vllm", "name": path.name if path.is_absolute() else model}
    words: list[str] = []
    for option, values in counting(arguments).items():
        first, *more = map(_canonical, values) if values else (None,)
        words += [option if first is None else f"{option}={first}", *map(str, more)]
    if words:
        named["options"] = shlex.join(words)
    return named


def served_identity(
    entry: Mapping[str, object], listed: Sequence[Mapping[str, object]]
) -> dict[str, str]:
    """The identity of a served model, from its entry in `/v1/models`.

    The entry's `root` is the model behind an alias.  An adapter (an entry with a `parent`) is named by its id, with
    its parent's name as "base".
    """
    root, parent = str(entry.get("root") or entry["id"]), entry.get("parent")
    if parent:
        base = next((other for other in listed if other["id"] == parent), {"id": parent})
        named = {
            "kind": "vllm",
            "name": str(entry["id"]),
            "base": served_identity({**base, "parent": None}, ())["name"],
        }
        return named | ({"sha256": fingerprint(Path(root))} if Path(root).is_dir() else {})
    if Path(root).is_absolute() and not Path(root).exists() and entry["id"] != root:
        return {"kind": "vllm", "name": str(entry["id"])}
    return model_identity(root)


def adapters_of(arguments: Sequence[str]) -> dict[str, str]:
    """Name and path of the adapters among serving arguments: `--lora-modules NAME=PATH ...`, or JSON in their place.

    Raises:
        UsageError: JSON without name and path.
    """
    found: dict[str, str] = {}
    reading = False
    for argument in arguments:
        if argument.startswith("-"):
            option, equals, argument = argument.partition("=")
            reading = option.replace("_", "-") == "--lora-modules"
            if not equals:
                continue
        if reading and argument.startswith("{"):
            try:
                said = msgspec.json.decode(argument, type=dict[str, str | None])
                found[str(said["name"])] = str(said["path"])
            except (msgspec.MsgspecError, KeyError) as error:
                raise UsageError(
                    f"--vllm-args --lora-modules {argument}: not a name and a path ({error})"
                ) from error
        elif reading:
            name, _, path = argument.partition("=")
            found[name] = path
    return found


def adapted(
    identity: Mapping[str, str], template: str, adapters: Mapping[str, str]
) -> dict[str, str]:
    """The identity of a model that answers through the adapters that a template names.

    `adapters` says where each lies: here, told apart by content; on the hub, by what it is called there; elsewhere, by
    the name in the template alone.
    """
    known = {
        name: _content(path)
        for name, path in adapters.items()
        if _is_place(path) or path[:1] not in ("", "/")
    }
    content = {"adapters": digest(known)} if known else {}
    return {**identity, "name": f"{identity['name']}+{template}", **content}


def _is_place(text: str) -> bool:
    return 0 < len(text) < 1024 and (Path(text).is_file() or Path(text).is_dir())


def _canonical(value: str) -> str:
    """A value as it is the same wherever and however it was written."""
    if value[:1] in ("{", "["):
        try:
            return to_json(_placeless(msgspec.json.decode(value)))
        except msgspec.DecodeError:
            return value
    return _content(value)


def _placeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _placeless(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_placeless(part) for part in value]
    return _content(value) if isinstance(value, str) else value


def _content(text: str) -> str:
    """A hash of the file or folder that a text names, else the text."""
    return fingerprint(Path(text)) if _is_place(text) else text


def fingerprint(path: Path) -> str:
    """SHA-256 over names, sizes and samples of the files that make a checkpoint.

    Raises:
        UsageError: one cannot be read.
    """
    sha = hashlib.sha256()
    try:
        files = (
            [path]
            if path.is_file()
            else sorted(file for file in path.iterdir() if file.suffix in _CONTENT)
        )
        for file in files:
            size = file.stat().st_size
            sha.update(f"{'' if path.is_file() else file.name}\0{size}\0".encode())
            with file.open("rb") as content:
                if size <= WHOLE:
                    sha.update(content.read())
                    continue
                for block in range(BLOCKS):
                    content.seek((size - BLOCK) * block // (BLOCKS - 1))
                    sha.update(content.read(BLOCK))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}); it is part of the model's identity"
        ) from error
    return sha.hexdigest()
