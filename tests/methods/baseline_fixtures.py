"""Fixtures for the baselines' tests: DPL's toy users, and a scripted model of all stages."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpl_fixtures import Headlines, ScriptedTask, Stars, Tags, crowd, question, reviewed, text

from personabench import Record, Request, Sample, User
from personabench.api.method import Method

__all__ = [
    "Headlines",
    "ScriptedTask",
    "Stars",
    "Tags",
    "ask_once",
    "crowd",
    "labelled",
    "offline",
    "prepared",
    "question",
    "reply",
    "reviewed",
    "shown",
    "stage",
    "stages",
    "tales",
    "text",
    "without_items",
]

_STAGES = (
    ("summary", r"You study one \w+\. "),
    ("merge", r"You study one \w+ over time\..*summaries of successive periods"),
    ("update", r"You study one \w+ over time\..*summary so far"),
    ("block", r"You study one \w+ over time\."),
    ("contrast", r"You compare what one"),
    ("distil", r"You keep a database.*Fill a JSON"),
    ("induce", r"You keep a database"),
    ("analysis", r"You find out what sets one"),
    ("open", r"You find out what is particular.*Begin with these dimensions"),
    ("check", r"You check what is said"),
    ("profile", r"You write the profile"),
)
_REPLIES = {
    "summary": "A summary.",
    "contrast": "Shorter than others.",
    "distil": json.dumps(
        {
            "topics": ["ports"],
            "traits": ["dry"],
            "patterns": ["Ends early."],
            "stances": [{"about": "x", "stance": "y"}],
        }
    ),
    "induce": json.dumps({"views": ["Less is more."]}),
    "analysis": "Writing style: terse.\nContent focus: places.",
    "open": json.dumps(
        {
            "dimensions": [
                {"name": "Length", "definition": "how long", "difference": "shorter"},
                {"name": "Wit", "definition": "how funny", "difference": "drier"},
            ]
        }
    ),
    "check": json.dumps(
        {
            "dimensions": [
                {
                    "name": "wit",
                    "definition": "how funny",
                    "difference": "drier",
                }
            ]
        }
    ),
    "profile": "Summary: Terse.",
    "answer": "Analysis: short ones.\nAnswer: A headline",
}


def stage(request: Request) -> str:
    opening = request.messages[0].content
    return next((name for name, mark in _STAGES if re.match(mark, opening, re.DOTALL)), "answer")


def reply(request: Request) -> str:
    """A fixed reply per stage; summaries of blocks list the records they were made from."""
    name = stage(request)
    if name in ("block", "update", "merge"):
        return f"{name} of {' '.join(re.findall(r'item[0-9]+', request.messages[1].content))}"
    return _REPLIES[name]


def stages(requests: Sequence[Request]) -> dict[str, int]:
    return dict(Counter(map(stage, requests)))


def offline(requests: Sequence[Request]) -> list[Request]:
    return [request for request in requests if stage(request) != "answer"]


def tales(count: int, person: str = "ann") -> User:
    return User(
        person, tuple(reviewed(person, item, f"{person} wrote {item}") for item in range(count))
    )


def shown(request: Request) -> list[str]:
    """Ids of the records in the task's own request."""
    return re.findall(r"<(ann-\d+)>", request.messages[1].content)


async def prepared(setup: ScriptedTask, method: Method) -> Method:
    await method.prepare(setup.population, setup.context())
    return method


async def ask_once(
    folder: Path,
    users: Sequence[User],
    method: Method,
    sample: Sample | None = None,
    **setup: Any,
) -> Any:
    """Run a method on one question with a fresh model: output, context, requests."""
    context = ScriptedTask(
        folder,
        users,
        answer=setup.pop("answer", reply),
        **setup,
    )
    await prepared(context, method)
    return await context.ask(method, sample or question(users))


def labelled(person: str, labels: str) -> User:
    """A user who met the same tales as all users and gave each a one-letter label."""
    return User(person, tuple(reviewed(person, item, label) for item, label in enumerate(labels)))


def without_items(users: Sequence[User]) -> list[User]:
    return [
        User(
            user.id,
            tuple(
                Record(
                    r.id,
                    r.stimulus,
                    r.response,
                    time=r.time,
                )
                for r in user.history
            ),
        )
        for user in users
    ]
