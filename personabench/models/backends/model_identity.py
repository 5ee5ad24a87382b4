"""Identity of a model that vLLM serves: its hub name, or a hash of its folder's content.

Of a folder's files, small ones are hashed as a whole and large ones by evenly spaced blocks.  This
distinguishes two checkpoints in a second, instead of the minutes that hashing a hundred gigabytes
takes.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from personabench.errors import UsageError
from personabench.hashing import digest
from personabench.models.backends.vllm_arguments import options_that_count
from personabench.types import to_json

WHOLE = 1 << 20
BLOCK, BLOCKS = 1 << 16, 64
_CONTENT = {".json", ".safetensors", ".bin", ".gguf", ".model", ".jinja", ".txt", ".pt"}


CHECKPOINT = "checkpoint_"
"""The prefix of the identity of the checkpoint that a GGUF file was made of, beside its own."""


def base_identity(identity: Mapping[str, str]) -> dict[str, str]:
    """The part of a model's identity that all backends share: its name and its files' hash.

    Of a GGUF file, it is that of the checkpoint that it was made of, if this is known.
    """
    prefix = CHECKPOINT if f"{CHECKPOINT}name" in identity else ""
    names = ("name", "sha256")
    return {name: identity[prefix + name] for name in names if prefix + name in identity}


def model_identity(model: str, arguments: Sequence[str] = ()) -> dict[str, str]:
    """Return the identity of a model, with the serving arguments that may change its answers.

    A folder or file is named by its last component with a hash of its content, so that no location
    enters a key.

    Raises:
        UsageError: a file cannot be read.
    """
    path = Path(model)
    identity = {"kind": "vllm", "name": model}
    if _exists(model):
        identity["name"] = path.resolve().name
        identity["sha256"] = fingerprint(path)
    elif path.is_absolute():
        identity["name"] = path.name

    words: list[str] = []
    for option, values in options_that_count(arguments).items():
        canonical = [_canonical_value(value) for value in values]
        if canonical:
            words.append(f"{option}={canonical[0]}")
            words.extend(canonical[1:])
        else:
            words.append(option)
    if words:
        identity["options"] = shlex.join(words)
    return identity


def served_identity(
    entry: Mapping[str, object], listed: Sequence[Mapping[str, object]]
) -> dict[str, str]:
    """Return the identity of a served model, from its entry in `/v1/models`.

    The entry's `root` is the model behind an alias.  An adapter (an entry with a `parent`) is named
    by its id, with its parent's name as "base".
    """
    name = str(entry["id"])
    root = str(entry.get("root") or name)
    parent = entry.get("parent")
    if parent:
        return _adapter_identity(name, root, parent, listed)

    # A path on the server's own machine cannot be read here, so its alias has to do.
    path = Path(root)
    if path.is_absolute() and not path.exists() and name != root:
        return {"kind": "vllm", "name": name}
    return model_identity(root)


def _adapter_identity(
    name: str, root: str, parent: object, listed: Sequence[Mapping[str, object]]
) -> dict[str, str]:
    base: Mapping[str, object] = {"id": parent}
    for entry in listed:
        if entry["id"] == parent:
            base = entry
            break

    # Without its parent, so that a chain of entries cannot loop.
    base_identity = served_identity({**base, "parent": None}, ())
    identity = {"kind": "vllm", "name": name, "base": base_identity["name"]}
    if Path(root).is_dir():
        identity["sha256"] = fingerprint(Path(root))
    return identity


def adapters_of(arguments: Sequence[str]) -> dict[str, str]:
    """Read names and paths of adapters from serving arguments (`--lora-modules NAME=PATH`).

    Raises:
        UsageError: JSON without name and path.
    """
    adapters: dict[str, str] = {}
    in_option = False
    for argument in arguments:
        if argument.startswith("-"):
            option, equals, argument = argument.partition("=")
            in_option = option.replace("_", "-") == "--lora-modules"
            if not equals:
                continue
        if not in_option:
            continue

        if argument.startswith("{"):
            try:
                module = msgspec.json.decode(argument, type=dict[str, str | None])
                adapters[str(module["name"])] = str(module["path"])
            except (msgspec.MsgspecError, KeyError) as error:
                raise UsageError(
                    f"--vllm-args --lora-modules {argument}: not a name and a path ({error})"
                ) from error
        else:
            name, _, path = argument.partition("=")
            adapters[name] = path
    return adapters


def adapted_identity(
    identity: Mapping[str, str], template: str, adapters: Mapping[str, str]
) -> dict[str, str]:
    """Return the identity of a model that answers through the adapters that a template names.

    `adapters` has the path of each: a local one is distinguished by its content, one on the hub by
    its hub name, and one on another machine by the name in the template alone.
    """
    contents = {}
    for name, path in adapters.items():
        if _exists(path) or path[:1] not in ("", "/"):
            contents[name] = _content_hash(path)

    adapted = {**identity, "name": f"{identity['name']}+{template}"}
    if contents:
        adapted["adapters"] = digest(contents)
    return adapted


def _exists(text: str) -> bool:
    # File systems raise an error for a name as long as some arguments are.
    if not 0 < len(text) < 1024:
        return False
    path = Path(text)
    return path.is_file() or path.is_dir()


def _canonical_value(value: str) -> str:
    """Return a value in a form that is independent of location and spelling."""
    if value[:1] not in ("{", "["):
        return _content_hash(value)
    try:
        parsed = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value
    return to_json(_replace_paths(parsed))


def _replace_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_paths(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_replace_paths(part) for part in value]
    if isinstance(value, str):
        return _content_hash(value)
    return value


def _content_hash(text: str) -> str:
    """Return a hash of the file or folder that a text names; else the text."""
    return fingerprint(Path(text)) if _exists(text) else text


def fingerprint(path: Path) -> str:
    """Compute the SHA-256 of names, sizes and samples of the files of a checkpoint.

    Raises:
        UsageError: a file cannot be read.
    """
    sha = hashlib.sha256()
    try:
        for sample in _read_samples(path):
            sha.update(sample)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}); it is part of the model's identity"
        ) from error
    return sha.hexdigest()


def _read_samples(path: Path) -> Iterator[bytes]:
    if path.is_file():
        # Without its name: the same file may be called differently on another machine.
        yield from _sample_file(path, "")
        return

    files = [file for file in path.iterdir() if file.suffix in _CONTENT]
    for file in sorted(files):
        yield from _sample_file(file, file.name)


def _sample_file(path: Path, name: str) -> Iterator[bytes]:
    size = path.stat().st_size
    yield f"{name}\0{size}\0".encode()
    with path.open("rb") as content:
        if size <= WHOLE:
            yield content.read()
            return
        for block in range(BLOCKS):
            content.seek((size - BLOCK) * block // (BLOCKS - 1))
            yield content.read(BLOCK)
