"""Headlines of users with a habit, and what trains on them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from personabench.run.options import Options
from personabench.run.resolve import ResolvedRun, resolve
from personabench.run.session import identified_models
from personabench.run.training import Report, Trainings

WORDS = ("harbour", "lantern", "gravel", "orchard", "velvet", "kettle", "meadow", "ribbon")
ENDINGS = {"u1": "!!!", "u2": "???", "u3": "..."}
"""How each tested user ends all headlines."""


def write_headlines(
    folder: Path, users: Sequence[str] = tuple(ENDINGS), records: int = 12, corpus: int = 3
) -> Path:
    """A LaMP-4 split `dev` of these users, one question each, and a split `train` of others."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_split(folder, "dev", users, records)
    _write_split(folder, "train", [f"t{number}" for number in range(corpus)], 4)
    return folder


def _write_split(folder: Path, split: str, users: Sequence[str], records: int) -> None:
    questions, golds = [], []
    for user in users:
        rng = random.Random(user)
        profile = [make_entry(user, number, rng) for number in range(records)]
        gold = make_entry(user, 999, rng)
        article = f"{gold['text']} question-of-{user}"
        wording = f"Generate a headline for the following article: {article}"
        questions.append({"id": f"q-{user}", "user_id": user, "input": wording, "profile": profile})
        golds.append({"id": f"q-{user}", "output": f"gold-of-{user} {gold['title']}"})
    (folder / f"{split}_questions.json").write_text(json.dumps(questions), encoding="utf-8")
    (folder / f"{split}_outputs.json").write_text(
        json.dumps({"task": "LaMP_4", "golds": golds}), encoding="utf-8"
    )


def make_entry(user: str, number: int, rng: random.Random) -> dict[str, str]:
    """One article of a user and its headline, which ends in the user's own way."""
    words = rng.sample(WORDS, 4)
    ending = ENDINGS.get(user, "")
    return {
        "id": f"{user}-{number:03d}",
        "title": f"{' '.join(words[:2])}{ending}",
        "text": f"{' '.join(words)} mark-{user}-{number:03d}",
    }


def make_options(
    model: Path, data: Path, results: Path, settings: Sequence[str] = (), **changes: Any
) -> Options:
    """Options of a training and of a run alike."""
    from personabench.models.backends.base import BackendOptions

    chosen: dict[str, Any] = {
        "methods": ["oppu"],
        "tasks": ["lamp4"],
        "data": data,
        "results": results,
        "backend": "transformers",
        "backend_options": BackendOptions(model=str(model)),
        "assignments": settings,
        **changes,
    }
    return Options(**chosen)


async def resolve_runs(options: Options) -> list[ResolvedRun]:
    """The runs behind options, with the model identified."""
    async with identified_models(options) as (model, roles):
        return resolve(options, model, roles)


async def train(options: Options, order: int = 1, **further: Any) -> list[Report]:
    """Train what the runs of the options need; `order` -1 takes the users the other way round."""
    reports: list[Report] = []
    for run in await resolve_runs(options):
        assert run.training is not None
        trainings = Trainings(run.training, str(options.backend_options.model), "cpu", **further)
        reports += await trainings.execute(run.positions[::order])
    return reports


def file_hashes(reports: Sequence[Report]) -> dict[str, dict[str, str]]:
    """The hashes of the files of each user's artifact."""
    return {report.artifact.card.owner: dict(report.artifact.card.files) for report in reports}
