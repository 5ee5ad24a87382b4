"""`personabench train` without its extra, wrong options, and maps of adapters."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import Command

from personabench.errors import UsageError
from personabench.models.backends import create
from personabench.models.backends.adapters import read_adapter_map
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted

Refused = Callable[..., str]


def test_training_without_the_extra_is_explained_in_one_line(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str) -> object:
        return None if name in ("torch", "peft") else find_spec("json")

    monkeypatch.setattr("personabench.models.backends.hf_transformers.find_spec", find)
    for command in (
        ("train", "oppu", "--task", "lamp4", "--model", "m"),
        ("run", "-m", "none", "-t", "lamp4", "-b", "transformers", "--model", "m"),
    ):
        message = refused(*command)
        assert message.count("\n") <= 1
        assert "torch, peft not installed" in message
        assert 'pip install "personabench-harness[train]"' in message


HABITS = '''from personabench import Trained, TrainedMethod


class Habits(TrainedMethod):
    """Answer with the user's first response before the request."""

    name = "habits"
    kind = "json"

    async def train_user(self, user, ctx):
        (ctx.folder / "first.txt").write_text(ctx.exchange(user.history[0]).output)
        return Trained("json", parameters=1)

    async def predict(self, sample, state, ctx):
        first = (ctx.artifact(sample).folder / "first.txt").read_text()
        return await ctx.answer(sample, notes=first)
'''


def test_a_method_without_a_model_is_trained_and_run_without_the_extra(
    tmp_path: Path,
    refused: Refused,
    personabench: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("personabench.models.backends.hf_transformers.find_spec", lambda name: None)
    path = tmp_path / "habits.py"
    path.write_text(HABITS)
    shared = ("--task", "lamp4", "--limit", "2", "--results", tmp_path / "results")
    run = ("run", "-m", path, *shared, "-b", "scripted")
    message = refused(*run)
    assert "is not trained for user" in message
    assert "personabench train habits --task lamp4, with the --data" in message

    assert "trained without a model; leave it out" in refused(
        "train", path, *shared, "--model", "m"
    )
    assert "users 1" in personabench("train", path, *shared).out
    assert personabench(*run).code == 0
    (row,) = personabench("leaderboard", "--results", tmp_path / "results", "--json").json
    assert (row["trained_on"], row["train_parameters"]) == ("history", 1)
    assert row["train_records"] == 1 and row["train_bytes"] > 0
    assert "nothing to train" in refused("train", "rag", *shared)


def test_a_trained_method_needs_a_backend_with_adapters(refused: Refused) -> None:
    message = refused("run", "-m", "oppu", "-t", "lamp4", "-b", "scripted")
    assert "backend 'scripted' does not serve; use --backend transformers, vllm or local" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "write a JSON object"),
        ("{}", "names no user"),
        ("{", "write a JSON object"),
        ('{"u1": "./nowhere"}', "user u1: there is no folder ./nowhere"),
        ('{"u1": 3}', "write a JSON object"),
    ],
)
def test_a_wrong_map_is_refused(
    refused: Refused, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "map.json"
    path.write_text(content)
    words = ("run", "-m", "none", "-t", "lamp4", "-b", "vllm", "--model", "m")
    assert message in refused(*words, "--adapter-map", path)


def test_a_map_belongs_to_backends_that_serve_adapters(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text('{"u1": "a"}')
    words = ("run", "-m", "none", "-t", "lamp4", "--adapter-map", path)
    only = "--adapter-map: only with --backend vllm or transformers or local, not scripted"
    assert only in refused(*words, "-b", "scripted")
    assert "'a' is no folder with an adapter" in refused(*words)
    trained = refused("run", "-m", "oppu", "-t", "lamp4")
    assert "serves a file that was made of one: name it with --checkpoint" in trained
    both = ("-b", "vllm", "--model", "m", "--adapter", "a")
    assert "leave one of them out" in refused(*words, *both)
    shuffled = ("-b", "vllm", "--model", "m", "--history", "shuffled")
    assert "--history shuffled with --adapter-map" in refused(*words, *shuffled)


def test_users_of_a_map_and_the_default(tmp_path: Path) -> None:
    folder = tmp_path / "u2"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"u1": "served", "u2": "u2", "u3": None, "*": "shared"}))
    adapters = read_adapter_map(path)
    assert adapters == {"u1": "served", "u2": str(folder), "u3": "", "*": "shared"}

    backend = Scripted(BackendOptions(adapter_map=adapters))
    assert backend.adapter("u1") == "served"
    assert backend.adapter("u9") == "shared"
    assert not backend.adapter("u3")
    assert not backend.adapter("")
    name = backend.adapter("u2")
    assert backend.adapters == {name: folder}

    # A name by content: another place is the same adapter, another file is another one.
    moved = folder.rename(tmp_path / "moved")
    again = Scripted(BackendOptions(adapter_map={"u2": str(moved)}))
    assert again.adapter("u2") == name
    (moved / "adapter_config.json").write_text("{ }")
    other = Scripted(BackendOptions(adapter_map={"u2": str(moved)}))
    assert other.adapter("u2") != name
    assert again.map_marks != other.map_marks


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    options = BackendOptions(model="m", adapter_map={"u1": str(tmp_path)})
    with pytest.raises(UsageError, match=r"is no adapter: it has no adapter_config\.json"):
        create("vllm", options)
