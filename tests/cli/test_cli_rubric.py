"""A rubric from a file: judged by a server on loopback, ranked, tested, and checked by labels."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from loopback import JsonHandler, LoopbackServer, serving

RUBRIC = """
name: helpful
criteria:
  correct: Does the headline say what happened?
  polite:
    question: Is it polite?
    weight: 3
scale: [1, 5]
anchors: {1: not at all, 5: fully}
shows: [request, history, reference]
primary: PRIMARY
"""


class JudgeServer:
    """Scores an answer by its letters, so that scores differ and can be foretold."""

    def __init__(self) -> None:
        judge = self
        self.requests: list[dict[str, Any]] = []
        # In place of the scores, if it is not empty.
        self.verdict = ""
        self.criteria: tuple[str, ...] = ()

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                self.send_models("judge-1")

            def do_POST(self) -> None:
                body = self.read_json()
                judge.requests.append(body)
                text = judge.verdict or judge.answer(body["messages"][-1]["content"])
                self.send_answer(text, input_tokens=9000)

        self.http = LoopbackServer(Handler)
        self.url = f"{self.http.url}/v1"

    def answer(self, question: str) -> str:
        answer = question.rpartition("Answer to score:\n")[2]
        score = 1 + sum(map(ord, answer)) % 5
        if "Claim:" in question:
            return "yes" if score > 3 else "no"
        if "Aspects of the answer:" in question:
            count = len(re.findall(r"^A\d+:", question, re.MULTILINE))
            lines = [f"A{n}: U{n}, content yes, style partly" for n in range(1, count + 1)]
            return "\n".join(lines)
        if question.startswith("Text:"):
            return "1: what it is about\n2: how it ends"
        if "Questions:" in question and "Reply:" in question:
            return "topic: yes\nlength: no\nwords: na"
        if "Questions:" in question:
            return "These matter.\nRelevant: topic, length, words, weather"
        if "Answer to score:" in question and "need" in self.criteria:
            return "\n".join(f"{name}: {score}" for name in self.criteria)
        return f"It says it.\ncorrect: {score}\n**polite**: {6 - score}"

    @property
    def scored(self) -> list[str]:
        """The user's message of each request to score, without probes of the server."""
        messages = [body["messages"][-1]["content"] for body in self.requests]
        return [message for message in messages if "Answer to score:" in message]


@pytest.fixture
def judge() -> Iterator[JudgeServer]:
    server = JudgeServer()
    with serving(server.http):
        yield server


def write_rubric(path: Path, *, primary: bool = False, **changes: str) -> Path:
    text = RUBRIC.replace("PRIMARY", str(primary).lower())
    for old, new in changes.items():
        text = text.replace(old, new)
    path.write_text(text)
    return path


def words(judge: JudgeServer, rubric: Path, *more: str) -> tuple[str, ...]:
    server = ("--judge-backend", "openai", "--judge-base-url", judge.url)
    model = ("--judge-model", "judge-1", "--judge-rubric", str(rubric))
    return ("run", "-t", "lamp4", "-b", "scripted", "-n", "9", *server, *model, *more)


def test_a_rubric_adds_metrics_and_changes_no_answer(
    personabench: Command, judge: JudgeServer, tmp_path: Path
) -> None:
    plain = personabench("run", "-t", "lamp4", "-b", "scripted", "-n", "9", "-m", "rag", "--json")
    rubric = write_rubric(tmp_path / "rubric.yaml")
    (summary,) = personabench(*words(judge, rubric, "-m", "rag", "--json")).json
    assert summary["fingerprint"] == plain.json[0]["fingerprint"]
    assert summary["primary"] == "rouge-1"
    scores = summary["metrics"]["official"]
    assert scores["helpful"] == pytest.approx(
        (scores["helpful.correct"] + 3 * scores["helpful.polite"]) / 4
    )
    assert summary["provenance"]["rubric"]["name"] == "helpful"
    assert len(judge.scored) == summary["n"]
    assert "Earlier records of this user:" in judge.scored[0]

    # The same rubric is not paid for again; other words are another judge.
    assert personabench(*words(judge, rubric, "-m", "rag")).code == 0
    assert len(judge.scored) == summary["n"]
    stricter = write_rubric(tmp_path / "other.yaml", fully="without a doubt")
    (other,) = personabench(*words(judge, stricter, "-m", "rag", "--json")).json
    assert other["judge"] != summary["judge"]
    assert len(judge.scored) == 2 * summary["n"]


def test_a_primary_rubric_ranks_and_is_tested(
    personabench: Command, judge: JudgeServer, tmp_path: Path
) -> None:
    rubric = write_rubric(tmp_path / "rubric.yaml", primary=True)
    ended = personabench(*words(judge, rubric, "-m", "none,rag", "-n", "37"))
    assert ended.code == 0, ended.err
    rows = personabench("leaderboard", "--json", "--task", "lamp4").json
    rag = next(row for row in rows if row["label"] == "rag")
    assert rag["primary"] == "helpful"
    assert rag["helpful/low"] is not None
    assert rag["gain"] is not None and rag["gain_p"] is not None


def test_show_names_the_judge_its_rubric_and_that_nothing_failed(
    personabench: Command, judge: JudgeServer, tmp_path: Path
) -> None:
    rubric = write_rubric(tmp_path / "rubric.yaml", primary=True)
    assert personabench(*words(judge, rubric, "-m", "rag")).code == 0
    lines = personabench("show", "last").out.splitlines()
    shown = {line[1:16].strip(): line for line in lines}
    assert "judge-1 (prompt " in shown["judge"]
    assert "rubric helpful, 1 to 5" in shown["judge"]
    assert "polite (weight 3): Is it polite?" in shown["judge"]
    assert "samples failed 0, owed 0, unparsed 0" in shown["failures"]
    assert "unjudged 0, judge errors 0" in shown["failures"]
    assert "max_tokens of the task, below" in shown["sampling"]
    assert personabench("report", "-o", "report.html").code == 0
    page = Path("report.html").read_text()
    assert re.search(r'"judges":\["judge-1 \(prompt \w{8}\)"\]', page)


def test_shuffled_histories_are_not_shown_to_the_judge(
    personabench: Command, judge: JudgeServer, tmp_path: Path
) -> None:
    rubric = write_rubric(tmp_path / "rubric.yaml")
    histories = []
    for control in ("own", "shuffled"):
        judge.requests.clear()
        assert personabench(*words(judge, rubric, "-m", "rag", "--history", control)).code == 0
        # The codes around texts depend on the answer, which shuffled histories change.
        scored = [re.sub(r"<<<\w+|\w+>>>", "", text) for text in judge.scored]
        histories.append(sorted(text.partition("Reference answer:")[0] for text in scored))
    assert histories[0] == histories[1]


def test_labels_say_how_far_to_trust_the_judge(
    personabench: Command, judge: JudgeServer, tmp_path: Path
) -> None:
    rubric = write_rubric(tmp_path / "rubric.yaml")
    (summary,) = personabench(*words(judge, rubric, "-m", "rag", "-n", "37", "--json")).json
    (file,) = Path(summary["folder"]).glob("judgements/*.jsonl")
    asked = personabench("judge-report", file, "--ask", "labels.jsonl")
    assert "labels 0 of 20" in asked.out
    items = [json.loads(line) for line in Path("labels.jsonl").read_text().splitlines()]
    assert len(items) == 20
    assert items[0]["labels"] == {"correct": None, "polite": None}
    assert items[0]["question"] and items[0]["answer"]
    # The labeller sees what the judge saw: the user's records too, and the scale.
    assert items[0]["history"] and items[0]["scale"] == [1, 5]
    assert all(record in judge_text(judge) for record in items[0]["history"])
    assert "replace each null by your score from 1 to 5" in asked.err
    assert "scores" not in items[0]

    judged = {line["sample_id"]: line["values"]["scores"] for line in read_lines(file)}
    lines = [
        {"id": item["id"], "labels": {name: judged[item["id"]][name] for name in ("correct",)}}
        for item in items
    ]
    # A rating of the report's sample browser, of this run and of another one.
    run = summary["fingerprint"][:8]
    lines += [{"run": "00000000", "id": items[0]["id"], "label": 1}]
    Path("labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = personabench("judge-report", file, "--labels", "labels.jsonl", "--json").json
    (agreement,) = report[str(file)]["agreement"]
    assert (agreement["criterion"], agreement["n"], agreement["exact"]) == ("correct", 20, 1.0)
    assert agreement["correlation"] == pytest.approx(1.0)
    printed = personabench("judge-report", file, "--labels", "labels.jsonl").out
    assert "correct: orders answers much as you do" in " ".join(printed.split())

    Path("ratings.jsonl").write_text(
        "".join(
            json.dumps({"run": run, "id": sample, "label": 6 - scores["correct"]}) + "\n"
            for sample, scores in judged.items()
        )
    )
    report = personabench("judge-report", file, "--labels", "ratings.jsonl", "--json").json
    assert report[str(file)]["agreement"][0]["criterion"] == "total"


def judge_text(judge: JudgeServer) -> str:
    return "\n".join(judge.scored)


def test_labels_off_the_scale_and_of_no_criterion_are_refused(
    personabench: Command, refused: Callable[..., str], judge: JudgeServer, tmp_path: Path
) -> None:
    rubric = write_rubric(tmp_path / "rubric.yaml")
    (summary,) = personabench(*words(judge, rubric, "-m", "rag", "--json")).json
    (file,) = Path(summary["folder"]).glob("judgements/*.jsonl")
    sample = read_lines(file)[0]["sample_id"]
    labels = tmp_path / "labels.jsonl"

    def problem(**line: Any) -> str:
        good = json.dumps({"id": sample, "labels": {"correct": 5, "polite": None}})
        labels.write_text(f"{good}\n{json.dumps({'id': sample, **line})}\n")
        return refused("judge-report", file, "--labels", labels)

    assert "line 2: 'polite' is 9; the rubric's scale is 1 to 5" in problem(labels={"polite": 9})
    assert "line 2: label is 0.5; the rubric's scale is 1 to 5" in problem(label=0.5)
    assert "no criterion 'polte'; it has correct, polite" in problem(labels={"polte": 4})
    # The run stands for its file.
    assert "'polite' is 9" in problem(labels={"polite": 9})
    labels.write_text(json.dumps({"id": sample, "labels": {"polite": 2}}) + "\n")
    for name in ("last", summary["fingerprint"][:8], summary["folder"]):
        assert str(file) in personabench("judge-report", name, "--labels", labels, "--json").json
    assert "no such file" in refused("judge-report", "nothing.jsonl")
    assert "no run matches 'nothing'" in refused("judge-report", "nothing")
    assert personabench("run", "-t", "lamp4", "-b", "scripted", "-n", "9", "-m", "none").code == 0
    assert "has no judge" in refused("judge-report", "last")
    # Ratings of another run, which may have had another rubric, are passed over.
    labels.write_text(json.dumps({"run": "00000000", "id": sample, "label": 90}) + "\n")
    assert personabench("judge-report", file, "--labels", labels).code == 0


def test_unreadable_verdicts_say_what_the_judge_wrote_and_how_to_ask_again(
    personabench: Command, judge: JudgeServer, tmp_path: Path
) -> None:
    rubric = write_rubric(tmp_path / "rubric.yaml", primary=True)
    judge.verdict = "I would give it four points."
    ended = personabench(*words(judge, rubric, "-m", "rag"))
    assert "9 answers are unjudged: no reply of the judge held a score" in ended.err
    assert "rag: 9 answers are unjudged and have no score" in ended.out
    (folder,) = Path("results/runs/lamp4/rag").glob("*/*")
    log = sorted(folder.glob("attempts/*.log"))[-1].read_text()
    assert "no score could be read in 4 replies of the judge" in log
    assert "I would give it four points." in log

    judge.verdict = ""
    # A repeated command leaves them as they are; without the file, all are judged again.
    assert "9 answers are unjudged" in personabench(*words(judge, rubric, "-m", "rag")).err
    (file,) = folder.glob("judgements/*.jsonl")
    file.unlink()
    ended = personabench(*words(judge, rubric, "-m", "rag", "--json"))
    assert "unjudged" not in ended.json[0]["counters"]
    assert ended.json[0]["metrics"]["official"]["helpful"] > 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("boolean", {"boolean": 0.5, "boolean.content": 1.0, "boolean.style": 0.0}),
        ("expert", {"expert": 0.75, "expert.content": 1.0, "expert.style": 0.5}),
        ("bespoke", None),
    ],
)
def test_rubrics_of_the_package_are_named_and_judge_by_their_protocol(
    personabench: Command, judge: JudgeServer, name: str, expected: dict[str, float] | None
) -> None:
    judge.criteria = ("need", "depth", "tone", "style")
    ended = personabench(*words(judge, Path(name), "-m", "rag", "--json"))
    assert ended.code == 0, ended.err
    (summary,) = ended.json
    scores = summary["metrics"]["official"]
    if expected is None:
        four = [scores[f"bespoke.{criterion}"] for criterion in judge.criteria]
        assert scores["bespoke"] == pytest.approx((sum(four) + scores["bespoke.recall"]) / 5)
        assert min(four) >= 20
    else:
        assert {metric: scores[metric] for metric in expected} == expected
    if name == "boolean":
        counts = [scores[f"boolean.{part}"] for part in ("relevant", "na", "unanswered")]
        assert counts == [3.0, 1.0, 0.0]
        # One selection for each request and user, whatever the number of answers.
        texts = [body["messages"][-1]["content"] for body in judge.requests]
        selections = [text for text in texts if "Questions:" in text and "Reply:" not in text]
        assert len(selections) == summary["n"]
        assert personabench(*words(judge, Path(name), "-m", "none")).code == 0
        texts = [body["messages"][-1]["content"] for body in judge.requests]
        repeated = [text for text in texts if "Questions:" in text and "Reply:" not in text]
        assert len(repeated) == len(selections), "another method faces the same questions"
    assert summary["provenance"]["rubric"]["protocol"] == {"expert": "aspects"}.get(name, name)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rubrics_that_cannot_work_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    rubric = write_rubric(tmp_path / "rubric.yaml")
    run = ("run", "-m", "none", "-b", "scripted", "--judge-rubric", rubric)
    assert "name the judge" in refused(*run, "-t", "lamp4")
    judged = (*run, "--judge-backend", "scripted")
    assert "no text, but ordinal" in refused(*judged, "-t", "lamp3")
    assert "has a judge of its own" in refused(*judged, "-t", "prefdisco")
    assert "with --shard" in refused(*judged, "-t", "lamp4", "--shard", "1/2")
    assert "or one of: bespoke, boolean, expert" in refused(
        "run",
        "-m",
        "none",
        "-t",
        "lamp4",
        "--judge-rubric",
        "bespok",
        "--judge-backend",
        "scripted",
    )
    rubric.write_text("criteria: {recall: b}\nprotocol: bespoke")
    assert "'recall' is a metric of the protocol" in refused(*judged, "-t", "lamp4")
    rubric.write_text("criteria: {a: b}\nprotocol: bespoke\nscale: [1, 3]")
    assert "grades from 1 to 5" in refused(*judged, "-t", "lamp4")
    rubric.write_text("criteria: {a: {question: b, category: c}}")
    assert "categories belong to the protocol boolean" in refused(*judged, "-t", "lamp4")
    rubric.write_text("criteria: {}")
    assert "criteria is empty" in refused(*judged, "-t", "lamp4")
    rubric.write_text("criteria: {a: b}\nscle: [1, 3]")
    assert "unknown field `scle`" in refused(*judged, "-t", "lamp4")
