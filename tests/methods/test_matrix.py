"""The compatibility matrix: facts of methods, cells that run, and work that is done once.

Methods are as their sources declare, every cell that is not refused runs, and no work that belongs
to a user, a record or a text is done twice.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from personabench import rejected_responses
from personabench.api import registry
from personabench.api.compatibility import Cell, capabilities, matrix, verdict
from personabench.api.method import Method
from personabench.api.task import Task
from personabench.api.wording import WordingView
from personabench.errors import UsageError
from personabench.models.backends.scripted import Scripted, echo, fill_schema
from personabench.results.run_folder import RunFolder
from personabench.retrieval.local_embedders import WordLlama
from personabench.run import runner
from personabench.types import Prediction, Record, Request

METHODS = {
    name: entry
    for name, entry in registry.list_entries("method").items()
    if entry.origin == "built-in"
}
TASKS = {
    name: entry
    for name, entry in registry.list_entries("task").items()
    if entry.origin == "built-in"
}
CELLS = matrix(METHODS.values(), TASKS.values())
# They need a server or a package of the user's, and have tests of their own.
EXTERNAL = {name for name, entry in METHODS.items() if entry.facts.get("external")}
PAGES = Path(__file__).parents[2] / "docs" / "methods"
DECLARED = ("paper", "version", "needs", "designed_for", "privileged", "rule")


def on(task: str, *fits: str) -> list[Cell]:
    """The cells of a task whose fit is one of these."""
    cells = [cell for cell in CELLS if cell.task == task and cell.fit in fits]
    return [cell for cell in cells if cell.method not in EXTERNAL]


def ran(
    folder: Path,
    methods: Sequence[str],
    task: str = "lamp4",
    answer: Callable[[Request], str] = echo,
    settings: Sequence[str] = (),
    **changes: Any,
) -> tuple[list[runner.Outcome], Scripted]:
    """Run methods one after the other on example data and one cache; with their model.

    Of the settings (`method.key=value`) those of these methods are used.
    """
    # Simulated users and judges follow every form, since an answer without a verdict has no score.
    model = Scripted(answer=answer)
    roles = {role: Scripted(answer=in_form) for role in registry.load_class("task", task)().roles}
    assignments = [setting for setting in settings if setting.partition(".")[0] in methods]
    chosen: dict[str, Any] = {
        "limit": 1,
        "backend": "scripted",
        "results": folder,
        "assignments": assignments,
        **changes,
    }
    return asyncio.run(
        runner.run(
            runner.Options(
                methods,
                [task],
                **chosen,
            ),
            backend=model,
            roles=roles,
        )
    ), model


def lines_of(outcome: runner.Outcome) -> list[Prediction]:
    """The predictions of a run, in the order of the file."""
    return list(RunFolder(outcome.folder).iter_predictions())


def in_form(request: Request) -> str:
    """A reply in the requested form, as of a model that follows instructions; prose without one."""
    return echo(request) if request.schema is None else fill_schema(request.schema)


# What is declared


@pytest.mark.parametrize("name", METHODS)
def test_facts_read_from_a_methods_source_equal_those_of_the_class(name: str) -> None:
    cls = registry.load_class("method", name)
    assert {fact: METHODS[name].facts.get(fact, getattr(Method, fact)) for fact in DECLARED} == {
        fact: getattr(cls, fact) for fact in DECLARED
    }


@pytest.mark.parametrize("name", TASKS)
def test_facts_read_from_a_tasks_source_equal_those_of_the_class(name: str) -> None:
    cls = registry.load_class("task", name)
    assert TASKS[name].facts["kind"] == cls.kind
    assert TASKS[name].facts["title"] == cls.title
    assert TASKS[name].facts.get("offers", Task.offers) == cls.offers


def test_the_tasks_of_a_paper_decide_the_label_only() -> None:
    declared = {"designed_for": ("news*", "mail"), "needs": ("history",)}
    assert verdict(declared, "news1", ("history",)) == ("faithful", "")
    assert verdict(declared, "films", ("history",)) == ("adapted", "")
    assert verdict(declared, "news1", ()).fit == "refused"
    assert verdict({}, "anything", ()) == ("faithful", "")


def test_no_method_names_a_task_outside_its_paper() -> None:
    # Reviews are also an everyday word.
    names = "|".join({*TASKS, "lamp-?\\d?", "longlamp"} - {"reviews"})
    pattern = re.compile(rf"\b({names})\b|[\"']reviews", re.IGNORECASE)
    (folder,) = sys.modules["personabench.methods"].__path__
    for path in Path(folder).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        # A citation and the note on the paper's benchmarks.
        text = re.sub(r"(?m)^ *(paper|designed_for) = .*$", "", text)
        assert [line for line in text.splitlines() if pattern.search(line)] == [], path


@pytest.mark.parametrize("name", TASKS)
def test_the_example_data_have_what_a_task_offers(name: str) -> None:
    task = registry.load_class("task", name)()
    offers = capabilities(type(task))
    data = task.open(task.default_split, None)
    samples = list(data.samples())
    view = WordingView(task)
    # A conversation may be a history that comes about turn by turn.
    if "dialogue" not in offers:
        assert ("history" in offers) == any(sample.history for sample in samples)
    if "choices" in offers:
        assert all(sample.choices for sample in samples)
    if "options" in offers:
        assert all(len(view.options(sample)) == len(sample.choices) for sample in samples)
        # Choices are texts themselves, or stand for texts.
        are_texts = all(" " in choice for sample in samples for choice in sample.choices)
        assert are_texts or all(view.options(sample) != sample.choices for sample in samples)
    assert ("persona" in offers) == any(view.persona(sample) for sample in samples)
    conversations = [view.exchanges(sample) is not None for sample in samples]
    assert ("conversations" in offers) == any(conversations)
    items = {record.item for sample in samples for record in sample.history} - {None}
    assert ("items" in offers) == bool(items)
    assert ("preference" in offers) == any("preference" in sample.hidden for sample in samples)
    assert ("picks" in offers) == any("type_length" in sample.hidden for sample in samples)
    assert ("majority" in offers) == any("population_majority" in s.hidden for s in samples)
    records = [record for sample in samples for record in sample.history]
    assert ("comparisons" in offers) == any(map(rejected_responses, records))
    responses = {record.response for record in records}
    if "labels" in offers and "precedents" in offers:
        assert responses <= set(task.labels)
    elif "labels" in offers:
        assert not responses & set(task.labels)


def test_a_method_is_refused_if_the_task_lacks_a_needed_capability() -> None:
    needy = {"needs": ("history|feedback",)}
    assert verdict(needy, "news", ("history",)).fit == "faithful"
    assert verdict(needy, "news", ("feedback",)).fit == "faithful"
    assert verdict(needy, "news", ("population",)) == (
        "refused",
        "its users have no history to learn from beforehand",
    )
    assert verdict({"needs": ("history", "population")}, "news", ("history",)).reason.startswith(
        "it has no histories"
    )
    assert verdict({}, "news", ()).fit == "faithful"


def test_every_method_has_a_page_and_a_line_in_the_overview() -> None:
    overview = (PAGES / "README.md").read_text(encoding="utf-8")
    for name in METHODS:
        (row,) = (line for line in overview.splitlines() if line.startswith(f"| `{name}` |"))
        page = row.rpartition("](")[2].partition(")")[0]
        assert name in (PAGES / page).read_text(encoding="utf-8").splitlines()[0], name
    named = {line.split("`")[1] for line in overview.splitlines() if line.startswith("| `")}
    assert named == METHODS.keys()


@pytest.mark.parametrize("page", sorted({path.stem for path in PAGES.glob("*.md")} - {"README"}))
def test_a_page_lists_costs_and_compares_with_the_paper(page: str) -> None:
    description, mark, comparison = (
        (PAGES / f"{page}.md").read_text(encoding="utf-8").partition("## Paper against ours\n")
    )
    assert mark
    assert all(
        word in description.lower()
        for word in ("paper", "faithful", "adapted", "parameter", "calls")
    )
    assert re.search(r"cache|kept|stored", description, re.IGNORECASE)
    head = next(line for line in comparison.splitlines() if line.startswith("|"))
    assert "paper" in head
    assert "ours" in head
    assert "| protocol |" in comparison or "Ours:" in comparison.partition("|")[0], (
        "the protocol of both sides"
    )


# How it is shown


def listed(folder: Path, *words: str, columns: int = 80) -> str:
    """The output of `personabench list matrix`; fails if it imports anything heavy."""
    heavy = ("openai", "datasets", "evaluate", "pandas", "torch", "numpy", "personabench.methods")
    script = (
        "import atexit, sys; from personabench.cli.app import main; "
        f"atexit.register(lambda: print([n for n in {heavy} if n in sys.modules], "
        "file=sys.stderr)); main()"
    )
    words = (
        sys.executable,
        "-c",
        script,
        "list",
        "matrix",
        *words,
    )
    environment = {"COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8"}
    ended = subprocess.run(
        words,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=True,
        timeout=60,
    )
    assert ended.stderr == "[]\n"
    return ended.stdout


def test_the_matrix_is_listed_with_reasons_and_without_an_import(tmp_path: Path) -> None:
    assert [Cell(**row) for row in json.loads(listed(tmp_path, "--json"))] == CELLS
    assert {cell.fit for cell in CELLS} == {"faithful", "adapted", "refused"}
    assert all(bool(cell.reason) == (cell.fit == "refused") for cell in CELLS)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_table_fits_the_terminal_and_shows_every_cell(tmp_path: Path, columns: int) -> None:
    # Wrapped rows would be unreadable in narrow terminals.
    text = listed(tmp_path, columns=columns)
    assert max(map(len, text.splitlines())) <= columns
    grid, _, legend = text.partition("● faithful")
    marks = {"faithful": "●", "adapted": "○", "refused": "–"}
    for fit, mark in marks.items():
        assert grid.count(mark) == sum(cell.fit == fit for cell in CELLS), fit
    legend_text = " ".join(legend.split())
    assert all(cell.reason in legend_text for cell in CELLS)
    assert all(grid.count(name) >= 1 for name in (*METHODS, *TASKS))


def test_one_task_can_be_selected(tmp_path: Path) -> None:
    text = listed(tmp_path, "--task", "lamp3")
    assert re.search(r"user_mean +●", text)
    assert "lamp4" not in text


# What runs


@pytest.mark.variants
@pytest.mark.parametrize(
    "answer",
    [echo, in_form],
    ids=["prose", "forms"],
)
@pytest.mark.parametrize("task", TASKS)
def test_every_cell_that_is_not_refused_runs(
    tmp_path: Path,
    task: str,
    answer: Callable[[Request], str],
) -> None:
    """With a model that follows no form, for all failure paths, and with one that follows each."""
    cells = on(task, "faithful", "adapted")
    outcomes, _ = ran(tmp_path, [cell.method for cell in cells], task, answer)
    for cell, outcome in zip(cells, outcomes, strict=True):
        assert [line.error for line in lines_of(outcome) if line.error] == [], cell
        summary = outcome.summary
        assert summary.status == "complete", cell
        assert summary.owed == 0, cell
        assert summary.fit == ("adapted" if summary.differs else "faithful"), cell
        if cell.fit == "adapted":
            assert f"task {task}" in summary.differs, cell
        assert summary.n >= 1, cell
        # Prose is no verdict, so a task that only a judge scores has no score of it.
        assert summary.metrics.get("official") or summary.counters.get("unjudged"), cell


@pytest.mark.parametrize("task", TASKS)
def test_refused_cells_are_refused_before_any_call(tmp_path: Path, task: str) -> None:
    # A refusal after an hour of paid calls would be useless.
    for cell in on(task, "refused"):
        model = Scripted()
        options = runner.Options(
            [cell.method],
            [task],
            backend="scripted",
            results=tmp_path,
        )
        with pytest.raises(UsageError) as refusal:
            asyncio.run(runner.run(options, backend=model))
        assert str(refusal.value) == f"method {cell.method} does not run on {task}: {cell.reason}"
        assert model.requests == []
        assert not (tmp_path / "runs").exists()


# What is never done twice

WHOLE = 50
EVERYTHING = (
    *(f"{name}.k={WHOLE}" for name in ("cicl", "cipher", "icl_edit", "cot_edit")),
    *(f"{name}.n_docs={WHOLE}" for name in ("dpl", "drp")),
    "cicl.negatives=draft",
    *(f"prose.k={WHOLE}", "prose.verify=false"),
)
ONLINE = {
    **dict.fromkeys(
        ("none", "rag", "random", "recency", "summary", "trsr", "persona_db", "full"), 1
    ),
    **dict.fromkeys(("cicl", "icl_edit", "cot_edit", "continual", "e_then_e"), 1),
    **dict.fromkeys(("remind", "cot", "rag_k", "rag_select"), 1),
    **dict.fromkeys(("hyperalign", "fermi", "k_lamp"), 1),
    "eragent": 7,
    "self_critic": 3,
    **dict.fromkeys(("summary_retrieved", "compsum", "dpl", "drp", "cipher", "rpm"), 2),
    **dict.fromkeys(("mem0_like", "amem_like", "memorybank_like"), 1),
    "memoryos_like": 2,
    # A plan of one agent.
    "mara": 3,
    # Questions that resemble the same records share their joined preferences.
    "prose": 1,
    **dict.fromkeys(("constant", "copy_nearest", "copy_input"), 0),
}


def answering(request: Request) -> str:
    """A reply in every form that a method requests, so that no call is repeated."""
    if "Content focus" in request.messages[0].content:
        return "Writing style: plain.\nContent focus: anything."
    return (
        f"Analysis: as above.\nAnswer: {echo(request)}"
        if "Analysis:" in request.messages[-1].content
        else in_form(request)
    )


@pytest.mark.parametrize("name", ONLINE)
def test_a_users_second_question_repeats_no_offline_call(tmp_path: Path, name: str) -> None:
    """If all of the history is used, a further question costs its own calls only."""
    (outcome,), model = ran(
        tmp_path,
        [name],
        answer=answering,
        settings=EVERYTHING,
        concurrency=1,
    )
    _, *later = lines_of(outcome)
    assert later, "the user has one question only"
    assert [sum(not call.cached for call in line.calls) for line in later] == [ONLINE[name]] * len(
        later
    )
    # Work on records is booked offline, once for all questions.
    paid = [call for line in later for call in line.calls if not call.cached]
    assert {call.phase for call in paid} <= {"predict"}
    assert sum(bool(line.key) for line in RunFolder(outcome.folder).profiles().values()) <= 1
    assert len(model.requests) == len({json.dumps(str(request)) for request in model.requests})


def test_every_method_that_runs_on_headlines_has_its_calls_tested() -> None:
    assert ONLINE.keys() == {cell.method for cell in on("lamp4", "faithful", "adapted")}


@pytest.mark.parametrize("first", ["cicl", "icl_edit"])
def test_another_method_reuses_the_drafts(tmp_path: Path, first: str) -> None:
    """`cipher` pays for a draft of every record, but not after another drafting method."""
    (before,), _ = ran(
        tmp_path,
        [first],
        answer=answering,
        settings=EVERYTHING,
    )
    (after,), _ = ran(
        tmp_path,
        ["cipher"],
        answer=answering,
        settings=EVERYTHING,
    )
    drafted = {call.key for line in lines_of(before) for call in line.calls}
    calls = [call for line in lines_of(after) for call in line.calls]
    shared = {call.key for call in calls if call.key in drafted}
    (records,) = {len(lamp4_history(line.sample_id)) for line in lines_of(after)}
    assert len(shared) == records >= 9
    assert all(call.cached for call in calls if call.key in shared)


def lamp4_history(sample_id: str) -> Sequence[Record]:
    task = registry.load_class("task", "lamp4")()
    return next(
        sample for sample in task.open("user/dev", None).samples() if sample.id == sample_id
    ).history


def test_difference_texts_serve_smaller_comparisons(tmp_path: Path) -> None:
    """A second run of dpl, with N = 4 after N = 8, pays for profiles and answers only."""
    (eight,), _ = ran(
        tmp_path,
        ["dpl"],
        settings=["dpl.n_docs=8"],
        concurrency=1,
    )
    (four,), _ = ran(
        tmp_path,
        ["dpl"],
        settings=["dpl.n_docs=4"],
        concurrency=1,
    )
    stage_one = {call.key for line in lines_of(eight) for call in line.calls[:8]}
    for line in lines_of(four):
        *differences, profile, answer = line.calls
        assert len(differences) == 4
        assert {call.key for call in differences} <= stage_one
        assert [call.cached for call in line.calls] == [True] * 4 + [False] * 2
        assert not {profile.key, answer.key} & stage_one


def test_another_method_embeds_no_text_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Embedding a large population dominates the run time of these methods on a CPU.
    embedded: list[str] = []
    embed = WordLlama.embed

    async def count(self: WordLlama, texts: Sequence[str]) -> Any:
        embedded.extend(texts)
        return await embed(self, texts)

    monkeypatch.setattr(WordLlama, "embed", count)
    ran(tmp_path, ["icl_edit"])
    first_count = len(embedded)
    assert first_count >= 9
    ran(tmp_path / "two", ["icl_edit", "cipher", "cot_edit"])
    assert len(embedded) == 2 * first_count
    assert len(set(embedded)) == first_count
