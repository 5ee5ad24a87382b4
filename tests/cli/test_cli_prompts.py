"""`--wording`, `--prompts` and `show --prompts`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Command

RUN = ("run", "--method", "summary", "--task", "lamp4", "--limit", "1", "--json")


def run(personabench: Command, *words: str) -> dict[str, Any]:
    ended = personabench(*RUN, *words)
    assert ended.code == 0, ended
    summaries: list[dict[str, Any]] = json.loads(ended.out)
    return summaries[0]


def spec(summary: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((Path(summary["folder"]) / "spec.json").read_text())
    return fields


@pytest.mark.variants
@pytest.mark.model
def test_the_packaged_model_gets_the_compact_wording(personabench: Command) -> None:
    words = ("--max-tokens", "2", "--set", "k=0", "--set", "summary_max_tokens=4")
    compact = run(personabench, *words)
    assert "prompts" not in spec(compact)
    assert "wording" not in compact["changed"]
    assert (
        run(personabench, *words, "--wording", "compact")["fingerprint"] == (compact["fingerprint"])
    )

    full = run(personabench, *words, "--wording", "full")
    assert len(spec(full)["prompts"]) == 64
    assert full["changed"]["wording"] == "full"
    # The profile of the other wording is another one.
    assert full["usage"]["profile"]["cached"] == 0

    board = personabench("leaderboard", "--format", "md").out
    assert board.count("| summary (") == 2
    assert board.count("| summary (k=0, summary_max_tokens=4, wording=full") == 1


def test_other_models_get_the_full_wording(personabench: Command) -> None:
    full = run(personabench, "--backend", "scripted")
    compact = run(personabench, "--backend", "scripted", "--wording", "compact")
    assert full["changed"] == {}
    assert compact["changed"] == {"wording": "compact"}
    assert spec(full)["prompts"]
    assert "prompts" not in spec(compact)


def test_printed_texts_are_the_run_that_they_came_from(
    personabench: Command, tmp_path: Path
) -> None:
    printed = personabench("show", "--prompts", "--method", "summary", "--wording", "full").out
    path = tmp_path / "mine.toml"
    path.write_text(printed, encoding="utf-8")

    scripted = ("--backend", "scripted")
    full = run(personabench, *scripted, "--wording", "full")
    same = run(personabench, *scripted, "--wording", "full", "--prompts", str(path))
    assert same["fingerprint"] == full["fingerprint"]

    path.write_text(printed.replace("Base every statement", "Rest all statements"))
    other = run(personabench, *scripted, "--prompts", str(path))
    assert other["fingerprint"] != full["fingerprint"]
    assert other["changed"]["prompts"].startswith("mine-")

    sample = json.loads(personabench("show", other["folder"], _first_sample(other), "--json").out)
    requests = json.dumps(sample["calls"])
    assert "Rest all statements" in requests
    assert "Base every statement" not in requests


def _first_sample(summary: dict[str, Any]) -> str:
    lines = (Path(summary["folder"]) / "predictions.jsonl").read_text().splitlines()
    sample_id: str = json.loads(lines[0])["sample_id"]
    return sample_id


def test_a_preview_shows_the_replaced_text(personabench: Command, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("summary:\n  notes:\n    text: 'Mind this: {summary}'\n")
    preview = ("show", "--dry-run", "--method", "summary", "--task", "lamp4", "--sample", "310")
    assert "Mind this:" in personabench(*preview, "--prompts-file", str(path)).out
    assert "Take this description" in personabench(*preview, "--wording", "full").out
    assert "Take this description" not in personabench(*preview).out


def test_a_method_without_texts_says_so(personabench: Command) -> None:
    ended = personabench("show", "--prompts", "--method", "rag")
    assert ended.code == 0
    assert "no texts that can be replaced" in ended.out

    listed = json.loads(personabench("show", "--prompts", "--method", "rag", "--json").out)
    assert listed["prompts"] == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[summary.profil]\nuser = "{records}"', "method 'summary', stage 'profil'"),
        ('[summary.profile]\nuser = "{record}"', "no slot {record}; did you mean records?"),
        ('[summary.profile]\nuser = "Nothing"', "no text has the slot {records}"),
        ('[sumary.profile]\nuser = "{records}"', "method 'sumary': summary has no texts"),
        ("[summary", "mine.toml"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "show"])
def test_texts_that_cannot_work_end_with_one_message(
    personabench: Command, tmp_path: Path, verb: str, text: str, problem: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    words = ("show", "--prompts", "--method", "summary", "--prompts-file", str(path))
    if verb == "run":
        words = (*RUN, "--backend", "scripted", "--prompts", str(path))
    ended = personabench(*words)
    assert ended.code == 2
    assert problem in ended.err
    assert "mine.toml" in ended.err
    assert "Traceback" not in ended.err


def test_an_unknown_wording_is_refused(personabench: Command) -> None:
    ended = personabench(*RUN, "--backend", "scripted", "--wording", "short")
    assert ended.code == 2
    assert "short" in ended.err
