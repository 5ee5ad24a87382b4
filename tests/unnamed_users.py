"""Data that names no users: every question carries a profile and an id, and nothing else tells who
asks."""

from __future__ import annotations

from collections.abc import Sequence

from personabench.api.dataset import Dataset
from personabench.types import Record, Sample


class Nameless(Dataset):
    """Questions by name, each with its profile; a name in `named` is what the data calls the
    question's user."""

    separation, split, hash, source, identified = "user", "dev", "h", "nameless", False

    def __init__(
        self, profiles: dict[str, Sequence[Record]], named: dict[str, str] | None = None
    ) -> None:
        self.profiles = profiles
        self.named = named or {}

    def index(self) -> Sequence[tuple[str, str]]:
        return [(name, self.named.get(name, name)) for name in self.profiles]

    def load(self, position: int) -> Sample:
        name, user = self.index()[position]
        return Sample(
            name,
            user,
            f"What now, {name}?",
            history=tuple(self.profiles[name]),
            references=("gold",),
        )
