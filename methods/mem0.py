"""The package mem0ai, run as it is: its own prompts, its own store, our model, dates and reader.

Its language model and embedder are the endpoint of the run, its store is an embedded Qdrant in a
temporary folder, and telemetry is off.  It stamps requests with the clock; here they have the date
of the batch instead.  Needs the extra `mem0`.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from personabench.api.model_endpoint import MODEL, ModelEndpoint
from personabench.api.python_memory import PythonMemory, find_version, list_versions
from personabench.errors import UsageError

PACKAGE = "mem0ai"
_TODAY = re.compile(r"- Today's date is [\d-]+\.\n?")
# Tokens of a reply; the package's own limit of 2,000 leaves no room in small windows.
_MAX_TOKENS = 600


class Mem0Provider:
    """Stores a history with `Memory.add` and searches it with `Memory.search`.

    Attributes:
        counts: failures since they were last read, by kind.
    """

    def __init__(self, endpoint: ModelEndpoint) -> None:
        self._endpoint = endpoint
        self._folder = tempfile.mkdtemp(prefix="personabench-mem0-")
        self._memory: Any = None
        self._sources: dict[str, dict[str, Any]] = {}
        self.counts: Counter[str] = Counter()

    def start(self, user: str) -> None:
        """Create the store with the first history; users share it, and are told apart by name."""
        if self._memory is None:
            with _only_this_machine():
                self._memory = self._create()

    def _create(self) -> Any:
        os.environ.setdefault("MEM0_TELEMETRY", "False")
        os.environ["MEM0_DIR"] = self._folder
        # Imported on use: an extra.
        import mem0
        from mem0.memory import main, utils
        from openai import OpenAI

        # Even switched off, it builds a client for every event.
        main.capture_event = lambda *args, **options: None
        main.logger.addHandler(_Counting(self.counts))
        main.logger.propagate = False
        self._prompt = utils.FACT_RETRIEVAL_PROMPT

        access = {"api_key": self._endpoint.api_key, "openai_base_url": self._endpoint.url}
        client = OpenAI(api_key=self._endpoint.api_key, base_url=self._endpoint.url)
        probe = client.embeddings.create(input=["size"], model=self._endpoint.embedder)
        dimensions = len(probe.data[0].embedding)
        model = {"model": MODEL, "temperature": 0.0, "top_p": 1.0, "max_tokens": _MAX_TOKENS}
        return mem0.Memory.from_config(
            {
                "llm": {"provider": "openai", "config": {**model, **access}},
                "embedder": {
                    "provider": "openai",
                    "config": {"model": "embedder", "embedding_dims": dimensions, **access},
                },
                "vector_store": {
                    "provider": "qdrant",
                    "config": {
                        "path": os.path.join(self._folder, "qdrant"),  # noqa: PTH118
                        "embedding_model_dims": dimensions,
                        "collection_name": "memories",
                    },
                },
                "history_db_path": os.path.join(self._folder, "history.db"),  # noqa: PTH118
            }
        )

    def ingest(self, user: str, batch: Sequence[Mapping[str, Any]]) -> None:
        """Store a batch under the date of its last message."""
        time = batch[-1]["time"]
        self._set_date(time)
        ids = [message["id"] for message in batch]
        # Names of speakers are in the texts; messages of other roles would be left out.
        messages = [{"role": "user", "content": message["content"]} for message in batch]
        events = self._memory.add(messages, user_id=user, metadata={"time": time})["results"]
        for event in events:
            known = self._sources.get(event["id"], {"ids": []})
            united = list(dict.fromkeys([*known["ids"], *ids]))
            self._sources[event["id"]] = {"ids": united, "time": time}

    def _set_date(self, time: str) -> None:
        """Replace the date of the clock in the package's prompt by that of the data."""
        from mem0.memory import utils

        is_date = bool(re.match(r"\d{4}-\d\d-\d\d", time))
        line = f"- Today's date is {time[:10]}.\n" if is_date else ""
        utils.FACT_RETRIEVAL_PROMPT = _TODAY.sub(lambda match: line, self._prompt)

    def retrieve(
        self, user: str, query: str, now: str, k: int, tokens: int
    ) -> list[Mapping[str, Any]]:
        """Search the user's memories."""
        rows = self._memory.search(query, user_id=user, limit=k)["results"]
        items: list[Mapping[str, Any]] = []
        for row in rows:
            source = self._sources.get(row["id"], {"ids": None, "time": ""})
            item = {"text": row["memory"], "time": source["time"], "record_ids": source["ids"]}
            items.append(item)
        return items

    def size(self, user: str) -> Mapping[str, int]:
        """Count the user's memories."""
        rows = self._memory.get_all(user_id=user, limit=1_000_000)["results"]
        return {"items": len(rows)}

    def close(self) -> None:
        """Delete the store."""
        self._memory = None
        shutil.rmtree(self._folder, ignore_errors=True)


class Mem0(PythonMemory):
    """Run the package mem0ai: extract, compare and edit facts; show the k nearest."""

    name = "mem0"
    paper = (
        "Mem0: Building Production-Ready AI Agents with Scalable Long-Term Memory, arXiv 2504.19413"
    )
    needs = ("history|feedback",)
    designed_for = ("locomo",)
    external = True
    provider = Mem0Provider
    packages = (PACKAGE,)
    code = find_version(PACKAGE)

    def __init__(self, params: Any = None) -> None:
        try:
            list_versions(self.packages)
        except UsageError as error:
            raise UsageError(
                'method mem0: install the package: pip install "personabench-harness[mem0]"'
            ) from error
        super().__init__(params)


class _Counting(logging.Handler):
    """Counts the failures that the package only logs."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__(logging.ERROR)
        self._counts = counts

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        is_reply = "JSON" in text or "new_retrieved_facts" in text
        self._counts["memory_bad_json" if is_reply else "memory_failed"] += 1


@contextmanager
def _only_this_machine() -> Iterator[None]:
    """Keep the package from other servers that the environment names."""
    hidden = {
        name: os.environ.pop(name)
        for name in ("OPENROUTER_API_KEY", "OPENAI_API_BASE")
        if name in os.environ
    }
    near = os.environ.get("NO_PROXY", "")
    if "127.0.0.1" not in near:
        os.environ["NO_PROXY"] = f"{near},127.0.0.1".strip(",")
    try:
        yield
    finally:
        os.environ.update(hidden)
