"""Run every cell of the compatibility matrix with the embedded model.

One user, and the smallest parameters that still go through every step.
"""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from personabench.api import registry
from personabench.api.compatibility import matrix
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.types import Sampling

METHODS, TASKS = (
    [
        entry
        for entry in registry.list_entries(kind).values()
        if entry.origin == "built-in" and not entry.facts.get("external")
    ]
    for kind in ("method", "task")
)
CELLS = matrix(METHODS, TASKS)
SMALLEST = (
    *(
        f"{name}.k=2"
        for name in (
            "cicl",
            "cipher",
            "icl_edit",
            "cot_edit",
            "rag",
            "random",
            "recency",
            "summary",
        )
    ),
    *(f"{name}.k=2" for name in ("summary_retrieved", "compsum", "trsr", "rpm")),
    *(f"{name}.n_docs=2" for name in ("dpl", "drp")),
    *(f"{name}.pairs=2" for name in ("continual", "e_then_e")),
    *("cicl.analysis_max_tokens=48", "cot_edit.reasoning_max_tokens=32", "compsum.n_pairs=2"),
    *(
        "compsum.analysis_max_tokens=64",
        "summary.summary_max_tokens=48",
        "summary_retrieved.summary_max_tokens=48",
    ),
    *(
        "summary.summary_budget_tokens=600",
        "trsr.summary_max_tokens=48",
        "trsr.max_blocks=1",
        "trsr.recent=1",
    ),
    *(f"{name}.preference_max_tokens=24" for name in ("cipher", "continual", "e_then_e")),
    *("dpl.difference_max_tokens=48", "dpl.profile_max_tokens=48", "dpl.k_peers=2"),
    *("drp.difference_max_tokens=96", "drp.profile_max_tokens=48", "drp.k_peers=2"),
    *(
        "persona_db.population_max_users=2",
        "persona_db.distil_max_tokens=96",
        "persona_db.induce_max_tokens=64",
    ),
    *("persona_db.item_topk=2", "persona_db.item_topk_collab=1", "persona_db.history_cap=3"),
    *(
        "rpm.history_cap=2",
        "rpm.max_features=2",
        "rpm.extract_max_tokens=96",
        "rpm.cluster_max_tokens=96",
    ),
    *("rag_select.validate=1", "rag_select.options=bm25:1,none"),
    *("mara.k=2", "mara.plan_max_tokens=64"),
    *("prose.records=2", "prose.steps=1", "prose.max_tokens=48"),
    *("rpm.reason_max_tokens=48", "rpm.infer_max_tokens=96"),
    *("hyperalign.history_cap=4", "hyperalign.infer_max_tokens=48", "hyperalign.select=validate"),
    *("hyperalign.n_validation=1", "hyperalign.validate_max_tokens=32"),
    *("fermi.rounds=1", "fermi.n_prompts=1", "fermi.n_pairs=2", "fermi.prompt_max_tokens=32"),
    *("eragent.k=2", "eragent.profile_max_tokens=64", "eragent.rewrite_max_tokens=64"),
    "eragent.history_budget_tokens=600",
    *("raise.plans=1", "raise.planner=tree", "raise.rollouts=2", "raise.judge_tokens=64"),
)
BRIEF = {
    **{"rounds": 5, "trajectories": 1, "user_max_tokens": 64},
    **{
        "max_turns": 1,
        "simulator_max_tokens": 256,
        "judge_max_tokens": 96,
        "max_criteria": 1,
    },
}


def settings(method: str, task: type[Any]) -> list[str]:
    """The settings of the method, and those of the task's options that shorten it."""
    options = {field.name for field in dataclasses.fields(task.Params)} & BRIEF.keys()
    brief = [f"task.{name}={BRIEF[name]}" for name in sorted(options)]
    return [*brief, *(setting for setting in SMALLEST if setting.partition(".")[0] == method)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One results folder, so that work shared by methods is done once."""
    return tmp_path_factory.mktemp("results")


def cell_parameters(method: str, task: str) -> Any:
    """One task of each kind of response is slow; the whole matrix takes hours."""
    mark = pytest.mark.slow if task in ("lamp2m", "lamp3", "lamp4") else pytest.mark.matrix
    return pytest.param(
        method,
        task,
        marks=mark,
        id=f"{task}-{method}",
    )


@pytest.mark.model
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("method", "task"),
    [
        cell_parameters(cell.method, cell.task)
        for cell in sorted(CELLS, key=lambda cell: cell.task)
        if cell.fit != "refused"
    ],
)
def test_every_cell_that_is_not_refused_runs_with_the_embedded_model(
    folder: Path, method: str, task: str
) -> None:
    cls = registry.load_class("task", task)
    options = runner.Options(
        [method],
        [task],
        limit=1,
        results=folder,
        assignments=settings(method, cls),
    )
    options = dataclasses.replace(options, sampling=Sampling(max_tokens=min(cls.max_tokens, 96)))
    (outcome,) = asyncio.run(runner.run(options))
    assert outcome.summary.status == "complete", outcome.summary
    assert outcome.summary.owed == 0, outcome.summary
    predictions = list(RunFolder(outcome.folder).iter_predictions())
    assert predictions
    assert all(line.error is None and line.output for line in predictions)
