"""Items of a memory, as a request shows them."""

from __future__ import annotations

import msgspec


class MemoryItem(msgspec.Struct, frozen=True):
    """One item that a memory retrieves.

    Attributes:
        text: the text that the request shows.
        record_ids: the records that it came from; None if the memory cannot tell.
        part: the part of the memory that it is from, for counts ("facts", "portrait").
        key: the item's name in the state, by which `reinforce` is told that it was recalled.
    """

    text: str
    record_ids: tuple[str, ...] | list[str] | None = ()
    part: str = ""
    key: str = ""
