"""Small synthetic PersonaMem files, valid unless a test breaks them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from personabench.tasks.personamem.files import COLUMNS, context_id

OPTIONS = (
    "Try the north trail.",
    "Try the south trail.",
    "Try the east trail.",
    "Try the west trail.",
)
ROLES = {"S": "system", "U": "user", "A": "assistant"}


def talk(roles: str, mark: str = "") -> list[dict[str, str]]:
    """A conversation by its roles, such as `SUUASU`; each message names its index."""
    prefix = {"S": "Current user persona: ", "U": "User: ", "A": "Assistant: "}
    return [
        {"role": ROLES[r], "content": f"{prefix[r]}{mark}{r}{index}"}
        for index, r in enumerate(roles)
    ]


def cell(options: Sequence[str] = OPTIONS) -> str:
    """An options cell as published."""
    return repr([f"({letter}) {text}" for letter, text in zip("abcd", options, strict=True)])


def row(name: str, messages: Sequence[dict[str, str]], end: int, **changes: Any) -> dict[str, Any]:
    """A row of the question table."""
    return {
        "persona_id": "0",
        "question_id": name,
        "question_type": "recall_user_shared_facts",
        "topic": "travelPlanning",
        "context_length_in_tokens": 10,
        "context_length_in_letters": sum(len(message["content"]) for message in messages[:end]),
        "distance_to_ref_in_blocks": 1,
        "distance_to_ref_in_tokens": 900,
        "num_irrelevant_tokens": 0,
        "distance_to_ref_proportion_in_context": "35.00%",
        "user_question_or_message": f"What about {name}?",
        "correct_answer": "(b)",
        "all_options": cell(),
        "shared_context_id": context_id(messages),
        "end_index_in_shared_context": end,
        **changes,
    }


def write(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    talks: Sequence[list[dict[str, str]]],
    split: str = "32k",
) -> Path:
    """Write both files of a split into a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"questions_{split}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, list(rows[0]) if rows else list(COLUMNS), lineterminator="\r\n"
        )
        writer.writeheader()
        writer.writerows(rows)
    conversations = [
        json.dumps({context_id(messages): messages}, ensure_ascii=False) for messages in talks
    ]
    (folder / f"shared_contexts_{split}.jsonl").write_text(
        "\n".join(conversations) + "\n", encoding="utf-8"
    )
    return folder
