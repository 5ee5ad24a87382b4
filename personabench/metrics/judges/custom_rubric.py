"""Rubrics from files: criteria that a judge applies to each answer, under one of four protocols.

`scale` scores every criterion on a scale; `boolean` selects the yes/no questions that matter for a
request and a user, then answers them (`rubrics`); `bespoke` grades from 1 to 5 and checks the
reference's claims (`bespoke`); `aspects` compares aspects of the answer with those of the user's
own text (`aspects`).  Three rubrics come with the package, by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from personabench.errors import DataError
from personabench.hashing import digest
from personabench.metrics.judges import aspects, bespoke, rubrics
from personabench.metrics.judges.ask import Judge, JudgeReply, query_judge
from personabench.metrics.judges.fence import RULE, Fence
from personabench.metrics.judges.verdict_reader import read_verdicts

Part = Literal["request", "history", "reference"]
Protocol = Literal["scale", "boolean", "bespoke", "aspects"]
BUNDLED = Path(__file__).parent / "bundled"
PARTS: Mapping[Part, str] = {
    "request": "Request",
    "history": "Earlier records of this user",
    "reference": "Reference answer",
}
_COUNTS = ("relevant", "na", "unanswered")
RESERVED: Mapping[Protocol, Sequence[str]] = {
    "bespoke": ("recall", "average"),
    "aspects": ("precision", "recall"),
}
FIXED_WORDING: Mapping[Protocol, str] = {
    "boolean": rubrics.PROMPT,
    "bespoke": bespoke.PROMPT,
    "aspects": aspects.PROMPT,
}
"""Hashes of the words of a protocol beside those of the rubric."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_SCORE = re.compile(
    r"[_#> -]{0,4}([A-Za-z][A-Za-z0-9_-]{0,39}?)_?\s{0,3}:_?\s{0,3}"
    r"(\d{1,3})(?:\s?/\s?(\d{1,3}))?[. _]{0,3}"
)
# Room for the reasons and a line per criterion.
_REASON_TOKENS = 384
_CRITERION_TOKENS = 32


class Criterion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A criterion: the question that the judge answers, and its weight in the total.

    `category` groups questions of the protocol boolean, whose share of yes is reported.
    """

    question: str
    weight: float = 1.0
    category: str = ""


class Rubric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rubric file (YAML or JSON).

    Attributes:
        criteria: by name.
        name: the metric of the total: the weighted mean of the criteria, the share of yes, the
            average, or F.
        protocol: how the criteria are applied.
        scale: the lowest and the highest score, whole numbers.
        anchors: meanings of scores.
        shows: the texts that the judge sees beside the answer.
        records: the number of the user's newest records that it sees.
        primary: whether the total ranks the rows in place of the task's own primary metric.
        instructions: further text for the judge.
    """

    criteria: dict[str, Criterion | str]
    name: str = "rubric"
    protocol: Protocol = "scale"
    scale: tuple[int, int] = (1, 5)
    anchors: dict[int, str] = {}
    shows: tuple[Part, ...] = ("request", "reference")
    records: int = 10
    primary: bool = False
    instructions: str = ""

    @property
    def questions(self) -> dict[str, Criterion]:
        """The criteria; a plain question has weight 1."""
        return {
            name: Criterion(criterion) if isinstance(criterion, str) else criterion
            for name, criterion in self.criteria.items()
        }

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics: the total, and each criterion if there are several."""
        if self.protocol != "scale":
            return (self.name, *(f"{self.name}.{part}" for part in self._parts))
        if len(self.criteria) == 1:
            return (self.name,)
        return (self.name, *(f"{self.name}.{criterion}" for criterion in self.criteria))

    @property
    def _parts(self) -> list[str]:
        """The metrics beside the total, under a protocol other than scale."""
        if self.protocol == "bespoke":
            return [*self.criteria, "recall"]
        if self.protocol == "aspects":
            return ["precision", "recall", *self.criteria]
        categories = dict.fromkeys(criterion.category for criterion in self.questions.values())
        return [*filter(None, categories), "relevant", "na", "unanswered"]

    @property
    def identity(self) -> str:
        """The hash of everything that the judge reads, the fixed wording included."""
        content = msgspec.structs.replace(self, primary=False)
        fixed = FIXED_WORDING.get(self.protocol)
        return digest([content.to_json_object(), write_system(self), *([fixed] if fixed else [])])

    def to_json_object(self) -> dict[str, Any]:
        """The rubric as values of JSON, whose keys are all text."""
        fields: dict[str, Any] = msgspec.to_builtins(self, str_keys=True)
        # Rubrics from before there were protocols and categories keep their identity.
        if self.protocol == "scale":
            del fields["protocol"]
        for criterion in fields["criteria"].values():
            if isinstance(criterion, dict) and not criterion["category"]:
                del criterion["category"]
        return fields

    def total(self, scores: Mapping[str, float]) -> float:
        """The weighted mean of a score for each criterion."""
        weights = {name: criterion.weight for name, criterion in self.questions.items()}
        weighted = sum(weights[name] * scores[name] for name in weights)
        return weighted / sum(weights.values())

    def values(self, scores: Mapping[str, float]) -> dict[str, float]:
        """The metrics of a score for each criterion."""
        total = {self.name: self.total(scores)}
        if len(self.criteria) == 1:
            return total
        return total | {f"{self.name}.{name}": float(scores[name]) for name in self.criteria}


def read_rubric(path: Path) -> Rubric:
    """Read a rubric file, or the one of that name that comes with the package.

    Raises:
        DataError: it cannot be read, or a field is wrong; the message names it.
    """
    import yaml

    bundled = BUNDLED / f"{path}.yaml"
    if not path.exists() and path.name == str(path) and bundled.is_file():
        path = bundled
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        rubric = msgspec.convert(content, Rubric, strict=False)
    except OSError as error:
        names = ", ".join(sorted(path.stem for path in BUNDLED.glob("*.yaml")))
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}; name a file, or one of: {names}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no YAML: {error}") from error
    except msgspec.ValidationError as error:
        raise DataError(
            f"{path}: {error}; expected criteria (a question for each name), and optionally name, "
            "protocol, scale, anchors, shows, records, primary and instructions"
        ) from error
    problem = _find_problem(rubric)
    if problem:
        raise DataError(f"{path}: {problem}")
    return rubric


def _find_problem(rubric: Rubric) -> str:
    low, high = rubric.scale
    if not rubric.criteria:
        return "criteria is empty; write at least one, such as helpful: Does the answer help?"
    for name in (rubric.name, *rubric.criteria):
        if not _NAME.fullmatch(name):
            return f"'{name}' is no name: write letters, digits, - and _, such as helpful"
    folded = [name.lower() for name in rubric.criteria]
    if len(set(folded)) < len(folded):
        return "two criteria have one name"
    if not 0 <= low < high <= 100:
        return f"scale is [{low}, {high}]; expected two whole numbers from 0 to 100, such as [1, 5]"
    if any(not low <= score <= high for score in rubric.anchors):
        return f"anchors has a score outside of the scale from {low} to {high}"
    if any(criterion.weight <= 0 for criterion in rubric.questions.values()):
        return "every weight must be above 0"
    if rubric.protocol == "bespoke" and rubric.scale != (1, 5):
        return f"scale is [{low}, {high}]; the protocol bespoke has grades from 1 to 5"
    reserved = [name for name in rubric.criteria if name in RESERVED.get(rubric.protocol, ())]
    if reserved:
        return (
            f"'{reserved[0]}' is a metric of the protocol {rubric.protocol}; rename the criterion"
        )
    categories = {criterion.category for criterion in rubric.questions.values()} - {""}
    if rubric.protocol == "boolean":
        invalid = [name for name in categories if not _NAME.fullmatch(name) or name in _COUNTS]
        if invalid:
            return f"'{invalid[0]}' is no name of a category, such as style"
    elif categories:
        return "categories belong to the protocol boolean"
    if rubric.records < 1:
        return "records must be at least 1; leave history out of shows instead"
    return ""


async def rate_by_rubric(
    judge: Judge,
    rubric: Rubric,
    *,
    request: str,
    answer: str,
    references: Sequence[str] = (),
    records: Sequence[str] = (),
) -> JudgeReply[dict[str, float]]:
    """Have a judge score an answer by each criterion of a rubric.

    Args:
        records: the user's records as text, oldest first.

    Raises:
        BackendError: a call failed for good.
    """
    user = write_question(rubric, request, answer, references, records)
    return await query_judge(
        judge,
        write_system(rubric),
        user,
        lambda reply: read_scores(reply, rubric),
        max_tokens=count_tokens(rubric),
    )


def count_tokens(rubric: Rubric) -> int:
    """The most tokens of a judge's reply on all criteria."""
    return _REASON_TOKENS + _CRITERION_TOKENS * len(rubric.criteria)


def write_question(
    rubric: Rubric,
    request: str,
    answer: str,
    references: Sequence[str],
    records: Sequence[str],
) -> str:
    """Write the texts that the judge sees, each between its marks, the answer last."""
    shown: dict[Part, str] = {
        "request": request,
        "history": "\n\n".join(records[-rubric.records :]) or "(none)",
        "reference": "\n\n".join(references) or "(none)",
    }
    fence = Fence(*shown.values(), answer)
    parts = [f"{PARTS[part]}:\n{fence.wrap(shown[part])}" for part in rubric.shows]
    parts.append(f"Answer to score:\n{fence.wrap(answer or '(empty)')}")
    return "\n\n".join(parts)


def write_system(rubric: Rubric) -> str:
    """Write the judge's instructions under the protocols scale and bespoke."""
    low, high = rubric.scale
    lines = [f"You score one answer by the following criteria. {RULE}", ""]
    lines += [f"{name}: {item.question}" for name, item in rubric.questions.items()]
    lines += ["", f"Each score is a whole number from {low} (worst) to {high} (best)."]
    lines += [f"{score}: {meaning}" for score, meaning in sorted(rubric.anchors.items())]
    if rubric.instructions:
        lines += ["", rubric.instructions.strip()]
    lines += [
        "",
        "First give your reasons in two or three sentences. Then end with one line for each "
        "criterion, in this order:",
        *(f"{name}: NUMBER" for name in rubric.criteria),
    ]
    return "\n".join(lines)


def read_scores(reply: str, rubric: Rubric) -> dict[str, float] | None:
    """Parse the scores of a reply, each alone on its line after its criterion.

    None if a criterion is missing, has several different scores, or one that is not on the scale.
    """
    low, high = rubric.scale
    names = {name.lower(): name for name in rubric.criteria}

    def read_line(line: str) -> tuple[str, float] | None:
        match = _SCORE.fullmatch(line)
        name = names.get(match[1].lower()) if match else None
        if match is None or name is None or match[3] not in (None, str(high)):
            return None
        return name, float(match[2])

    scores = read_verdicts(reply, read_line)
    if scores.keys() != rubric.criteria.keys():
        return None
    if not all(low <= score <= high for score in scores.values()):
        return None
    return {name: scores[name] for name in rubric.criteria}
