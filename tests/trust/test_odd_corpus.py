"""Odd files and odd options by the hundred: every command ends with a message and no traceback.

Hypothesis changes valid files and draws option values; its draws are the same in every run.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from cli_calls import call
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

Case = Callable[[str], AbstractContextManager[None]]
LOADERS, VERBS = "odd data files, by file", "odd options, by command"
TASKS = Path(__file__).parents[2] / "tasks"
RUN = ("-m", "none,rag", "-b", "scripted", "-n", "2")

ODD_TEXTS = [
    "",
    " ",
    "\x00",
    "\x1b[31mred",
    "ÿþ",
    "日本語",
    "👩‍👩‍👧",
    "../..",
    "a/b",
    "-1",
    "0",
    "1e999",
    "nan",
    "null",
    "{}",
    "[]",
    "=1+1",
    "a=b=c",
    ",",
    "x" * 5000,
    "--help-me",
    "0/0",
    "3/2",
    "none,none",
    "$HOME",
]
ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(ODD_TEXTS),
    st.just([]),
    st.just({}),
    st.just([[[1]]]),
    st.just({"a": {"b": None}}),
)
WORDS = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.text(max_size=12).filter(lambda text: not text.startswith("/")),
    st.integers(-5, 10**12).map(str),
)


def corpus(examples: int) -> Callable[[Any], Any]:
    """Settings of a test whose draws are always the same."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


# A path from the root of a JSON value: at each level the share of the way through its items.
PATHS = st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=6)
EDITS = st.one_of(
    st.tuples(st.just("value"), PATHS, ODD_VALUES),
    st.tuples(st.just("drop"), PATHS, st.none()),
    st.tuples(st.just("rename"), PATHS, st.sampled_from(ODD_TEXTS)),
    st.tuples(st.just("cut"), PATHS, st.none()),
    st.tuples(st.just("bytes"), PATHS, st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("repeat"), PATHS, st.none()),
)


def edit_value(value: Any, path: list[float], kind: str, new: Any) -> Any:
    """The value with one part of it replaced, dropped, renamed or repeated."""
    if not isinstance(value, list | dict) or not value:
        return new
    index = int(path[0] * len(value))
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[index]
    if len(path) > 1 and isinstance(value[key], list | dict) and value[key]:
        copy = value.copy()
        copy[key] = edit_value(value[key], path[1:], kind, new)
        return copy
    copy = value.copy()
    if kind == "drop":
        del copy[key]
    elif kind == "rename" and isinstance(copy, dict):
        copy[new] = copy.pop(key)
    elif kind == "repeat" and isinstance(copy, list):
        copy.append(copy[key])
    else:
        copy[key] = new
    return copy


def edit_file(path: Path, kind: str, where: list[float], new: Any) -> None:
    """Change a file at the level of its bytes or of its JSON."""
    content = path.read_bytes()
    position = int(where[0] * len(content))
    if kind == "cut":
        path.write_bytes(content[:position])
    elif kind == "bytes" or path.suffix not in (".json", ".jsonl"):
        odd = new if isinstance(new, bytes) else str(new).encode("utf-8", "surrogatepass")
        path.write_bytes(content[:position] + odd + content[position + len(odd) :])
    elif path.suffix == ".json":
        path.write_text(json.dumps(edit_value(json.loads(content), where, kind, new)))
    else:
        lines = content.decode().splitlines()
        number = int(where[0] * len(lines))
        changed = edit_value(json.loads(lines[number]), where[1:] or [0.0], kind, new)
        lines[number] = json.dumps(changed)
        path.write_text("\n".join(lines))


DATA = {
    "aloe": TASKS / "aloe" / "sample",
    "lamp3": TASKS / "lamp" / "sample" / "lamp3",
    "lamp4": TASKS / "lamp" / "sample" / "lamp4",
    "personamem": TASKS / "personamem" / "sample",
    "personamem_v2": TASKS / "personamem_v2" / "sample",
    "prefdisco": TASKS / "prefdisco" / "sample",
    "prefdisco_warm": TASKS / "prefdisco" / "sample",
    "prelude_email": TASKS / "prelude" / "sample",
    "reviews": TASKS / "reviews" / "sample",
    "lampqa": TASKS / "lampqa" / "sample",
    "longlamp_topic": TASKS / "longlamp" / "sample",
    "locomo": TASKS / "locomo" / "sample",
    "longmemeval": TASKS / "longmemeval" / "sample",
    "personabench_qa": TASKS / "personabench_qa" / "sample",
    "prefeval": TASKS / "prefeval" / "sample",
    "penguin": TASKS / "penguin" / "sample",
    "usafebench": TASKS / "usafebench" / "sample",
    "bespoke": TASKS / "bespoke" / "sample",
    **{
        name: TASKS / "prefpair" / "sample" / name
        for name in (
            "community_alignment",
            "personafeedback",
            "personalized_rewardbench",
            "personalllm",
            "prism",
            "psoups",
        )
    },
}


@pytest.fixture(scope="module", autouse=True)
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A working folder of the module's own, offline and without keys."""
    before, environment = Path.cwd(), dict(os.environ)
    os.chdir(tmp_path_factory.mktemp("odd"))
    os.environ["PERSONABENCH_OFFLINE"] = "1"
    os.environ.pop("OPENAI_API_KEY", None)
    yield
    os.chdir(before)
    os.environ.clear()
    os.environ.update(environment)


def try_data(name: str, choice: float, edit: tuple[str, list[float], Any]) -> None:
    """Edit a file of a task's data; audit, check and run it."""
    shutil.rmtree("data", ignore_errors=True)
    shutil.rmtree("results", ignore_errors=True)
    shutil.copytree(DATA[name], "data")
    files = sorted(
        path for path in Path("data").rglob("*") if path.is_file() and path.suffix != ".md"
    )
    edit_file(files[int(choice * len(files))], *edit)
    call("run", "-t", name, *RUN, "--data", "data")
    call("audit", name, "--data", "data")


@pytest.mark.trust
@pytest.mark.parametrize("name", DATA)
def test_edited_files_of_every_loader(name: str, case: Case) -> None:
    @corpus(15)
    @given(choice=st.floats(0, 1, exclude_max=True), edit=EDITS)
    def check(choice: float, edit: tuple[str, list[float], Any]) -> None:
        with case(LOADERS):
            try_data(name, choice, edit)

    check()


def test_a_few_edited_files(case: Case) -> None:
    @corpus(3)
    @given(choice=st.floats(0, 1, exclude_max=True), edit=EDITS)
    def check(choice: float, edit: tuple[str, list[float], Any]) -> None:
        with case(LOADERS):
            try_data("lamp4", choice, edit)

    check()


# Tables of one's own, in every form that `read_rows` reads.
TABLES = {
    "rows.jsonl": b'{"question": "Tea?", "answer": "yes", "user": "ann"}\n' * 3,
    "rows.json": b'[{"question": "Tea?", "answer": "yes", "user": "ann"}]',
    "rows.csv": b"question,answer,user\nTea?,yes,ann\nMilk?,no,ben\n",
}
# Options of each command, without those that start servers or write outside of the folder.
OPTIONS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("run", "-t", "lamp4", "-b", "scripted"): (
        *("-m", "-t", "-n", "--split", "--set", "--grid", "--seed", "--seeds", "--history"),
        *("--shard", "--cache", "--temperature", "--top-p", "--max-tokens", "--metric"),
        *("--context-length", "--wording", "--prices", "--max-cost", "--concurrency", "--prompts"),
        *("--model", "--data", "--reading", "--sample-timeout", "--extra", "--reasoning"),
    ),
    ("leaderboard",): ("--task", "--method", "--model", "--format", "--baseline", "--results"),
    ("show",): ("--results", "--task"),
    ("compare", "last", "last"): ("--results", "--metric", "--task"),
    ("export", "last"): ("--to", "--results", "--task"),
    ("score", "-t", "lamp4"): ("--data", "--split", "--metric", "--against", "--scorer"),
    ("audit",): ("--data", "--split"),
    ("check", "task"): ("--data", "--split"),
    ("check", "method"): ("--task",),
    ("list",): ("--results",),
    ("cache", "why"): ("--results",),
    ("publish",): ("--to", "--results"),
    ("report",): ("--results", "--task"),
    ("merge",): ("--results", "--shards"),
    ("judge", "last", "last"): ("--protocol", "--votes", "--results"),
    ("new", "method"): (),
    ("generate", "prefdisco"): ("--source", "--limit"),
}


def try_words(command: tuple[str, ...], pairs: list[tuple[float, str]], last: str | None) -> None:
    """Call a command with odd values of some of its options, and an odd argument."""
    options = OPTIONS[command]
    words = list(command)
    for choice, value in pairs:
        if options:
            words += [options[int(choice * len(options))], value]
    # A name of a file that no command writes to.
    words += [last.replace("/", "_")] if last is not None else []
    call(*words)


DRAWN = {
    "pairs": st.lists(st.tuples(st.floats(0, 1, exclude_max=True), WORDS), max_size=3),
    "last": st.none() | WORDS,
}


def check_command(command: tuple[str, ...], examples: int, case: Case) -> None:
    @corpus(examples)
    @given(**DRAWN)
    def check(pairs: list[tuple[float, str]], last: str | None) -> None:
        with case(VERBS):
            try_words(command, pairs, last)

    check()


@pytest.mark.trust
@pytest.mark.parametrize("command", OPTIONS, ids=" ".join)
def test_odd_options_of_every_verb(command: tuple[str, ...], case: Case) -> None:
    check_command(command, 20, case)


def test_a_few_odd_options(case: Case) -> None:
    for command in OPTIONS:
        check_command(command, 1, case)


@pytest.mark.trust
@pytest.mark.parametrize("name", TABLES)
def test_edited_tables_of_ones_own(name: str, case: Case) -> None:
    @corpus(15)
    @given(edit=EDITS)
    def check(edit: tuple[str, list[float], Any]) -> None:
        shutil.rmtree("results", ignore_errors=True)
        path = Path(name)
        path.write_bytes(TABLES[name])
        edit_file(path, *edit)
        with case(LOADERS):
            call("run", "-m", "none", "-t", name, "-b", "scripted", "-n", "2")

    check()


@pytest.mark.trust
def test_edited_answers_and_prices(case: Case) -> None:
    golds = (DATA["lamp4"] / "dev_outputs.json").read_bytes()
    files = {"answers.json": golds, "prices.json": b'{"scripted": {"input": 1, "output": 2}}'}

    @corpus(30)
    @given(name=st.sampled_from(sorted(files)), edit=EDITS)
    def check(name: str, edit: tuple[str, list[float], Any]) -> None:
        path = Path(name)
        path.write_bytes(files[name])
        edit_file(path, *edit)
        with case(LOADERS):
            if name == "answers.json":
                call("score", "-t", "lamp4", name)
            else:
                call("run", "-t", "lamp4", *RUN, "--prices", name)

    check()
