"""Token counts by a served model's own tokenizer, through vLLM's `/tokenize` and `/detokenize`.

Counting happens while a prompt is built, in code that awaits nothing, so this is a plain blocking connection; counts
are remembered, since the same records are counted for many samples of a user.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from personabench.errors import BackendError
from personabench.models.tokens import Tokens

REMEMBERED = 8192
PATIENCE = 30.0


class ServedTokens(Tokens):
    """The tokenizer of `model` on the first server that answers.

    Args:
        roots: server addresses without /v1.
        headers: sent along.
    """

    def __init__(self, roots: Sequence[str], model: str, headers: Mapping[str, str]) -> None:
        self._roots = list(roots)
        self._model = model
        self._headers = dict(headers)
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._lengths = lru_cache(maxsize=REMEMBERED)(lambda text: len(self._tokens(text)))

    def available(self) -> bool:
        """Whether the servers can count at all."""
        try:
            return self._tokens("a") != []
        except BackendError:
            return False

    def count(self, text: str) -> int:
        return self._lengths(text)

    def cut(self, text: str, limit: int) -> str:
        if limit <= 0:
            return ""
        tokens = self._tokens(text)
        if len(tokens) <= limit:
            return text
        kept = str(self._ask("/detokenize", {"tokens": tokens[:limit]}, "prompt")).rstrip("\ufffd")
        if text.startswith(kept):
            return kept
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.count(text[:middle]) <= limit else (low, middle - 1)
        return text[:low]

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _tokens(self, text: str) -> list[int]:
        tokens: list[int] = self._ask(
            "/tokenize", {"prompt": text, "add_special_tokens": False}, "tokens"
        )
        return tokens

    def _ask(self, path: str, body: Mapping[str, Any], field: str) -> Any:
        """A field of the reply, from the next server where one fails; everywhere twice, since idle connections close.

        Raises:
            BackendError: no server answered.
        """
        content = json.dumps({"model": self._model, **body})
        why: object = "no server"
        with self._lock:
            for _ in range(2 * len(self._roots)):
                try:
                    return self._exchange(self._roots[0], path, content)[field]
                except (
                    OSError,
                    http.client.HTTPException,
                    ValueError,
                    LookupError,
                    TypeError,
                ) as error:
                    why = str(error) or type(error).__name__
                    self.close()
                    self._roots.append(self._roots.pop(0))
        raise BackendError(f"{self._roots[0]}{path} does not count tokens ({why})")

    def _exchange(self, root: str, path: str, content: str) -> Any:
        parts = urlsplit(root)
        if self._connection is None:
            kind = (
                http.client.HTTPSConnection
                if parts.scheme == "https"
                else http.client.HTTPConnection
            )
            self._connection = kind(parts.netloc, timeout=PATIENCE)
        self._connection.request("POST", parts.path + path, content.encode(), self._headers)
        reply = self._connection.getresponse()
        said = reply.read()
        if reply.status != 200:
            raise ValueError(f"answered {reply.status}: {said[:200].decode(errors='replace')}")
        return json.loads(said)
