"""Dimensions, preferences and rubrics of a generated set.

A dimension is a quality in which answers can differ.  Dimensions are named once per problem and
matched with those of earlier problems; then every persona gives each of them a value and an
importance, and gets a criterion for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from personabench.errors import DataError
from personabench.hashing import fold_text
from personabench.tasks.prefdisco.authoring import (
    GRADE,
    TEXT,
    TRIES,
    Authors,
    UnfitReplyError,
    make_list_schema,
    make_object_schema,
)
from personabench.tasks.prefdisco.files import ANCHORS
from personabench.tasks.prefdisco.sources import Problem

PER_PROBLEM = 20
EXPERTISE = (2, 3)

# Known dimensions per matching call: the list grows with every problem and would outgrow a context.
CHUNK = 200
TYPES = ("expertise", "personal")

Dimension = dict[str, str]
PreferenceRow = dict[str, Any]
CriterionRow = dict[str, Any]

_KINDS = (
    "Dimensions say how an answer can differ for different people: level, form, order, tone, "
    "examples, what to treat "
    "or leave out, and how familiar somebody is with what the problem takes. A name is two to "
    "four words and says what "
    "is controlled."
)
_PERSONAL = (
    "You know one person well and say what this person wants of an answer to one problem, "
    "dimension by dimension: the "
    "value, how much it matters for this problem (1 hardly, 5 very much; use the whole range), "
    "and why, from who they "
    "are. Values agree with what they wanted earlier unless the problem gives reason to differ."
)
_RUBRIC = (
    "You write criteria by which an answer to a problem is graded for one person. Each belongs to "
    "one preference: what "
    "is looked at, a weight (all weights of the person sum to about 1), and what an answer is "
    "like that deserves score "
    "1, 3 and 5. Levels describe the answer so that two graders agree."
)


async def name_general_dimensions(
    authors: Authors,
    dataset: str,
    problems: Sequence[Problem],
) -> list[Dimension]:
    """Name four or five dimensions that matter for every problem of a set."""
    # Three problems show the kind of set; more would only make the request longer.
    examples = "\n\n".join(problem.text for problem in problems[:3])
    fields = dict.fromkeys(("name", "description", "value_range", "importance"), TEXT)
    return await authors.request(
        f"general dimensions of {dataset}",
        "You name the four or five dimensions that matter for answers to all problems of a set. "
        f"{_KINDS}",
        f"Set: {dataset}. Some of its problems:\n\n{examples}",
        make_object_schema({"dimensions": make_list_schema(fields, at_least=4, at_most=5)}),
        lambda reply: _parse_dimensions(reply["dimensions"], tuple(fields), range(4, 6)),
    )


async def name_problem_dimensions(
    authors: Authors,
    number: int,
    problem: Problem,
) -> list[Dimension]:
    """Name exactly 20 dimensions of one problem, two or three of them of expertise."""
    fields: dict[str, Any] = dict.fromkeys(("name", "description", "value_range"), TEXT)
    fields["type"] = {"type": "string", "enum": list(TYPES)}
    schema = make_list_schema(fields, at_least=PER_PROBLEM, at_most=PER_PROBLEM)

    def parse(reply: dict[str, Any]) -> list[Dimension]:
        allowed = range(PER_PROBLEM, PER_PROBLEM + 1)
        dimensions = _parse_dimensions(reply["dimensions"], tuple(fields), allowed)
        _check_types(dimensions)
        return dimensions

    return await authors.request(
        f"dimensions of problem {number}",
        f"You name exactly {PER_PROBLEM} dimensions for answers to one problem: "
        "two or three of the type expertise, how familiar somebody is with what this problem "
        f"takes, the others of the type personal. {_KINDS}",
        problem.text,
        make_object_schema({"dimensions": schema}),
        parse,
    )


async def match_dimensions(
    authors: Authors,
    number: int,
    new: Sequence[Dimension],
    known_dimensions: Sequence[Dimension],
) -> dict[str, Dimension]:
    """Dimensions of a problem by name, under the name of a known one if they mean the same.

    Two new dimensions never become one, so that no problem loses dimensions.
    """
    known_by_key = {fold_text(dimension["name"]): dimension for dimension in known_dimensions}
    matches: dict[str, Dimension] = {}
    for dimension in new:
        key = fold_text(dimension["name"])
        if key in known_by_key:
            matches[dimension["name"]] = known_by_key[key]

    for start in range(0, len(known_dimensions), CHUNK):
        unmatched = [dimension for dimension in new if dimension["name"] not in matches]
        if not unmatched:
            break
        chunk = known_dimensions[start : start + CHUNK]
        name = f"matching problem {number}, from {start}"
        targets = await _request_matches(authors, name, unmatched, chunk)
        for dimension in unmatched:
            target = targets.get(fold_text(dimension["name"]))
            used = {match["name"] for match in matches.values()}
            if target and target["name"] not in used:
                matches[dimension["name"]] = target

    matched: dict[str, Dimension] = {}
    for dimension in new:
        target = matches.get(dimension["name"], dimension)
        # The type belongs to the problem: what is expertise here may be taste there.
        matched[target["name"]] = {**target, "type": dimension.get("type", "personal")}
    return matched


async def assign_preferences(
    authors: Authors,
    name: str,
    described: str,
    problem: Problem,
    dimensions: Mapping[str, Dimension],
    earlier: Mapping[str, str],
) -> dict[str, PreferenceRow]:
    """Assign a persona's value, local_importance and justification to each of the dimensions."""
    earlier_values = "\n".join(f"- {dimension}: {value}" for dimension, value in earlier.items())
    dimension_list = "\n".join(
        f"- {dimension}: {fields['description']} ({fields['value_range']})"
        for dimension, fields in dimensions.items()
    )
    parts = [f"Person:\n{described}"]
    if earlier_values:
        parts.append(f"Wanted earlier:\n{earlier_values}")
    parts.append(f"Problem:\n{problem.text}")
    parts.append(f"Dimensions:\n{dimension_list}")

    count = len(dimensions)
    fields = {"name": TEXT, "value": TEXT, "local_importance": GRADE, "justification": TEXT}
    schema = make_list_schema(fields, at_least=count, at_most=count)
    return await authors.request(
        f"preferences of {name}",
        _PERSONAL,
        "\n\n".join(parts),
        make_object_schema({"preferences": schema}),
        lambda reply: _parse_preferences(reply["preferences"], dimensions),
    )


async def write_rubric(
    authors: Authors,
    name: str,
    problem: Problem,
    preferences: Mapping[str, PreferenceRow],
) -> list[CriterionRow]:
    """Write a criterion for every preference, with one call for each type.

    Surplus criteria are dropped, missing ones are requested again.

    Raises:
        DataError: some are missing after three tries.
    """
    criteria: dict[str, CriterionRow] = {}
    for kind in TYPES:
        for attempt in range(TRIES):
            missing = {
                preference: row
                for preference, row in preferences.items()
                if row["type"] == kind and preference not in criteria
            }
            if not missing:
                break
            request_name = f"rubric of {name}, {kind}, {attempt}"
            criteria |= await _request_criteria(authors, request_name, problem, missing)

    absent = [preference for preference in preferences if preference not in criteria]
    if absent:
        raise DataError(f"rubric of {name}: no criterion for {', '.join(absent)} in {TRIES} tries")
    return [criteria[preference] for preference in preferences]


async def _request_matches(
    authors: Authors,
    name: str,
    new: Sequence[Dimension],
    known_dimensions: Sequence[Dimension],
) -> dict[str, Dimension]:
    """Request the known dimension that each new one means, by the folded new name."""

    def parse(reply: dict[str, Any]) -> dict[str, str]:
        return {
            fold_text(str(row["new"])): fold_text(str(row["known"] or ""))
            for row in reply["matches"]
        }

    known_keys = await authors.request(
        name,
        "You see known dimensions and new ones. For every new one give the name of the known "
        "dimension that means the same, or an empty text where there is none. "
        "Related is not the same.",
        f"Known:\n{_list_dimensions(known_dimensions)}\n\nNew:\n{_list_dimensions(new)}",
        make_object_schema({"matches": make_list_schema({"new": TEXT, "known": TEXT})}),
        parse,
    )
    known_by_key = {fold_text(dimension["name"]): dimension for dimension in known_dimensions}
    return {key: known_by_key[match] for key, match in known_keys.items() if match in known_by_key}


async def _request_criteria(
    authors: Authors,
    name: str,
    problem: Problem,
    preferences: Mapping[str, PreferenceRow],
) -> dict[str, CriterionRow]:
    """Request criteria for some preferences; the reply may miss some of them."""
    preference_list = "\n".join(
        f"- {preference}: {row['value']} (importance {row['local_importance']} of 5). "
        f"{row['justification']}"
        for preference, row in preferences.items()
    )
    count = len(preferences)
    fields = {
        "preference": TEXT,
        "description": TEXT,
        "weight": {"type": "number", "minimum": 0},
        **{f"level_{score}": TEXT for score in ANCHORS},
    }
    schema = make_list_schema(fields, at_least=count, at_most=count)
    return await authors.request(
        name,
        _RUBRIC,
        f"Problem:\n{problem.text}\n\nPreferences:\n{preference_list}",
        make_object_schema({"criteria": schema}),
        lambda reply: _parse_criteria(reply["criteria"], preferences),
    )


def _parse_dimensions(rows: Any, fields: Iterable[str], allowed: range) -> list[Dimension]:
    """Parse dimensions with different names, whose number must be allowed."""
    dimensions: dict[str, Dimension] = {}
    for row in rows:
        key = fold_text(str(row["name"]))
        dimensions[key] = {field: str(row[field]).strip() for field in fields}

    if len(dimensions) not in allowed or len(dimensions) < len(rows):
        count = str(allowed[0]) if len(allowed) == 1 else f"{allowed[0]} to {allowed[-1]}"
        raise UnfitReplyError(
            f"{count} dimensions with different names are needed, not {len(dimensions)}"
        )
    return list(dimensions.values())


def _check_types(dimensions: Sequence[Dimension]) -> None:
    """Check the types of a problem's dimensions.

    Raises:
        UnfitReplyError: a type is unknown, or too few or too many are of expertise.
    """
    if any(dimension["type"] not in TYPES for dimension in dimensions):
        raise UnfitReplyError("type is expertise or personal")
    count = sum(dimension["type"] == "expertise" for dimension in dimensions)
    if not EXPERTISE[0] <= count <= EXPERTISE[1]:
        raise UnfitReplyError(f"two or three dimensions must be of the type expertise, not {count}")


def _parse_preferences(reply: Any, dimensions: Mapping[str, Dimension]) -> dict[str, PreferenceRow]:
    """Parse preferences for exactly these dimensions."""
    rows = {str(row["name"]): row for row in reply}
    missing = [name for name in dimensions if name not in rows]
    if missing:
        raise UnfitReplyError(f"missing: {', '.join(missing)}")
    surplus = [name for name in rows if name not in dimensions]
    if surplus:
        raise UnfitReplyError(f"not asked for: {', '.join(surplus)}")
    if any(int(row["local_importance"]) not in range(1, 6) for row in rows.values()):
        raise UnfitReplyError("local_importance is a whole number from 1 to 5")

    return {
        name: {
            "value": str(rows[name]["value"]),
            "local_importance": int(rows[name]["local_importance"]),
            "justification": str(rows[name]["justification"]),
            "type": dimension.get("type", "personal"),
        }
        for name, dimension in dimensions.items()
    }


def _parse_criteria(
    reply: Any, preferences: Mapping[str, PreferenceRow]
) -> dict[str, CriterionRow]:
    """Parse criteria by preference, dropping those of no requested preference."""
    rows = {str(row.get("preference")): row for row in reply}
    return {
        preference: {
            "preference": preference,
            "description": str(row["description"]),
            "weight": max(float(row["weight"]), 0.0),
            "levels": [
                {"score": int(score), "description": str(row[f"level_{score}"])}
                for score in ANCHORS
            ],
        }
        for preference, row in rows.items()
        if preference in preferences
    }


def _list_dimensions(dimensions: Iterable[Dimension]) -> str:
    return "\n".join(
        f"- {dimension['name']}: {dimension['description']}" for dimension in dimensions
    )
