"""The process around a command: no telemetry, no reading of pipes as files, and `--offline`.

Settings of other libraries are environment variables, which child processes inherit. A variable
that the user has set is left alone.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies

from personabench.errors import DataError, UsageError

OFFLINE = "PERSONABENCH_OFFLINE"

# vLLM, Ray, the hub client and the experiment trackers; `datasets` and `evaluate` count downloads.
NO_TELEMETRY = {
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
}
_NO_NETWORK = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")

# Devices that programs open on purpose. Pipes of a shell's `<(...)` are below the others.
_DEVICES = ("/dev/null", "/dev/tty", "/dev/random", "/dev/urandom", "/dev/stdin")
_HANDLES = ("/dev/fd/", "/dev/pts/", "/proc/")

_hooks: set[str] = set()


def disable_telemetry() -> None:
    """Turn off the telemetry of other libraries, unless the user has set it."""
    for name, value in NO_TELEMETRY.items():
        os.environ.setdefault(name, value)


def encode_proxies() -> None:
    """Percent-encode passwords of proxies, so that no library takes a part of one for a port."""
    for name in (*_PROXIES, *map(str.upper, _PROXIES)):
        scheme, separator, rest = os.environ.get(name, "").partition("://")
        credentials, at, address = rest.rpartition("@")
        if at:
            parts = credentials.split(":", 1)
            encoded = ":".join(quote(unquote(part), safe="") for part in parts)
            os.environ[name] = f"{scheme}{separator}{encoded}@{address}"


def refuse_pipes() -> None:
    """Refuse to open pipes and devices in the place of files: reading them may never end."""
    _add_hook("open", _refuse_pipe)


def is_offline() -> bool:
    """Whether the command may not use the network."""
    return os.environ.get(OFFLINE, "").strip().lower() not in ("", "0", "false", "no")


def go_offline() -> None:
    """Refuse every connection but those of this machine with itself, for the rest of the process.

    Child processes inherit the setting, and so do libraries that fetch models and data.
    """
    os.environ[OFFLINE] = "1"
    os.environ.update(_NO_NETWORK)
    for event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        _add_hook(event, _refuse_address)
    for event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        _add_hook(event, _refuse_host)


def refuse_download(what: str, url: str = "") -> None:
    """Refuse a download if the command is offline, unless it is from this machine.

    Raises:
        UsageError: it is offline; the message says what would have been fetched.
    """
    is_near = bool(url) and is_loopback(urlsplit(url).hostname)
    if is_offline() and not is_near:
        raise UsageError(
            f"offline: {what} would have been fetched; fetch it once without --offline "
            f"({OFFLINE}), or name a local copy"
        )


def can_reach(url: str) -> bool:
    """Whether the host of an address is known to the network, or a proxy is to know it."""
    if is_offline():
        return False
    if getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(url).hostname, 443)
    except (OSError, ValueError):
        return False
    return True


def _add_hook(event: str, check: Any) -> None:
    # Hooks cannot be removed, so that each is added once.
    if event in _hooks:
        return
    _hooks.add(event)

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name == event:
            check(*arguments)

    sys.addaudithook(hook)


def _refuse_pipe(path: Any, mode: Any, flags: int) -> None:
    if not isinstance(path, str | bytes) or flags & (os.O_WRONLY | os.O_RDWR):
        return
    name = os.fsdecode(path)
    if name in _DEVICES or name.startswith(_HANDLES):
        return
    try:
        kind = Path(name).stat().st_mode
    except (OSError, ValueError):
        return
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
        described = "a pipe" if stat.S_ISFIFO(kind) else "a device"
        raise DataError(f"{name} is {described}, not a file; move it away or name a file")


def _refuse_address(_: Any, address: Any) -> None:
    # Sockets in the file system have a path for an address.
    if isinstance(address, tuple) and not is_loopback(address[0]):
        raise _refusal(f"{address[0]}:{address[1]}")


def _refuse_host(host: Any, port: Any = None, *_: Any) -> None:
    if not is_loopback(host):
        name = os.fsdecode(host)
        raise _refusal(name if port is None else f"{name}:{port}")


def _refusal(target: str) -> UsageError:
    return UsageError(
        f"offline: a connection to {target} was refused; use a server on this machine or a local "
        f"copy, or repeat without --offline ({OFFLINE})"
    )


def is_loopback(host: Any) -> bool:
    """Whether a host is this machine; no host at all stands for it as well."""
    if not host:
        return True
    name = os.fsdecode(host).lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback or address.is_unspecified


def check_words(words: list[str]) -> None:
    """Check that a command line is text.

    Raises:
        UsageError: a word has bytes that are not UTF-8.
    """
    for number, word in enumerate(words, 1):
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"word {number} of the command line ({word!a}) has bytes that are not UTF-8; "
                "rename the file or write the option in UTF-8"
            ) from error
