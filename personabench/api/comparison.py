"""Comparisons as records: a prompt, the response that a user preferred, and those passed over.

Such a record is a `Record` whose stimulus is the prompt and whose response is the preferred one, so
that methods for (stimulus, response) pairs read it unchanged.  The other responses are in
`fields["rejected"]`, as a JSON list of texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from personabench.types import Record

__all__ = ["comparison_record", "describe_comparison", "rejected_responses"]

REJECTED = "rejected"


def comparison_record(
    prompt: str,
    preferred: str,
    rejected: Sequence[str],
    *,
    id: str = "",
    time: str | None = None,
    score: str = "",
    reason: str = "",
) -> Record:
    """Return the record of one comparison.

    Args:
        rejected: the responses that the user did not prefer, one or more.
        id, time: as in `Record`.
        score: the user's rating of the preferred response, if there is one.
        reason: the user's explanation of the choice in words, if there is one.
    """
    fields = {REJECTED: msgspec.json.encode(list(rejected)).decode()}
    if score:
        fields["score"] = score
    if reason:
        fields["reason"] = reason
    return Record(id, stimulus=prompt, response=preferred, time=time, fields=fields)


def rejected_responses(record: Record) -> tuple[str, ...]:
    """Return the responses that the user did not prefer; empty if the record is no comparison."""
    content = record.fields.get(REJECTED, "")
    # Fields hold entries of the data, some of which may have the name by chance.
    if not content.startswith("["):
        return ()
    try:
        return msgspec.json.decode(content, type=tuple[str, ...])
    except msgspec.MsgspecError:
        return ()


def describe_comparison(record: Record) -> str:
    """Write a comparison as labelled plain text; the user's rating is left out."""
    lines = [f"Prompt: {record.stimulus}", f"Preferred: {record.response}"]
    lines += [f"Not preferred: {text}" for text in rejected_responses(record)]
    if "reason" in record.fields:
        lines.append(f"Reason: {record.fields['reason']}")
    return "\n".join(lines)
