"""Documents with marker words for PRELUDE, a user who likes lower case, and runs with both."""

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


def write_notes(folder: Path, sources: Sequence[str] = SOURCES, count: int = 4) -> Path:
    """Write documents with their source as marker word, and one rule per source."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        rows = [
            {"doc_id": f"{source}{n}", "text": f"Note {n} about {source}"} for n in range(count)
        ]
        (folder / f"{source}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    liked = [
        {"name": source, "preference": f"wish of {source}", "rules": [RULE_OF[source].phrase]}
        for source in sources
    ]
    (folder / "summ.json").write_text(json.dumps({"env": "summ", "sources": liked}))
    return folder


class LowerCaseUser(Scripted):
    """A user who accepts drafts in lower case and rewrites others."""

    def __init__(self) -> None:
        def answer(request: Request) -> str:
            content = request.messages[-1].content
            draft = re.search(r"Summary:\n(.*?)\n\nYou like", content, re.DOTALL)
            assert draft is not None
            if "Answer with yes or no" not in content:
                return f"Revised text:\n{draft[1].lower()}"
            return "yes" if draft[1].islower() else "No."

        super().__init__(BackendOptions(model="user"), answer=answer)


def run_cipher(
    results: Path, data: Path, model: Scripted, user: Scripted, cache: Any = "off"
) -> runner.Outcome:
    """Run CIPHER on two trajectories of ten rounds."""
    options = runner.Options(
        ["cipher"],
        ["prelude_summ"],
        data=data,
        backend="scripted",
        wording="compact",
        results=results,
        cache=cache,
        assignments=["task.rounds=10", "task.trajectories=2", "task.accuracy=off"],
    )
    (outcome,) = asyncio.run(runner.run(options, backend=model, roles={"simulator": user}))
    return outcome
