"""Methods inside of wrappers on the command line: `rag+remind`."""

from __future__ import annotations

from collections.abc import Callable

from conftest import Command

from personabench.cli.completion import complete_methods


def test_wrappers_are_listed_with_their_parameters(
    personabench: Command, refused: Callable[..., str]
) -> None:
    listed = personabench("list", "wrappers", "--json").json
    assert {"remind", "cot", "self_critic", "self_recheck"} <= {row["name"] for row in listed}
    assert "self_critic.critique_tokens=150" in personabench("list", "wrappers", "self_critic").out
    facts = personabench("list", "methods", "rag+self_recheck", "--json").json
    assert [item["name"] for item in facts["parameters"]][-1] == "self_recheck_max_tokens"
    assert "maximum tokens" in facts["parameters"][-1]["about"]
    assert "did you mean remind" in refused("list", "wrappers", "remnid")


def test_a_composed_method_runs_and_is_compared(personabench: Command) -> None:
    names = ["none", "rag", "rag+remind"]
    ended = personabench("run", "-m", ",".join(names), "-t", "lamp4", "-b", "scripted", "-n", "9")
    assert ended.code == 0, ended.err
    rows = personabench("leaderboard", "--format", "json").json
    assert [row["method"] for row in rows] == names
    assert [row["letter"] for row in rows] == ["a", "b", "c"]
    assert rows[-1]["differs"] == ["inside of remind"]
    assert personabench("check", "method", "rag+self_recheck").code == 0


def test_wrappers_are_completed_after_a_plus_sign() -> None:
    assert complete_methods("none,rag+self_re") == ["none,rag+self_recheck"]
