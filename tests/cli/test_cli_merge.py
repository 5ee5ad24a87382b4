"""`personabench merge`, and the options of `run` that make many runs or parts of one."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command
from test_cli_docs import DOCS, documented

RUN = ("run", "-b", "scripted", "-t", "lamp4", "-m", "none,rag", "-n", "10")


def test_shards_are_run_and_merged_and_the_command_without_them_finds_nothing_to_do(
    personabench: Command, tmp_path: Path
) -> None:
    for number in (1, 2):
        ended = personabench(*RUN, "--shard", f"{number}/2")
        assert (
            ended.code == 0
            and f"shard  {number}/2; join the shards with `personabench merge`" in ended.err
        )
        assert f"results/shards/{number}-of-2/runs/lamp4/none/scripted/" in ended.out
    assert not (tmp_path / "results/runs").exists()
    assert personabench("list", "runs", "--json").json == []
    ended = personabench("merge")
    assert ended.code == 0 and "run folders:\n  results/runs/lamp4/none/scripted/" in ended.out
    summaries = personabench("merge", "--json").json
    assert [(each["method"], each["status"], each["n"]) for each in summaries] == [
        ("none", "complete", 11),
        ("rag", "complete", 11),
    ]
    again = personabench(*RUN, "--cache", "only", "--json").json
    assert [each["folder"] for each in again] == [each["folder"] for each in summaries]
    assert [each["metrics"] for each in again] == [each["metrics"] for each in summaries]
    one = again[0]
    (named,) = personabench("merge", one["fingerprint"][:8], "--shards", "2", "--json").json
    assert named["fingerprint"] == one["fingerprint"]
    assert personabench("show", "last", "3118").code == 0


def test_what_cannot_be_merged_is_said_and_the_rest_is_merged(
    personabench: Command, refused: Callable[..., str]
) -> None:
    assert (
        "no shards under results/shards; make them with `personabench run --shard i/n`"
        in refused("merge")
    )
    personabench(*RUN, "--shard", "1/2")
    personabench("run", "-b", "scripted", "-t", "lamp4", "-m", "none", "-n", "10", "--shard", "2/2")
    assert "no run 'ffffffff' has shards" in refused("merge", "ffffffff")
    ended = personabench("merge")
    assert (
        ended.code == 2 and "results/runs/lamp4/none/" in ended.out and "lamp4/rag" not in ended.out
    )
    assert (
        "runs/lamp4/rag/scripted/" in ended.err
        and "is not complete: shard 2/2 did not run" in ended.err
    )
    none, rag = personabench("merge", "--partial", "--json").json
    assert (none["owed"], rag["status"], rag["owed"]) == (0, "incomplete", 11 - rag["n"])
    assert "was not split by 7 but by 2" in refused("merge", "--shards", "7")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shard", "0/2"], "--shard 0/2: write i/n with i from 1 to n, such as 3/8"),
        (["--shards", "2"], "--shards can only be used with --executor ray"),
        (["--ray-options", "{}"], "--ray-options can only be used with --executor ray"),
        (
            ["--results", "s3://bucket/results"],
            "--results s3://bucket/results: a URL can only be used with --executor ray",
        ),
        (["--executor", "ray"], "write --shards N, without --shard"),
        (
            ["--executor", "ray", "--shards", "2", "--shard", "1/2"],
            "write --shards N, without --shard",
        ),
        (
            ["--executor", "ray", "--shards", "2", "--ray-options", "num_gpus=1"],
            "write a JSON object",
        ),
        (["--executor", "ray", "--shards", "2", "--ray-options", "[1]"], "write a JSON object"),
        (
            ["--executor", "ray", "--shards", "2", "--results", "no-such://bucket"],
            "--results no-such://bucket: ",
        ),
        (["--grid", "k"], "--grid k: write key=value,value"),
        (["--grid", "rag.kk=1,2"], "method rag has no parameter 'kk'; did you mean k?"),
        (["--grid", "dpl.k=1,2"], "'dpl' is not part of this run"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    refused: Callable[..., str], words: list[str], message: str
) -> None:
    assert message in refused(*RUN, *words)


def test_a_grid_is_a_run_for_every_combination(personabench: Command) -> None:
    grid = ("--grid", "rag.k=1,2", "--grid", "rag.retriever=recency,random")
    rows = personabench(*RUN, *grid, "--dry-run", "--json").json
    assert [row["method"] for row in rows] == ["none", *["rag"] * 4]
    assert "rag (k=1, retriever=random)" in personabench(*RUN, *grid, "--dry-run").out
    summaries = personabench(*RUN, *grid, "--json").json
    asked = [(each["params"]["k"], each["params"]["retriever"]) for each in summaries[1:]]
    assert asked == [(1, "recency"), (1, "random"), (2, "recency"), (2, "random")]
    assert len({each["fingerprint"] for each in summaries}) == 5


def test_what_the_page_shows_runs_as_typed(personabench: Command) -> None:
    examples = re.findall(r"^\$ personabench (.*)$", (DOCS / "scale.md").read_text(), re.M)
    assert len(examples) >= 5
    for words in map(shlex.split, examples):
        ended = personabench(*words)
        assert ended.code == 0, (words, ended.err)


def test_the_record_of_a_shard_is_documented(personabench: Command, tmp_path: Path) -> None:
    personabench(*RUN, "--shard", "1/2")
    for path in (tmp_path / "results/shards/1-of-2/runs").rglob("shard.json"):
        assert set(json.loads(path.read_text())) == documented("shard.json")
