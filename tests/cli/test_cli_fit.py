"""Which methods run on a task of one's own: decided by capabilities, without ending the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command

from personabench.api import registry

TASK = """
from personabench import Dataset, Message, Metric, Record, Rendered, Sample, Task, Vocabulary
from personabench.types import to_json

TEXTS = ("Yes.", "Never, thank you, not today.")


class Days(Dataset):
    separation, split, sample, hash, source = "user", "dev", True, "days", "days of mine"

    def index(self):
        return [(f"{user}{day}", user) for user in "abcdef" for day in range(2)]

    def load(self, position):
        name, user = self.index()[position]
        history = (Record(f"{name}r", f"The day before {name}", "Never"),)
        attributes = {"options": to_json(TEXTS)} if OPTIONS else {}
        return Sample(
            name,
            user,
            f"Dinner on {name}?",
            history=history,
            choices=CHOICES,
            references=(CHOICES[-1],),
            attributes=attributes,
        )


class Mine(Task):
    name = "mine"
    DECLARED
    metrics = (Metric("accuracy"),)
    words = Vocabulary("guest", "day", "reply", "What do they like?", (), "Reply.")

    def open(self, split, data):
        return Days()

    def render(self, sample, records, notes, tokens):
        return Rendered((Message("user", sample.input),))

    def parse(self, output, sample, scorer):
        return output.strip() or None

    def measure(self, parsed, sample):
        return {"accuracy": float(parsed == sample.references[0])}
"""
METHOD = """
from personabench import Method


class Own(Method):
    name = "own"
    NEEDS

    async def predict(self, sample, state, ctx):
        return "No"
"""
LABELS = 'kind = "category"\n    labels = ("Yes", "Never")'


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the files of earlier tests, as a new process would."""
    monkeypatch.setattr(registry, "_given", {})


def task_file(folder: Path, declared: str = LABELS, choices: str = '("Yes", "Never")') -> Path:
    options = any(word in declared for word in ("options", "pairs"))
    text = TASK.replace("DECLARED", declared).replace("CHOICES", choices)
    path = folder / "mine.py"
    path.write_text(text.replace("OPTIONS", str(options)))
    return path


def method_file(folder: Path, needs: str) -> Path:
    path = folder / "own.py"
    path.write_text(METHOD.replace("NEEDS", f"needs = {needs}"))
    return path


def run(personabench: Command, task: object, methods: object, *words: object) -> tuple[list, str]:
    """The methods that ran, and standard error."""
    ended = personabench("run", "-t", task, "-m", methods, "-b", "scripted", *words, "--json")
    assert ended.code == 0, ended.err
    return [summary["method"] for summary in ended.json], ended.err


def test_an_unsuitable_method_is_named_and_the_others_run(
    personabench: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = task_file(tmp_path)
    words = ("-m", "none,rag,longest_option", "-b", "scripted")
    ended = personabench("run", "-t", task, *words)
    assert ended.code == 0, ended.err
    assert "mine/user/dev" in ended.out
    assert " none " in ended.out and " rag " in ended.out
    assert [record.message for record in caplog.records if "skipped" in record.message] == [
        "skipped: method longest_option does not run on mine: its questions have no texts to "
        "choose from"
    ]


def test_a_command_without_anything_to_run_is_a_usage_error(
    personabench: Command, refused: Callable[..., str], tmp_path: Path
) -> None:
    task = task_file(tmp_path)
    err = refused("run", "-t", task, "-m", "longest_option,persona_only", "-b", "scripted")
    assert "longest_option does not run on mine" in err
    assert "persona_only does not run on mine: its users have no written description" in err


@pytest.mark.parametrize(
    ("declared", "runs"),
    [
        (LABELS, True),
        (f'{LABELS}\n    offers = ("history",)', False),
        (f'{LABELS}\n    offers = ("precedents",)', False),
        (f'{LABELS}\n    offers = ("history", "precedents")', True),
    ],
)
def test_a_method_of_ones_own_is_held_to_its_needs(
    personabench: Command, tmp_path: Path, declared: str, runs: bool
) -> None:
    task = task_file(tmp_path, declared)
    method = method_file(tmp_path, '("history|feedback", "precedents")')
    ran, _ = run(personabench, task, f"none,{method}")
    assert ran == (["none", "own"] if runs else ["none"])


def test_a_parameter_may_need_more_and_is_skipped_before_any_call(
    personabench: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = task_file(tmp_path)
    ran, _ = run(personabench, task, "full,none", "--set", "full.decide=sum")
    assert ran == ["none"]
    assert "method full with these parameters does not run on mine" in caplog.text

    ran, _ = run(personabench, task, "rag,none", "--set", "rag.retriever=recency")
    assert ran == ["none"]
    assert "method rag sorts records by date" in caplog.text


def test_a_method_that_finds_out_late_does_not_end_the_command(
    personabench: Command,
    refused: Callable[..., str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    task, late = task_file(tmp_path), tmp_path / "late.py"
    text = METHOD.replace("NEEDS", "").replace("import Method", "import Method, UsageError")
    text = text.replace('return "No"', 'raise UsageError("it needs a poem")')
    late.write_text(text.replace('"own"', '"late"'))
    ran, _ = run(personabench, task, f"none,{late},rag")
    assert ran == ["none", "rag"]
    assert "skipped: method late: it needs a poem" in caplog.text

    ended = personabench("run", "-t", task, "-m", late, "-b", "scripted")
    assert ended.code == 2
    assert "error: method late: it needs a poem" in ended.err


def test_a_run_whose_samples_all_failed_is_no_rule(personabench: Command, tmp_path: Path) -> None:
    # It makes no call either, and would be the best rule of its table.
    task, failing = task_file(tmp_path), method_file(tmp_path, "()")
    failing.write_text(failing.read_text().replace('return "No"', "return 1 / 0"))
    ended = personabench("run", "-t", task, "-m", failing, "-b", "scripted")
    assert ended.code == 1
    assert "No rule without a model is among the rows" in ended.out


def test_a_dry_run_skips_the_same_pairs(
    personabench: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = task_file(tmp_path)
    words = ("-m", "none,longest_option", "-b", "scripted", "--dry-run")
    ended = personabench("run", "-t", task, *words)
    assert ended.code == 0, ended.err
    assert "none" in ended.out
    assert "skipped: method longest_option does not run on mine" in caplog.text


def test_with_several_seeds_a_pair_is_named_once(
    personabench: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = task_file(tmp_path)
    ran, _ = run(personabench, task, "none,longest_option", "--seeds", "0,1,2")
    assert ran == ["none"] * 3
    assert caplog.text.count("longest_option") == 1


def test_an_unknown_capability_of_a_task_is_refused_with_the_list(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    task = task_file(tmp_path, 'offers = ("histories",)')
    for verb in (("run", "-m", "none", "-b", "scripted"), ("check", "task"), ("list", "matrix")):
        words = (*verb, task) if verb[0] == "check" else (*verb, "-t", task)
        err = refused(*words)
        assert "offers names 'histories', which is no capability; expected one of history" in err


def test_the_matrix_knows_files(personabench: Command, tmp_path: Path) -> None:
    task, method = task_file(tmp_path), method_file(tmp_path, '("dialogue",)')
    cells = personabench("list", "matrix", "--task", task, "--json").json
    fits = {cell["method"]: cell["fit"] for cell in cells}
    assert {cell["task"] for cell in cells} == {"mine"}
    assert fits["majority"] == "faithful"
    assert fits["rag"] == "adapted"
    assert fits["longest_option"] == "refused"

    cells = personabench("list", "matrix", "--method", method, "--json").json
    fits = {cell["task"]: cell["fit"] for cell in cells}
    assert {task for task, fit in fits.items() if fit != "refused"} == {"aloe", "prefdisco"}

    (cell,) = personabench("list", "matrix", "-t", task, "-m", method, "--json").json
    assert cell["reason"] == "it is not a conversation"
    assert "own  –" in " ".join(
        personabench("list", "matrix", "-t", task, "-m", method).out.split("\n")
    )


OPTIONS = 'kind = "text"\n    offers = ("history", "options")'


@pytest.mark.parametrize(
    ("declared", "method", "answer"),
    [
        (LABELS, "first_option", "Yes"),
        (OPTIONS, "first_option", "Yes"),
        (OPTIONS, "longest_option", "Never"),
        (OPTIONS, "shortest_option", "Yes"),
        (OPTIONS, "most_familiar", "Never"),
        (OPTIONS, "copy_nearest", "Never"),
        ('kind = "text"\n    offers = ("pairs",)', "longer_response", "Never"),
        ('kind = "text"\n    offers = ("safety",)', "always_refuse", "I'm sorry"),
        (LABELS, "majority", "Never"),
        (LABELS, "user_majority", "Never"),
        ('kind = "text"', "copy_input", "Dinner on"),
    ],
)
def test_rules_run_on_any_task_with_their_capabilities(
    personabench: Command, tmp_path: Path, declared: str, method: str, answer: str
) -> None:
    task = task_file(tmp_path, declared)
    ended = personabench("run", "-t", task, "-m", f"none,{method}", "-b", "scripted", "--json")
    assert ended.code == 0, ended.err
    plain, rule = ended.json
    assert (plain["rule"], rule["rule"]) == (False, True)
    lines = (Path(rule["folder"]) / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 12
    assert all(f'"output":"{answer}' in line for line in lines)
    assert f"Best rule without a model: {method} (" in personabench("leaderboard").out


def test_every_table_says_in_what_a_run_differs_from_its_paper(personabench: Command) -> None:
    results = ("--results", "r")
    ran = personabench(
        "run", "-m", "rag,none", "-t", "lamp4", "-b", "scripted", "--limit", "2", *results
    )
    note = "Not as in the paper: rag; differs in: example data."
    assert note in " ".join(ran.out.split())
    rows = personabench("leaderboard", *results, "--json").json
    assert {row["method"]: (row["fit"], row["differs"]) for row in rows} == {
        "rag": ("adapted", ["example data"]),
        "none": ("faithful", []),
    }
    runs = {row["method"]: row["run"] for row in rows}
    compared = personabench("compare", runs["rag"], runs["none"], *results).out
    assert "Not as in the paper: A; differs in: example data." in compared
    for form in ("md", "latex"):
        table = personabench("leaderboard", *results, "--format", form).out
        assert "differs in: example data" in " ".join(table.split())


def test_a_control_of_histories_skips_tasks_without_histories(
    personabench: Command, caplog: pytest.LogCaptureFixture
) -> None:
    words = ("run", "-b", "scripted", "-m", "none", "-n", 1, "--history", "shuffled")
    ended = personabench(*words, "-t", "prelude_summ,lamp4")
    assert ended.code == 0 and "lamp4/user/dev" in ended.out
    assert [record.message for record in caplog.records if "skipped" in record.message] == [
        "skipped: --history shuffled: the users of prelude_summ have no history; leave it out"
    ]
    alone = personabench(*words, "-t", "prelude_summ")
    assert alone.code == 2 and "have no history" in alone.err
