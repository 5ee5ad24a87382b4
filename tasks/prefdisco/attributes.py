"""What a person may want of an answer to a problem, what this person wants, and how an answer is graded for it.

Dimensions are named once per problem, matched with those of earlier problems, then given a value and an importance per
person, and a criterion each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from personabench.errors import DataError
from personabench.tasks.prefdisco.asking import GRADE, TEXT, TRIES, Authors, Unfit, objects, single
from personabench.tasks.prefdisco.files import ANCHORS, folded
from personabench.tasks.prefdisco.sources import Problem

PER_PROBLEM = 20
EXPERTISE = (2, 3)
CHUNK = 200
TYPES = ("expertise", "personal")
Dimension = dict[str, str]

_KINDS = (
    "Dimensions say how an answer can differ for different people: level, form, order, tone, examples, what to treat "
    "or leave out, and how familiar somebody is with what the problem takes. A name is two to four words and says what "
    "is controlled."
)
_PERSONAL = (
    "You know one person well and say what this person wants of an answer to one problem, dimension by dimension: the "
    "value, how much it matters for this problem (1 hardly, 5 very much; use the whole range), and why, from who they "
    "are. Values agree with what they wanted earlier unless the problem gives reason to differ."
)
_RUBRIC = (
    "You write criteria by which an answer to a problem is graded for one person. Each belongs to one preference: what "
    "is looked at, a weight (all weights of the person sum to about 1), and what an answer is like that deserves score "
    "1, 3 and 5. Levels describe the answer so that two graders agree."
)


async def general(authors: Authors, dataset: str, problems: Sequence[Problem]) -> list[Dimension]:
    """Four or five dimensions that matter for every problem of a set."""
    shown = "\n\n".join(problem.text for problem in problems[:3])
    fields = dict.fromkeys(("name", "description", "value_range", "importance"), TEXT)
    return await authors.ask(
        f"general dimensions of {dataset}",
        f"You name the four or five dimensions that matter for answers to all problems of a set. {_KINDS}",
        f"Set: {dataset}. Some of its problems:\n\n{shown}",
        single({"dimensions": objects(fields, at_least=4, at_most=5)}),
        lambda found: _dimensions(found["dimensions"], tuple(fields), range(4, 6)),
    )


async def of_problem(authors: Authors, number: int, problem: Problem) -> list[Dimension]:
    """Exactly 20 dimensions of one problem, two or three of them of expertise."""
    fields: dict[str, Any] = dict.fromkeys(("name", "description", "value_range"), TEXT)
    fields["type"] = {"type": "string", "enum": list(TYPES)}

    def read(found: dict[str, Any]) -> list[Dimension]:
        listed = _dimensions(
            found["dimensions"], tuple(fields), range(PER_PROBLEM, PER_PROBLEM + 1)
        )
        if any(each["type"] not in TYPES for each in listed):
            raise Unfit("type is expertise or personal")
        skilled = sum(each["type"] == "expertise" for each in listed)
        if not EXPERTISE[0] <= skilled <= EXPERTISE[1]:
            raise Unfit(f"two or three dimensions must be of the type expertise, not {skilled}")
        return listed

    return await authors.ask(
        f"dimensions of problem {number}",
        f"You name exactly {PER_PROBLEM} dimensions for answers to one problem: two or three of the type expertise, "
        f"how familiar somebody is with what this problem takes, the others of the type personal. {_KINDS}",
        problem.text,
        single({"dimensions": objects(fields, at_least=PER_PROBLEM, at_most=PER_PROBLEM)}),
        read,
    )


async def matched(
    authors: Authors, number: int, new: Sequence[Dimension], known: Sequence[Dimension]
) -> dict[str, Dimension]:
    """The dimensions of a problem by name, with the names of known ones where they mean the same.

    Two new dimensions never become one, so that no problem has fewer than it was given.
    """
    by_name = {folded(each["name"]): each for each in known}
    same: dict[str, Dimension] = {
        each["name"]: by_name[folded(each["name"])]
        for each in new
        if folded(each["name"]) in by_name
    }
    for start in range(0, len(known), CHUNK):
        chunk = known[start : start + CHUNK]
        listed = "\n".join(f"- {each['name']}: {each['description']}" for each in chunk)
        asked = [each for each in new if each["name"] not in same]
        if not asked:
            break
        found = await authors.ask(
            f"matching problem {number}, from {start}",
            "You see known dimensions and new ones. For every new one give the name of the known dimension that means "
            "the same, or an empty text where there is none. Related is not the same.",
            f"Known:\n{listed}\n\nNew:\n"
            + "\n".join(f"- {each['name']}: {each['description']}" for each in asked),
            single({"matches": objects({"new": TEXT, "known": TEXT})}),
            lambda reply: {
                folded(str(row["new"])): folded(str(row["known"] or "")) for row in reply["matches"]
            },
        )
        names = {folded(each["name"]): each for each in chunk}
        for each in asked:
            target = names.get(found.get(folded(each["name"]), ""))
            if target and all(target["name"] != other["name"] for other in same.values()):
                same[each["name"]] = target
    chosen: dict[str, Dimension] = {}
    for each in new:
        target = same.get(each["name"], each)
        chosen[target["name"]] = {**target, "type": each.get("type", "personal")}
    return chosen


async def instantiated(
    authors: Authors,
    name: str,
    described: str,
    problem: Problem,
    dimensions: Mapping[str, Dimension],
    earlier: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """What a person wants in each dimension: value, local_importance, justification, type, for exactly these names."""
    listed = "\n".join(
        f"- {each}: {told['description']} ({told['value_range']})"
        for each, told in dimensions.items()
    )
    before = "\n".join(f"- {each}: {value}" for each, value in earlier.items())
    fields = {"name": TEXT, "value": TEXT, "local_importance": GRADE, "justification": TEXT}

    def read(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
        rows = {str(row["name"]): row for row in found["preferences"]}
        if missing := [each for each in dimensions if each not in rows]:
            raise Unfit(f"missing: {', '.join(missing)}")
        if surplus := [each for each in rows if each not in dimensions]:
            raise Unfit(f"not asked for: {', '.join(surplus)}")
        if any(int(row["local_importance"]) not in range(1, 6) for row in rows.values()):
            raise Unfit("local_importance is a whole number from 1 to 5")
        return {
            each: {
                "value": str(rows[each]["value"]),
                "local_importance": int(rows[each]["local_importance"]),
                "justification": str(rows[each]["justification"]),
                "type": told.get("type", "personal"),
            }
            for each, told in dimensions.items()
        }

    parts = [f"Person:\n{described}", f"Wanted earlier:\n{before}" if before else ""]
    return await authors.ask(
        f"preferences of {name}",
        _PERSONAL,
        "\n\n".join([*filter(None, parts), f"Problem:\n{problem.text}", f"Dimensions:\n{listed}"]),
        single({"preferences": objects(fields, at_least=len(dimensions), at_most=len(dimensions))}),
        read,
    )


async def rubric(
    authors: Authors, name: str, problem: Problem, preferences: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A criterion for every preference, one call for each type; surplus ones are dropped, missing ones asked for again.

    Raises:
        DataError: some are missing after three tries.
    """
    found: dict[str, dict[str, Any]] = {}
    for kind in TYPES:
        wanted = {each: told for each, told in preferences.items() if told["type"] == kind}
        for attempt in range(TRIES):
            missing = {each: told for each, told in wanted.items() if each not in found}
            if not missing:
                break
            found |= await _criteria(
                authors, f"rubric of {name}, {kind}, {attempt}", problem, missing
            )
    if missing := [each for each in preferences if each not in found]:  # type: ignore[assignment]
        raise DataError(f"rubric of {name}: no criterion for {', '.join(missing)} in {TRIES} tries")
    return [found[each] for each in preferences]


async def _criteria(
    authors: Authors, name: str, problem: Problem, wanted: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    listed = "\n".join(
        f"- {each}: {told['value']} (importance {told['local_importance']} of 5). {told['justification']}"
        for each, told in wanted.items()
    )
    level = {f"level_{score}": TEXT for score in ANCHORS}
    fields = {
        "preference": TEXT,
        "description": TEXT,
        "weight": {"type": "number", "minimum": 0},
        **level,
    }

    def read(reply: dict[str, Any]) -> dict[str, dict[str, Any]]:
        rows = {str(row.get("preference")): row for row in reply["criteria"]}
        return {
            each: {
                "preference": each,
                "description": str(row["description"]),
                "weight": max(float(row["weight"]), 0.0),
                "levels": [
                    {"score": int(score), "description": str(row[f"level_{score}"])}
                    for score in ANCHORS
                ],
            }
            for each, row in rows.items()
            if each in wanted
        }

    return await authors.ask(
        name,
        _RUBRIC,
        f"Problem:\n{problem.text}\n\nPreferences:\n{listed}",
        single({"criteria": objects(fields, at_least=len(wanted), at_most=len(wanted))}),
        read,
    )


def _dimensions(rows: Any, fields: tuple[str, ...], allowed: range) -> list[Dimension]:
    listed = {
        folded(str(row["name"])): {field: str(row[field]).strip() for field in fields}
        for row in rows
    }
    if len(listed) not in allowed or len(listed) < len(rows):
        wanted = str(allowed[0]) if len(allowed) == 1 else f"{allowed[0]} to {allowed[-1]}"
        raise Unfit(f"{wanted} dimensions with different names are needed, not {len(listed)}")
    return list(listed.values())
