"""Token counts by a served model's own tokenizer, through vLLM's `/tokenize` and `/detokenize`.

Counting happens while a prompt is built, in code that is not asynchronous, so this is a plain
blocking connection.  Counts are cached, since the same records are counted for many samples of a
user.
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
from personabench.models.backends.http import MAX_BODY
from personabench.models.tokens import Tokens

CACHED_COUNTS = 8192
PATIENCE = 30.0
"""Seconds to wait for a server."""


class ServedTokens(Tokens):
    """The tokenizer of `model` on the first server that answers.

    Args:
        roots: server addresses without /v1.
        headers: sent with each request.
    """

    def __init__(self, roots: Sequence[str], model: str, headers: Mapping[str, str]) -> None:
        self._roots = list(roots)
        self._model = model
        self._headers = {**headers, "content-type": "application/json"}
        # Prompts are built in several threads, but the connection carries one exchange at a time.
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._lengths = lru_cache(maxsize=CACHED_COUNTS)(lambda text: len(self._tokenize(text)))

    def available(self) -> bool:
        """Whether the servers can count tokens."""
        try:
            return self._tokenize("a") != []
        except BackendError:
            return False

    def count(self, text: str) -> int:
        return self._lengths(text)

    def truncate(self, text: str, limit: int) -> str:
        if limit <= 0:
            return ""
        tokens = self._tokenize(text)
        if len(tokens) <= limit:
            return text

        # The last token may end inside a character, which is decoded as U+FFFD.
        prefix = self._detokenize(tokens[:limit]).rstrip("\ufffd")
        if text.startswith(prefix):
            return prefix
        # Some tokenizers normalize, so their text is not a prefix of the original.
        return self._search_prefix(text, limit)

    def _search_prefix(self, text: str, limit: int) -> str:
        low = 0
        high = len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if self.count(text[:middle]) <= limit:
                low = middle
            else:
                high = middle - 1
        return text[:low]

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _tokenize(self, text: str) -> list[int]:
        body = {"prompt": text, "add_special_tokens": False}
        tokens: list[int] = self._request("/tokenize", body, "tokens")
        return tokens

    def _detokenize(self, tokens: Sequence[int]) -> str:
        return str(self._request("/detokenize", {"tokens": tokens}, "prompt"))

    def _request(self, path: str, body: Mapping[str, Any], field: str) -> Any:
        """Return a field of the reply of the first server that answers.

        Raises:
            BackendError: no server answered.
        """
        content = json.dumps({"model": self._model, **body})
        reason: object = "no server"
        with self._lock:
            # Each server twice: the first failure may be only an idle connection that it closed.
            for _ in range(2 * len(self._roots)):
                try:
                    reply = self._exchange(self._roots[0], path, content)
                    return reply[field]
                except (
                    OSError,
                    http.client.HTTPException,
                    ValueError,
                    LookupError,
                    TypeError,
                ) as error:
                    reason = str(error) or type(error).__name__
                    self.close()
                    self._roots.append(self._roots.pop(0))
        raise BackendError(f"{self._roots[0]}{path} does not count tokens ({reason})")

    def _exchange(self, root: str, path: str, content: str) -> Any:
        parts = urlsplit(root)
        if self._connection is None:
            connection_class: type[http.client.HTTPConnection] = http.client.HTTPConnection
            if parts.scheme == "https":
                connection_class = http.client.HTTPSConnection
            self._connection = connection_class(parts.netloc, timeout=PATIENCE)

        self._connection.request("POST", parts.path + path, content.encode(), self._headers)
        reply = self._connection.getresponse()
        reply_body = reply.read(MAX_BODY + 1)
        if len(reply_body) > MAX_BODY:
            raise ValueError("sent too long a reply")
        if reply.status != 200:
            excerpt = reply_body[:200].decode(errors="replace")
            raise ValueError(f"answered {reply.status}: {excerpt}")
        return json.loads(reply_body)
