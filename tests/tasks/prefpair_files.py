"""Rows and helpers of the tests of preference pairs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from personabench.tasks import prefpair
from personabench.types import Request

EXAMPLE = Path(prefpair.__file__).parent / "sample"


def text_of(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


def metrics_of(result: Any) -> Mapping[str, float]:
    metrics: Mapping[str, float] = result.summary.metrics["official"]
    return metrics


def psoups_row(prompt: str, persona: int = 0, feedback: Sequence[str] = ()) -> dict[str, Any]:
    texts = [f"A long reply to {prompt} with many words.", f"Short: {prompt}"]
    return {
        "prompt": prompt,
        "chosen": texts[persona],
        "rejected": texts[1 - persona],
        "ground_truth_persona": f"persona {persona}",
        "profile": "Someone.",
        "Pair-wise Comparative Feedback": [
            {"prompt": other, "chosen": f"yes {other}", "rejected": f"no {other}"}
            for other in feedback or ("One?", "Two?", "Three?", "Four?")
        ],
    }


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
