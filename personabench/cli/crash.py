"""The last net: an unforeseen error becomes a message, and its traceback goes to a file."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator
from urllib.parse import unquote

from personabench.errors import visible

_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|HEADERS|CREDENTIAL", re.IGNORECASE)
_ADDRESS_NAME = re.compile(r"PROXY|URL|ENDPOINT", re.IGNORECASE)
_HEADER_OPTION = re.compile(r"--(\w+-)?header")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def explain(error: BaseException) -> tuple[str, int]:
    """Explain an unforeseen error, and write its traceback to a file.

    Returns:
        the message, which names the file, and the exit code.
    """
    message, code = _describe(error)
    text = "".join(traceback.format_exception(error))
    path = _write(strike(text))
    ending = f"the traceback is in {path}" if path else "the traceback could not be written"
    return f"{visible(strike(message))}\n{ending}", code


def strike(text: str) -> str:
    """Remove every secret of the environment and of the command line from a text."""
    from personabench.models.backends.redaction import Secrets

    return Secrets(_secrets()).strike(text)


def _secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name):
            yield value
        elif _ADDRESS_NAME.search(name):
            yield from _password_of(value)

    words = sys.argv[1:]
    for position, word in enumerate(words):
        option, _, value = word.partition("=")
        if _HEADER_OPTION.fullmatch(option):
            header = value or "".join(words[position + 1 : position + 2])
            yield header.partition(":")[2].strip()
        yield from _password_of(word)


def _password_of(address: str) -> Iterator[str]:
    credentials, at, _ = address.partition("://")[2].rpartition("@")
    if at:
        password = credentials.partition(":")[2]
        # Libraries quote the parts that they take for a port or a path.
        yield from (credentials, password, unquote(password), *re.split(r"[/?#:]", password))


def _describe(error: BaseException) -> tuple[str, int]:
    reason = f"{type(error).__name__}: {error}".removesuffix(": ")
    if isinstance(error, MemoryError):
        return "the memory is exhausted; take fewer samples (--limit) or free some memory", 1
    if isinstance(error, RecursionError):
        return "a file is nested too deeply to be read; check the files that the command names", 2
    if certificates := _bad_certificates(error):
        return f"{certificates} ({reason})", 2
    if isinstance(error, OSError):
        return _describe_os_error(error)
    if isinstance(error, UnicodeError):
        return f"a text is not UTF-8 ({reason}); check the files that the command names", 2
    return (
        f"personabench did not expect this: {reason}. Finished samples are kept, and the same "
        "command continues; if it fails again, report it with the traceback",
        1,
    )


def _describe_os_error(error: OSError) -> tuple[str, int]:
    reason = error.strerror or str(error)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return (
            "too many files are open; raise the limit with `ulimit -n 4096`, or lower "
            "--concurrency, then repeat the command: everything finished is kept",
            1,
        )
    if error.errno == errno.ENOSPC:
        subject = error.filename or "the output"
        return f"{subject} cannot be written: {reason}; free some space, then repeat", 1
    if error.filename is not None:
        return (
            f"{os.fsdecode(error.filename)} cannot be used: {reason}; move it away or name "
            "another file, then repeat the command",
            2,
        )
    return f"{reason}; repeat the command: everything finished is kept", 1


def _bad_certificates(error: BaseException) -> str | None:
    """Name the environment variable behind an error, if it names unusable certificates."""
    ssl = sys.modules.get("ssl")
    is_ssl = ssl is not None and isinstance(error, ssl.SSLError)
    is_missing = isinstance(error, FileNotFoundError) and error.filename is None
    if not (is_ssl or is_missing):
        return None
    for name in _CERTIFICATES:
        if os.environ.get(name):
            return f"{name} names no usable certificates: {os.environ[name]}; correct or unset it"
    return None


def _write(text: str) -> str | None:
    """Write a traceback to a new file; None if that is not possible."""
    try:
        # Importing fails as well if no more files can be opened.
        import tempfile

        handle, path = tempfile.mkstemp(prefix="personabench-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except (OSError, MemoryError):
        return None
    return path
