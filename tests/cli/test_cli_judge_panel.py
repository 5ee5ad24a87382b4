"""Several judges of the same stored answers, on a server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from loopback import JsonHandler, LoopbackServer, serving

pytestmark = pytest.mark.usefixtures("few_draws")

RUN = ("run", "-b", "scripted", "-t", "locomo", "-n", "8")


class Judges:
    """The model `kind` accepts everything, `hard` accepts under the generous wording alone."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        judges = self

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                self.send_models("kind", "hard")

            def do_POST(self) -> None:
                body = self.read_json()
                judges.bodies.append(body)
                system = body["messages"][0]["content"]
                accepts = body["model"] == "kind" or "about the same thing" in system
                text = f"So it is.\nVerdict: {'right' if accepts else 'wrong'}"
                if "commits itself to nothing" in system:
                    text = "It was about that time, as far as one can tell."
                self.send_answer(text, input_tokens=9000)

        self.http = LoopbackServer(Handler)
        self.url = f"{self.http.url}/v1"


@pytest.fixture
def judges(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judges]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("JUDGE_API_KEY", "x")
    server = Judges()
    with serving(server.http):
        yield server


def test_judges_and_wordings_are_compared_and_kept(personabench: Command, judges: Judges) -> None:
    folders = [row["folder"] for row in personabench(*RUN, "-m", "none,rag", "--json").json]
    panel = (
        *("judge-panel", *folders, "--judges", "openai:kind,openai:hard"),
        *("--prompts", "strict,generous", "--judge-base-url", judges.url, "--vague"),
    )
    first = personabench(*panel, "--json")
    assert first.code == 0, first.err
    report = first.json
    columns = {(v["column"]["judge"], v["column"]["prompt"]): v for v in report["verdicts"]}
    assert {key: verdict["score"] for key, verdict in columns.items()} == {
        ("kind", "strict"): 1.0,
        ("kind", "generous"): 1.0,
        ("hard", "strict"): 0.0,
        ("hard", "generous"): 1.0,
    }
    flips = {
        (a["first"]["prompt"], a["second"]["judge"], a["second"]["prompt"]): a["flips"]
        for a in report["agreements"]
        if a["first"]["judge"] == "kind"
    }
    judged = len(columns["kind", "strict"]["scores"])
    # Adversarial questions are judged by a rule, on which both judges agree.
    assert 0 < flips["strict", "hard", "strict"] < 2 * judged + 1
    assert flips["strict", "hard", "generous"] == 0
    vague = {(v["column"]["judge"], v["column"]["prompt"]): v for v in report["vague"]}
    assert vague["kind", "strict"]["passed"] > 0 == vague["hard", "strict"]["passed"]
    assert {column["missing"] for column in report["vague"]} == {0}
    assert {verdict["unjudged"] for verdict in report["verdicts"]} == {0}

    assert report["vague_writing"]["calls"] > 0
    costs = {(c["column"]["judge"], c["column"]["prompt"]): c for c in report["vague_costs"]}
    assert costs.keys() == columns.keys() and costs["hard", "strict"]["calls"] > 0

    calls = len(judges.bodies)
    text = personabench(*panel)
    assert "kind, writing vague answers: " in text.out
    assert "hard (strict), vague answers: " in text.out
    assert "#1" in text.out and "vague answers" in text.out and "verdicts differ" in text.out
    assert len(judges.bodies) == calls, "judgements are kept, and the model is never called"


def test_human_labels_stand_beside_the_judges(
    personabench: Command, judges: Judges, tmp_path: Path
) -> None:
    rows = personabench(*RUN, "-m", "none,rag", "--json").json
    lines = Path(rows[0]["folder"], "predictions.jsonl").read_text().splitlines()
    names = [json.loads(line)["sample_id"] for line in lines]
    labels = [{"id": name, "label": number % 2} for number, name in enumerate(names[:6])]
    labels.append({"id": names[6], "label": None})
    labels.append({"id": names[7], "label": 1, "run": rows[1]["fingerprint"][:8]})
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(map(json.dumps, labels)))
    panel = (
        *("judge-panel", *(row["folder"] for row in rows), "--judges", "openai:kind"),
        *("--judge-base-url", judges.url, "--labels", str(path)),
    )
    report = personabench(*panel, "--json").json
    people = [v for v in report["verdicts"] if v["column"]["judge"] == "labels"]
    assert [len(verdict["scores"]) for verdict in people] == [6, 7]
    assert [verdict["score"] for verdict in people] == [0.5, pytest.approx(4 / 7)]
    (agreement,) = report["agreements"]
    assert agreement["second"]["judge"] == "labels" and agreement["flips"] > 0
    text = personabench(*panel)
    assert "6 answers have a human label" in text.out and "kind and labels: " in text.out

    path.write_text(json.dumps({"id": names[0], "label": 7}))
    beyond = personabench(*panel)
    assert beyond.code == 2 and "expected 0 to 1" in beyond.err
    path.write_text(json.dumps({"id": "nobody", "label": 1}))
    unknown = personabench(*panel)
    assert unknown.code == 2 and "no label is of an answer of these runs" in unknown.err


def test_a_leaderboard_states_its_judge_and_marks_rows_that_change_their_rank(
    personabench: Command, judges: Judges
) -> None:
    judge = ("--judge-backend", "openai", "--judge-model", "kind", "--judge-base-url", judges.url)
    rows = personabench(*RUN, "-m", "none,rag", *judge, "--json").json
    version = rows[0]["judge_prompt"]
    assert len(version) == 8 and rows[0]["judge_options"] == {"judge": "strict"}
    panel = ("judge-panel", *(row["folder"] for row in rows), "--judge-base-url", judges.url)
    personabench(*panel, "--judges", "openai:kind,openai:hard")
    board = personabench("leaderboard", "-t", "locomo").out
    assert f"judge kind (strict, prompt {version})" in " ".join(board.split())
    assert "Ranks in judged are the same under every judge" in " ".join(board.split())

    # Under one judge the stored scores of the panel are made to differ.
    (path,) = Path("results", "panels").glob("*.json")
    stored = json.loads(path.read_text())
    first, second = stored["runs"].values()
    first["scores"], second["scores"] = [0.9, 0.1], [0.5, 0.5]
    path.write_text(json.dumps(stored))
    marked = personabench("leaderboard", "-t", "locomo", "--json").json
    assert [row["rank_changes"] for row in marked] == [True, True]
    text = " ".join(personabench("leaderboard", "-t", "locomo").out.split())
    assert "rag ‡" in text and "another rank in judged under another judge or prompt" in text

    # A judge without a readable verdict ranks nobody, and one order alone is no comparison.
    first["scores"], second["scores"] = [0.9, None], [0.5, None]
    path.write_text(json.dumps(stored))
    board = " ".join(personabench("leaderboard", "-t", "locomo").out.split())
    assert "under every judge" not in board and "under another judge" not in board

    # A run whose answers are others than those that were judged is not marked.
    first["scores"], second["scores"] = [0.9, 0.1], [0.5, 0.5]
    first["predictions"] = "0" * 64
    path.write_text(json.dumps(stored))
    other = personabench("leaderboard", "-t", "locomo", "--json").json
    assert not any("rank_changes" in row for row in other)


def test_a_panel_refuses_what_it_cannot_judge(personabench: Command, judges: Judges) -> None:
    (run,) = personabench(*RUN, "-m", "none", "--json").json
    panel = ("judge-panel", "--judges", "openai:kind", "--judge-base-url", judges.url)
    wrong = personabench(*panel, "last", "--prompts", "x")
    assert wrong.code == 2 and "has the wordings strict, generous" in wrong.err
    personabench("run", "-b", "scripted", "-t", "lamp4", "-n", "1", "-m", "none")
    unjudged = personabench(*panel, "last")
    assert unjudged.code == 2 and "lamp4 has no judge of its own" in unjudged.err
    nobody = personabench("judge-panel", run["folder"], "--judges", ",")
    assert nobody.code == 2 and "names no judge" in nobody.err
