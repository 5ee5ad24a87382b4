"""The LoRA adapters of a llama.cpp server in this process.

A server has the adapters that it was started with, and every request chooses one of them.  Another
adapter needs another start, which waits for the calls in flight.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from personabench.errors import BackendError
from personabench.models.backends.gguf_lora import AdapterConverter

LOADED = 8
"""Adapters that a server has at most; work is ordered by user, so few return."""


class LocalAdapters:
    """Chooses the adapter of each call, and starts the server again for one that it does not have.

    Args:
        folders, scales: the known adapters and their strengths by name, as in `Backend`.
        restart: starts the server again with the adapters that are `served`.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        scales: Mapping[str, float],
        restart: Callable[[], Awaitable[None]],
    ) -> None:
        self._folders = folders
        self._scales = scales
        self._restart = restart
        self.served: list[str] = []
        self._files: tempfile.TemporaryDirectory[str] | None = None
        self._converter: AdapterConverter | None = None
        # New calls wait at the gate while a start waits for those in flight.
        self._gate = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()
        self._in_flight = 0

    def preload(self) -> None:
        """Let the first start of the server have adapters that are known already."""
        self.served = list(self._folders)[:LOADED]

    def write(self, model: Path) -> Sequence[Path]:
        """Write the served adapters as GGUF files of a model, in their order.

        Raises:
            UsageError: an adapter or the model is of a kind that llama.cpp does not adapt.
        """
        if not self.served:
            return []
        if self._files is None:
            self._files = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        paths = []
        for name in self.served:
            path = Path(self._files.name) / f"{name}.gguf"
            if not path.is_file():
                self._converter = self._converter or AdapterConverter(model)
                self._converter.convert(self._folders[name], path)
            paths.append(path)
        return paths

    @asynccontextmanager
    async def through(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """Provide the fields of a request through an adapter; "" is the model itself.

        Raises:
            BackendError: no adapter has that name.
            UsageError: it does not fit the model.
        """
        if name and name not in self._folders:
            raise BackendError(f"no adapter '{name}' is known")
        async with self._gate:
            if name and name not in self.served:
                await self._idle.wait()
                served = self.served
                self.served = [*served[-(LOADED - 1) :], name]
                try:
                    await self._restart()
                except BaseException:
                    self.served = served
                    raise
            self._in_flight += 1
            self._idle.clear()
        try:
            yield self._choose(name)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    def _choose(self, name: str) -> dict[str, Any]:
        if name:
            return {"lora": [{"id": self.served.index(name), "scale": self._scales[name]}]}
        # llama.cpp would take the start of a prompt as the last adapter of the slot has read it.
        return {"cache_prompt": False} if self.served else {}

    def close(self) -> None:
        """Delete the files."""
        if self._files is not None:
            self._files.cleanup()
