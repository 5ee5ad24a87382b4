"""Messages between a memory that runs elsewhere and the harness: records out, items in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from personabench.api.memory_batches import Batch
from personabench.api.memory_items import MemoryItem
from personabench.errors import BackendError

if TYPE_CHECKING:
    from personabench.api.context import Context


def write_time(time: str) -> str:
    """A date in words, with the time of day if it has one; a position in the history as it is."""
    try:
        date = datetime.fromisoformat(time)
    except ValueError:
        return time
    day = f"{date.day} {date:%B %Y}"
    return f"{day}, {date:%H:%M}" if len(time) > len("2023-05-08") else day


def list_messages(batch: Batch, ctx: Context) -> list[dict[str, Any]]:
    """The records of a batch as messages."""
    return [
        {
            "id": record.id,
            "role": record.fields.get("speaker", "user"),
            "content": ctx.task.describe(record),
            "time": record.time or batch.time,
            "session": record.fields.get("block", record.id),
        }
        for record in batch.records
    ]


def read_items(reply: Mapping[str, Any], system: str) -> list[MemoryItem]:
    """Read the items of a reply, best first, or the lines of its text.

    Raises:
        BackendError: it has neither.
    """
    if isinstance(reply.get("items"), list):
        return [_read_item(item) for item in reply["items"] if isinstance(item, dict)]
    if isinstance(reply.get("text"), str):
        # By lines, so that the budget cuts between them.
        return [MemoryItem(line, None) for line in reply["text"].splitlines() if line.strip()]
    raise BackendError(f'{system}: what it retrieves has neither a "text" nor a list of "items"')


def _read_item(item: Mapping[str, Any]) -> MemoryItem:
    text = str(item.get("text", ""))
    if isinstance(item.get("time"), str) and item["time"]:
        text = f"[{write_time(item['time'])}] {text}"
    ids = item.get("record_ids")
    is_list = isinstance(ids, list) and all(isinstance(name, str) for name in ids)
    return MemoryItem(text, ids if is_list else None, "items")
