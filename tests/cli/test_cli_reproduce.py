"""`personabench reproduce`: recipes run end to end, and smoke runs are labelled as such."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command

from personabench.run.recipe import BUILT_IN, list_recipes

RECIPES = sorted(list_recipes())
LAMP = Path(__file__).parents[2] / "tasks" / "lamp" / "sample"

OWN = """
title = "Two rows of mine"
source = "a table of mine"
task = "lamp4"
split = "user/dev"
metric = "rouge-1"
caveats = ["A caveat of mine."]

[model]
name = "scripted"
backend = "scripted"

[task_params]
template = "lamp-official"

[tolerance]
rouge-1 = 0.01

[[rows]]
label = "without"
method = "none"
published = { rouge-1 = 0.5, rouge-L = 0.99 }

[[rows]]
label = "two records"
method = "rag"
set = { k = 2 }
published = { rouge-1 = 0.9 }

[[rows]]
label = "elsewhere"
published = { rouge-1 = 0.6 }
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the example data, which counts as the benchmark's own."""
    shutil.copytree(LAMP / "lamp4", tmp_path / "copy")
    return tmp_path / "copy"


def write(tmp_path: Path, text: str = OWN) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_without_a_name_the_recipes_are_listed(personabench: Command) -> None:
    listed = personabench("reproduce")
    assert [line.split()[0] for line in listed.out.splitlines() if "·" in line] == RECIPES
    assert set(personabench("reproduce", "--json").json) == set(RECIPES)


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(name, marks=() if name == "rpm-lamp3" else pytest.mark.variants)
        for name in RECIPES
    ],
)
def test_every_recipe_runs_at_smoke_size_on_example_data(
    recipe: str, personabench: Command
) -> None:
    ended = personabench("reproduce", recipe, "--scale", "1", "-b", "scripted", "--json")
    assert ended.code == 0, ended.err
    content = ended.json
    assert content["smoke"] and not content["comparable"]
    assert content["departures"][0] == "smoke size (--scale 1)"
    assert {row["verdict"] for row in content["rows"]} <= {
        "smoke",
        "no number",
        "no value",
        "quoted",
    }
    measured = [row for row in content["rows"] if row["verdict"] == "smoke"]
    # NormAlign is undefined if the scripted answers with and without preferences are alike.
    assert measured or recipe == "prefdisco"
    assert all(row["ours"]["n"] for row in measured)
    assert "SMOKE RUN" in ended.err
    # Apart from the results of other commands.
    assert {row["folder"].split("/")[2] for row in measured} <= {f"{recipe}-smoke"}


def test_the_rows_agree_or_not_with_the_paper(
    personabench: Command, copy: Path, tmp_path: Path
) -> None:
    recipe = write(tmp_path)
    printed = personabench("reproduce", recipe, "--data", copy)
    assert printed.code == 0, printed.err
    assert "Plan: no model has been called" in printed.out
    assert "SMOKE" not in printed.out + printed.err
    for text in ("A caveat of mine.", "a table of mine", "rouge-1 0.01"):
        assert text in printed.out

    content = personabench("reproduce", recipe, "--data", copy, "--json").json
    assert content["comparable"] and content["departures"] == []
    rows = {(row["row"], row["metric"]): row for row in content["rows"]}
    # The runs are the run command's own, so its scores are these.
    folder = Path(rows["without", "rouge-1"]["folder"])
    scores = json.loads((folder / "summary.json").read_text())["metrics"]["official"]
    ours = rows["without", "rouge-1"]["ours"]
    assert ours["value"] == pytest.approx(scores["rouge-1"])
    assert ours["low"] < ours["value"] < ours["high"]

    verdicts = {key: row["verdict"] for key, row in rows.items()}
    assert verdicts == {
        ("without", "rouge-1"): "lower",
        ("without", "rouge-L"): "lower",
        ("two records", "rouge-1"): "lower",
        ("elsewhere", "rouge-1"): "quoted",
    }
    gain = rows["two records", "rouge-1"]
    assert gain["published_gain"] == pytest.approx(0.4)
    assert gain["gain"]["low"] is not None

    # With our own value published, the row agrees.
    agreeing = OWN.replace("rouge-1 = 0.5", f"rouge-1 = {ours['high'] + 0.005:.4f}")
    agreeing = agreeing.replace("rouge-L = 0.99", "rouge-L = 0.0")
    content = personabench("reproduce", write(tmp_path, agreeing), "--data", copy, "--json").json
    verdicts = {(row["row"], row["metric"]): row["verdict"] for row in content["rows"]}
    assert verdicts["without", "rouge-1"] == "agrees"
    assert verdicts["without", "rouge-L"] == "higher"


def test_another_model_or_missing_samples_give_no_verdict(
    personabench: Command, copy: Path, tmp_path: Path
) -> None:
    other = write(tmp_path, OWN.replace('name = "scripted"', 'name = "big-model"'))
    content = personabench("reproduce", other, "--data", copy, "-b", "scripted", "--json").json
    assert content["departures"] == ["another model than the paper's, big-model"]
    assert content["rows"][0]["verdict"] == "not comparable"

    judged = write(
        tmp_path, OWN.replace("[tolerance]", '[roles.profiler]\nname = "p"\n[tolerance]')
    )
    judged.write_text(judged.read_text().replace('method = "rag"', 'method = "summary"'))
    options = ("--profile-backend", "scripted", "--profile-model")
    for named, expected in (("p", []), ("q", ["another profiler than the paper's, p"])):
        content = personabench("reproduce", judged, "--data", copy, *options, named, "--json").json
        assert content["departures"] == expected


def test_missing_data_and_models_are_named_with_the_command_to_get_them(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refused("reproduce", "dpl-books")
    assert "personabench download reviews --split Books/test --target data" in error
    assert "--scale 6" in error

    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("PERSONABENCH_VLLM", raising=False)
    (tmp_path / "data").mkdir()
    error = refused("reproduce", "dpl-books")
    assert "hf download Qwen/Qwen2.5-7B-Instruct" in error
    assert "--base-url URL" in error

    error = refused("reproduce", "rpm-lamp3")
    assert "OPENAI_API_KEY" in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('metric = "rouge-1"', "metrics = 1"), "metrics"),
        (('method = "rag"', 'method = "ragg"'), "did you mean rag"),
        (("k = 2", "kk = 2"), "no parameter 'kk'"),
        (('label = "elsewhere"', ""), "a row needs a method"),
        (("[tolerance]", "[roles.referee]\n[tolerance]"), "referee"),
    ],
)
def test_a_wrong_recipe_is_refused_and_says_where(
    change: tuple[str, str],
    message: str,
    refused: Callable[..., str],
    copy: Path,
    tmp_path: Path,
) -> None:
    recipe = write(tmp_path, OWN.replace(*change))
    assert message in refused("reproduce", recipe, "--data", copy)


def test_a_recipe_may_name_a_method_of_ones_own(
    personabench: Command, copy: Path, tmp_path: Path
) -> None:
    (tmp_path / "newest.py").write_text(
        "from dataclasses import dataclass\n"
        "from personabench import Method\n\n\n"
        "class Newest(Method):\n"
        '    """The newest records."""\n\n'
        "    @dataclass(frozen=True)\n"
        "    class Params:\n"
        '        """k: records shown."""\n\n'
        "        k: int = 1\n\n"
        "    async def predict(self, sample, state, ctx):\n"
        "        return await ctx.answer(sample, records=sample.history[-self.params.k :])\n"
    )
    recipe = write(tmp_path, OWN.replace('method = "rag"', 'method = "newest.py"'))
    content = personabench("reproduce", recipe, "--data", copy, "--json").json
    row = next(row for row in content["rows"] if row["row"] == "two records")
    assert row["ours"]["n"] and row["verdict"] == "lower"
    assert json.loads((Path(row["folder"]) / "spec.json").read_text())["params"] == {"k": 2}


def test_an_unknown_recipe_is_refused_with_the_list(refused: Callable[..., str]) -> None:
    error = refused("reproduce", "dpl-bookz")
    assert all(name in error for name in RECIPES)


def test_a_task_can_be_chosen(personabench: Command, refused: Callable[..., str]) -> None:
    words = ("reproduce", "lamp-user", "--scale", "1", "-b", "scripted")
    content = personabench(*words, "--task", "lamp3", "--json").json
    assert {row["task"] for row in content["rows"]} == {"lamp3"}
    assert "lamp9" in refused(*words, "--task", "lamp9")


def test_a_dry_run_calls_no_model(personabench: Command) -> None:
    words = ("reproduce", "dpl-books", "--scale", "1", "-b", "scripted", "--dry-run")
    rows = personabench(*words, "--json").json
    assert [row["method"] for row in rows] == ["none", "rag", "summary", "dpl"]
    assert all(row["calls"] for row in rows)
    assert not list(Path("results").rglob("predictions.jsonl"))


@pytest.mark.variants
@pytest.mark.model
def test_a_recipe_runs_on_the_packaged_model(personabench: Command) -> None:
    words = ("reproduce", "lamp-user", "--scale", "1", "--task", "lamp3", "--json")
    content = personabench(*words).json
    assert all(row["verdict"] == "smoke" for row in content["rows"])
    assert all(row["ours"]["value"] is not None for row in content["rows"])


def test_published_numbers_are_those_of_the_pages() -> None:
    """The recipes' numbers stand in the pages of tasks and methods, as text."""
    docs = Path(__file__).parents[2] / "docs"
    pages = "\n".join(path.read_text() for path in docs.rglob("*.md"))
    for name, recipe in list_recipes().items():
        for row in recipe.filled:
            for metric, value in row.published.items():
                texts = {
                    f"{value:g}",
                    f"{value:,g}",
                    f"{value:.3f}",
                    f"{value:.4f}",
                    f"{value:.2f}",
                }
                texts |= {text.removeprefix("0") for text in texts}
                texts |= {text.removeprefix("0") for text in texts}
                if value >= 1000:
                    texts.add(f"{value:,.0f}")
                assert any(text in pages for text in texts), (name, row.name, metric, value)


def test_recipes_are_files_of_their_name() -> None:
    assert {path.stem for path in BUILT_IN.glob("*.toml")} == set(RECIPES)
