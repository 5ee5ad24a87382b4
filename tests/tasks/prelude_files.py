"""Documents with a marker word for PRELUDE, a user who likes lower case, and runs with both."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edit_fixtures import RULE_OF, SOURCES

from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.run import runner
from personabench.types import Request


def write_notes(place: Path, sources: Sequence[str] = SOURCES, each: int = 4) -> Path:
    """Documents with their source as marker word, and one rule per source."""
    place.mkdir(parents=True, exist_ok=True)
    for source in sources:
        rows = [{"doc_id": f"{source}{n}", "text": f"Note {n} about {source}"} for n in range(each)]
        (place / f"{source}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    liked = [
        {"name": source, "preference": f"wish of {source}", "rules": [RULE_OF[source].phrase]}
        for source in sources
    ]
    (place / "summ.json").write_text(json.dumps({"env": "summ", "sources": liked}))
    return place


class LowerCaseUser(Scripted):
    """A user who wants lower case and accepts what is."""

    def __init__(self) -> None:
        def answer(request: Request) -> str:
            draft = re.search(
                r"Summary:\n(.*?)\n\nYou like", request.messages[-1].content, re.DOTALL
            )
            assert draft is not None
            accepting = "Answer with yes or no" in request.messages[-1].content
            return (
                ("yes" if draft[1].islower() else "No.")
                if accepting
                else f"Revised text:\n{draft[1].lower()}"
            )

        super().__init__(BackendOptions(model="user"), answer=answer)


def run_cipher(
    place: Path, data: Path, model: Scripted, user: Scripted, cache: Any = "off"
) -> runner.Outcome:
    options = runner.Options(
        ["cipher"], ["prelude_summ"], data=data, backend="scripted", results=place, cache=cache,
        assignments=["task.rounds=10", "task.trajectories=2", "task.accuracy=off"],
    )  # fmt: skip
    (outcome,) = asyncio.run(runner.run(options, backend=model, roles={"simulator": user}))
    return outcome
