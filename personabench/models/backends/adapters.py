"""Folders of LoRA adapters on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from personabench.errors import UsageError

ADAPTER = "adapter"
"""The folder, in an artifact of training, of an adapter as it was trained."""
SERVED = "served"
"""The folder of an adapter as it answers, together with that of an earlier stage."""
CONFIG = "adapter_config.json"
STEERING = "steering.json"
VECTOR = "steering.safetensors"
"""A vector for hidden states in place of an adapter, and its layer."""
DEFAULT = "*"
"""The user of a map whose adapter answers for all users that it does not name."""


def adapter_folder(folder: Path) -> Path:
    """Return the folder of the adapter that answers: itself, or a part of an artifact.

    Raises:
        UsageError: there is none.
    """
    for candidate in (folder / SERVED, folder / ADAPTER, folder):
        if (candidate / CONFIG).is_file() or (candidate / STEERING).is_file():
            return candidate
    raise UsageError(f"{folder} is no adapter: it has no {CONFIG}")


def read_adapter_map(path: Path) -> dict[str, str]:
    """Read the adapter of each user from a JSON object; null and "" are the model itself.

    Folders are relative to that of the file.

    Raises:
        UsageError: the file is no such object, or a folder does not exist.
    """
    try:
        adapters = msgspec.json.decode(path.read_bytes(), type=dict[str, str | None])
    except OSError as error:
        raise UsageError(f"--adapter-map {path}: cannot be read ({error.strerror})") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--adapter-map {path}: {error}; write a JSON object from user ids to names or folders "
            f'of adapters, such as {{"u1": "adapters/u1", "{DEFAULT}": null}}'
        ) from error
    if not adapters:
        raise UsageError(f"--adapter-map {path}: it names no user")
    return {user: _locate(path, user, text or "") for user, text in adapters.items()}


def _locate(path: Path, user: str, text: str) -> str:
    folder = path.parent / text
    if text and folder.is_dir():
        return str(folder.resolve())
    # A name has no separators, unless it is that of a repository on the hub.
    if text.startswith(("/", "./", "../")) or text.endswith(os.sep):
        raise UsageError(f"--adapter-map {path}, user {user}: there is no folder {text}")
    return text


def describe_map(names: Mapping[str, str]) -> str:
    """Describe a map for the name of a model: the number of its users."""
    users = sum(bool(name) for user, name in names.items() if user != DEFAULT)
    return f"{users}-adapters" + ("" if DEFAULT not in names else "-default")


def check_mapped(mapped: Mapping[str, str], folders: Mapping[str, Path]) -> None:
    """Check that the adapters of a map are folders, for backends that load them themselves.

    Args:
        mapped: the names of users' adapters; folders: those of folders on this machine.

    Raises:
        UsageError: one is the name of a served adapter.
    """
    for user, name in mapped.items():
        if name and name not in folders:
            raise UsageError(
                f"--adapter-map, user {user}: '{name}' is no folder with an adapter; "
                "names of served adapters are for --backend vllm"
            )
