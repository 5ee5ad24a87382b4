"""Response files of LaMP-QA on the command line."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Command

from personabench.tasks.lampqa import LampQA


def test_acceptance_13_missing_and_extra_ids_of_responses_are_named(
    personabench: Command, tmp_path: Path
) -> None:
    ids = [name for name, _ in LampQA().open("test", None).index()]
    responses = {name: [{"output": "Go."}] for name in ids}
    card = tmp_path / "card.yaml"
    card.write_text("method: other\nmodel: m\ntrained_on: none\n")
    judge = ("--judge-backend", "scripted")
    command = ("import", "--task", "lampqa", "--card", str(card), *judge, "--predictions")

    extra = tmp_path / "extra.json"
    extra.write_text(json.dumps({**responses, "9_9_9": [{"output": "x"}]}))
    refused = personabench(*command, str(extra))
    assert refused.code == 2 and "9_9_9" in refused.err

    missing = tmp_path / "missing.json"
    missing.write_text(json.dumps({name: responses[name] for name in ids[1:]}))
    printed = personabench(*command, str(missing))
    assert printed.code == 1 and ids[0] in printed.err + printed.out
