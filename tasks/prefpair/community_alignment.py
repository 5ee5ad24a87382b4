"""Community Alignment's conversations: four responses to a first turn, one of them preferred.

Rows name no time, so the history of a sample is the annotator's earlier rows in the file.  Many
first prompts, with their responses, were put to ten annotators or more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from personabench.api.comparison import comparison_record
from personabench.api.downloads import MANIFEST
from personabench.api.rows import ENDINGS, Row, is_table, read_rows
from personabench.errors import DataError
from personabench.tasks.prefpair.comparison import Comparison, drop_own_prompt
from personabench.types import Record

LETTERS = "abcd"


def read_comparisons(data: Path, counts: Counter[str]) -> Iterator[Comparison]:
    """Read the first turns of all conversations, in the order of the file.

    Args:
        data: the table, or a folder that holds it.
        counts: receives the numbers of "conversations", of those that are "dropped", as they have
            no preferred response or two equal ones, and of records with their sample's "own
            prompt".

    Raises:
        DataError: the file is missing or broken, or a row lacks a field.
    """
    earlier: dict[str, list[Record]] = defaultdict(list)
    for row in _read_tables(data):
        counts["conversations"] += 1
        responses = _read_responses(row)
        if responses is None:
            counts["dropped"] += 1
            continue

        prompt, user_id = row.read_text("first_turn_prompt"), row.read_id("annotator_id")
        history, dropped = drop_own_prompt(prompt, earlier[user_id])
        counts["own prompt"] += dropped
        comparison_id = row.read_id("conversation_id")
        yield Comparison(
            comparison_id,
            user_id,
            prompt,
            responses,
            history,
            location=row.location,
        )
        reason = row.get("first_turn_feedback")
        record = comparison_record(
            prompt,
            responses[0],
            responses[1:],
            id=comparison_id,
            reason=reason.strip() if isinstance(reason, str) else "",
        )
        earlier[user_id].append(record)


def _read_tables(data: Path) -> Iterator[Row]:
    paths = [path for path in sorted(data.rglob("*")) if is_table(path)]
    if data.is_file():
        paths = [data]
    elif not paths:
        raise DataError(f"{data} holds no table ({', '.join(ENDINGS)})")
    for path in paths:
        # The manifest of a download is no table.
        if path.name != MANIFEST:
            yield from read_rows(path)


def _read_responses(row: Row) -> tuple[str, ...] | None:
    """The responses, the preferred one first; None if there is nothing to prefer."""
    preferred = row["first_turn_preferred_response"]
    if not preferred:
        return None

    # "response_b" in the published table.
    letter = str(preferred)[-1].lower()
    if letter not in LETTERS:
        raise DataError(
            f"{row.location}: first_turn_preferred_response is '{preferred}', expected response_a "
            "to response_d"
        )
    texts = {name: row[f"first_turn_response_{name}"] for name in LETTERS}
    present = {name: text for name, text in texts.items() if isinstance(text, str) and text.strip()}
    is_comparable = letter in present and len(present) > 1
    if not is_comparable or len(set(present.values())) < len(present):
        return None
    return (present[letter], *(text for name, text in present.items() if name != letter))
