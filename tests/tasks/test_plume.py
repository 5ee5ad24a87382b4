"""PLUME: the user's own text, the distance from it, the judge, and what methods may see of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from personabench.errors import DataError, UsageError
from personabench.methods.prose import Prose
from personabench.metrics.edits import measure_edit
from personabench.models.backends.base import BackendOptions
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.tasks import prelude
from personabench.tasks.prelude import PlumeEmail, PlumeSumm, judging, scoring
from personabench.tasks.prelude.data import draw_rows
from personabench.tasks.prelude.plume import PAPER_SEEDS, split_preference
from personabench.testing import trial
from personabench.types import Request, Sampling

pytestmark = pytest.mark.usefixtures("quick_vectors")

EXAMPLE = Path(prelude.__file__).parent / "sample"
ONE = PlumeSumm.Params(seeds="7", rounds=5, accuracy="off")


def content(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


def write(request: Request) -> str:
    """A user's text that differs for each preference, in a fence that does not belong to it."""
    first = re.findall(r"^- (.*)$", content(request), re.MULTILINE)[0]
    return f"```\nMy text, for I {first}.\n```"


def score(request: Request) -> str:
    text = content(request)
    if "Guess:" in text:
        return "Some of it.\nVerdict: 3"
    return "All of it.\nVerdict: 1" if "Habits:" in text else "A little.\n**Verdict: -2**"


def test_a_trajectory_is_five_documents_of_each_source_with_the_papers_seeds() -> None:
    for cls, sources in ((PlumeSumm, 5), (PlumeEmail, 4)):
        dataset = cls().open("all", None)
        users = Counter(user for _, user in dataset.index())
        assert users == {f"trajectory-{seed}": 5 * sources for seed in PAPER_SEEDS}
        first = [s for s in dataset.samples() if s.user_id == "trajectory-1235"]
        assert set(Counter(s.hidden["source"] for s in first).values()) == {5}
        drawn = [f"-{row + 1}" for _, row in draw_rows([8] * sources, 5 * sources, 1235)]
        assert all(s.hidden["doc_id"].endswith(row) for s, row in zip(first, drawn, strict=True))
        (warning,) = dataset.warnings
        assert "5 trajectories are too few" in warning and "task.seeds" in warning
    assert len(PlumeSumm(ONE).open("all", None).index()) == 5


def test_four_preferences_of_each_source_are_distinct_and_none_of_prelude() -> None:
    for env in ("summ", "email"):
        own = json.loads((EXAMPLE / f"plume_{env}.json").read_text())["sources"]
        parts = [split_preference(source["preference"]) for source in own]
        assert [len(components) for components in parts] == [4] * len(own)
        every = [component for components in parts for component in components]
        assert len(set(every)) == len(every)
        others = json.loads((EXAMPLE / f"{env}.json").read_text())["sources"]
        assert [source["name"] for source in own] == [source["name"] for source in others]
        assert not {s["preference"] for s in own} & {s["preference"] for s in others}


def test_distance_is_over_the_longer_text_and_the_user_never_sees_the_draft() -> None:
    written: list[Request] = []

    def user(request: Request) -> str:
        written.append(request)
        return write(request)

    task = PlumeSumm(ONE)
    result = trial("none", task, answer=lambda _: "My text, a DRAFT.", roles={"simulator": user})
    assert result.summary is not None and len(written) == 5
    distances = []
    for line in result.predictions:
        interaction = line.interaction
        first, *_ = split_preference(interaction["preference"])
        assert interaction["final"] == f"My text, for I {first}."
        assert interaction["raw"].startswith("```") and line.flags["cleaned_text"] == 1
        edit = measure_edit("My text, a DRAFT.", interaction["final"])
        assert interaction["cost"] == edit.cost
        distances.append(edit.cost / max(edit.draft_tokens, edit.final_tokens))
    metrics = result.summary.metrics["official"]
    assert metrics["distance"] == pytest.approx(sum(distances) / 5) and 0 < min(distances) < 1
    assert metrics["preference_coverage"] == 0
    for request in written:
        assert "DRAFT" not in content(request)
        assert request.temperature == 0 and request.top_p == 1
        assert len(re.findall(r"^- ", content(request), re.MULTILINE)) == 4


def test_two_empty_texts_have_no_distance_and_an_equal_text_none_either() -> None:
    def measure(draft: str, final: str) -> Any:
        edit = measure_edit(draft, final)
        interaction = {
            "cost": edit.cost,
            "draft_tokens": edit.draft_tokens,
            "final_tokens": edit.final_tokens,
            "preference": "x",
        }
        return scoring.measure_texts(interaction, ["x"], "off")

    assert measure("", "")["distance"] == 0.0
    assert measure("One two.", "One two.")["distance"] == 0.0
    assert measure("", "One two.") == {"distance": 1.0, "edit_cost": 3, "preference_coverage": 0.0}
    assert measure("One two.", "")["distance"] == 1.0


def test_bertscore_compares_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scorer:
        def score(self, candidates: list[str], references: list[str]) -> Any:
            equal = [float(c == r) for c, r in zip(candidates, references, strict=True)]
            return equal, equal, equal

    monkeypatch.setattr(scoring, "_load_bertscore", Scorer)
    monkeypatch.setattr(PlumeSumm, "describe_missing", lambda self: "")
    params = PlumeSumm.Params(seeds="7", rounds=5, accuracy="bertscore")
    roles = {"simulator": lambda _: "A text for BERTScore."}
    for answer, expected in (("A text for BERTScore.", 1.0), ("Another one for BERTScore.", 0.0)):
        result = trial("none", PlumeSumm(params), answer=lambda _, a=answer: a, roles=roles)
        assert result.summary is not None
        assert result.summary.metrics["official"]["bertscore"] == expected
    assert "bertscore" not in {metric.name for metric in PlumeSumm(ONE).metrics}

    monkeypatch.setattr(PlumeSumm, "describe_missing", lambda self: "run: pip install bert-score")
    with pytest.raises(UsageError, match="pip install bert-score"):
        trial("none", PlumeSumm(params), roles=roles)


def infer(request: Request) -> str:
    """A model that infers one preference from every edit, and drafts by it."""
    text = content(request)
    return "dashes and rhymes" if "Edited" in text or "edited" in text else "A draft."


def test_a_judge_scores_components_set_and_what_was_inferred() -> None:
    judged: list[Request] = []

    def judge(request: Request) -> str:
        judged.append(request)
        return score(request)

    roles = {"simulator": write, "judge": judge}
    bare = trial("none", PlumeSumm(ONE), answer=lambda _: "A draft.", roles=roles)
    assert bare.summary is not None and len(judged) == 5 * (4 + 1)
    metrics = bare.summary.metrics["official"]
    assert (metrics["component_match"], metrics["set_match"]) == (-2, 1)
    assert metrics.get("preference_similarity") is None
    samples = {sample.id: sample for sample in PlumeSumm(ONE).open("all", None).samples()}
    for request in judged:
        assert "A draft." in content(request)
        assert not any(str(sample.stimulus) in content(request) for sample in samples.values())

    judged.clear()
    learnt = trial("cipher", PlumeSumm(ONE), answer=infer, roles=roles, concurrency=1)
    used = [line.interaction["method"]["preference"] for line in learnt.predictions]
    assert used == ["", *[used[1]] * 4] and used[1]
    assert len(judged) == 5 * 5 + 4
    assert learnt.summary is not None
    assert learnt.summary.metrics["official"]["preference_similarity"] == 3
    guesses = [content(request) for request in judged if "Guess:" in content(request)]
    assert len(guesses) == 4 and all(used[1] in guess for guess in guesses)


def test_verdicts_that_cannot_be_read_are_counted_and_in_no_mean() -> None:
    def judge(request: Request) -> str:
        text = content(request)
        if "Habits:" in text:
            return "I cannot tell.\nVerdict: 1 or 2"
        return "Verdict: 2" if "include a" in text else "It is neutral."

    roles = {"simulator": write, "judge": judge}
    result = trial("none", PlumeSumm(ONE), answer=lambda _: "A draft.", roles=roles)
    assert result.summary is not None
    metrics, counters = result.summary.metrics["official"], result.summary.counters
    assert metrics["component_match"] == 2 and metrics.get("set_match") is None
    assert counters["verdicts_unparsed"] == 5 * (3 + 1) and counters["judge_retried"] == 3 * 20

    roles = {"simulator": write, "judge": lambda _: "No."}
    result = trial("none", PlumeSumm(ONE), answer=lambda _: "A draft.", roles=roles)
    assert result.summary is not None
    assert result.summary.counters["unjudged"] == 5
    assert result.summary.metrics["official"].get("component_match") is None
    assert result.summary.metrics["official"]["distance"] > 0


@pytest.mark.parametrize(
    ("reply", "score", "degree"),
    [
        ("Verdict: 2", 2, 2),
        ("It fits.\n**Verdict: -1**", -1, None),
        ("Verdict: −2.", -2, None),
        ("Verdict: +1", 1, 1),
        ("Verdict: 4", None, 4),
        ("Verdict: 3\nVerdict: 3", None, 3),
        ("Verdict: 1\nVerdict: 2", None, None),
        ("Verdict: 1 or 2", None, None),
        ("2", None, None),
        ("Verdict: 12", None, None),
        ("Verdict: neutral", None, None),
        ("", None, None),
    ],
)
def test_verdicts_are_read(reply: str, score: int | None, degree: int | None) -> None:
    assert (judging.read_score(reply), judging.read_degree(reply)) == (score, degree)


@pytest.mark.parametrize("name", ["none", "prose", "cipher", "icl_edit", "continual"])
def test_no_method_sees_the_source_or_the_preference(name: str, tmp_path: Path) -> None:
    secret = "zqxv"
    sources = [{"name": f"{secret}_{n}", "preference": f"wish {secret}; {n}"} for n in range(2)]
    (tmp_path / "plume_summ.json").write_text(json.dumps({"env": "plume_summ", "sources": sources}))
    for source in sources:
        rows = [{"doc_id": f"{source['name']}{n}", "text": f"Note {n}."} for n in range(3)]
        (tmp_path / f"{source['name']}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = PlumeSumm(PlumeSumm.Params(seeds="1", rounds=6, accuracy="off"))
    result = trial(
        name,
        task,
        dataset=task.open("all", tmp_path),
        roles={"simulator": lambda request: f"Text {len(content(request))}."},
    )
    assert not any(line.error for line in result.predictions)
    assert result.requests and not any(secret in content(request) for request in result.requests)
    assert not any(secret in json.dumps(profile.state) for profile in result.profiles)


def test_an_empty_text_of_the_user_is_requested_again_and_then_stops_the_trajectory() -> None:
    calls: list[int] = []

    def user(request: Request) -> str:
        calls.append(request.repeat)
        return "" if len(calls) == 1 else "A text."

    result = trial("none", PlumeSumm(ONE), roles={"simulator": user}, concurrency=1)
    assert calls[:2] == [0, 1] and result.predictions[0].flags["empty_text"] == 1
    assert len(result.predictions) == 5
    result = trial("none", PlumeSumm(ONE), roles={"simulator": lambda _: '""'})
    assert [line.error is not None for line in result.predictions] == [True]
    assert "the simulated user's text was empty twice" in str(result.predictions[0].error)


def test_options_and_files_that_cannot_work_are_located(tmp_path: Path) -> None:
    for wrong in ({"seeds": ""}, {"seeds": "1,1"}, {"seeds": "x"}, {"rounds": -1}):
        with pytest.raises(ValueError, match=r"seed|rounds"):
            PlumeSumm.Params(**wrong)
    with pytest.raises(DataError, match="has 8 documents; 45 rounds take 9 of each of 5"):
        PlumeSumm(PlumeSumm.Params(rounds=45)).open("all", None)
    # A preference file of PRELUDE is not taken for one of PLUME.
    path = EXAMPLE / "summ.json"
    with pytest.raises(DataError, match="env is 'summ', but this task is 'plume_summ'"):
        PlumeSumm(PlumeSumm.Params(preferences=str(path))).open("all", None)


def test_prose_learns_from_rounds_with_the_draft_as_first_candidate() -> None:
    def stage(request: Request) -> str:
        text = request.messages[-1].content
        marks = {
            "infer": "Preferences so far",
            "candidate": "by these preferences, and nothing else",
            "break_down": "Write these preferences as JSON",
            "coalesce": "Join those that mean the same",
        }
        return next((name for name, mark in marks.items() if mark in text), "answer")

    def model(request: Request) -> str:
        replies = {
            "infer": f"Use dashes in {len(content(request))}.",
            "break_down": '["Use dashes."]',
            "coalesce": "Use dashes, always.",
            "candidate": "A candidate.",
        }
        return replies.get(stage(request), "A draft.")

    def ask(answer: Any = model, user: Any = write, **params: Any) -> Any:
        method = Prose(Prose.Params(verify=False, **params))
        roles = {"simulator": user}
        return trial(method, PlumeSumm(ONE), answer=answer, roles=roles, concurrency=1)

    result = ask(steps=2)
    phases = [Counter(call.phase for call in line.calls) for line in result.predictions]
    # The draft saves a candidate: 2 inferences, 1 candidate and 1 break-down.
    assert [phase["update"] for phase in phases] == [2 + 1 + 1] * 5
    assert [phase["predict"] for phase in phases] == [1, 2, 2, 2, 2]
    assert [phase["simulate"] for phase in phases] == [1] * 5
    first = next(request for request in result.requests if stage(request) == "infer")
    assert "Candidate: A draft." in content(first)
    notes = [line.interaction["method"] for line in result.predictions]
    assert [note["preference"] for note in notes] == ["", *["Use dashes, always."] * 4]
    assert [note["inferred"] for note in notes] == ["- Use dashes."] * 5
    drafts = [content(request) for request in result.requests if stage(request) == "answer"]
    assert ["Use dashes, always." in draft for draft in drafts] == [False, *[True] * 4]
    texts = [line.interaction["final"] for line in result.predictions]
    assert not any(text in draft for text in texts for draft in drafts)
    shown = [content(r) for r in ask(icl=True).requests if stage(r) == "answer"]
    assert [text in shown[-1] for text in texts].count(True) == 3

    # A draft that is the user's text teaches nothing new.
    equal = ask(answer=lambda _: "The text.", user=lambda _: "The  text.")
    assert not {"infer", "candidate", "break_down"} & set(map(stage, equal.requests))
    assert [line.flags["candidate_equal"] for line in equal.predictions] == [1] * 5


async def test_feedback_without_a_round_is_refused() -> None:
    with pytest.raises(UsageError, match="predict opens a round"):
        await Prose().update({"demonstrations": [], "distance": None}, {}, None)  # type: ignore[arg-type]


def test_the_oracle_gets_the_preference_as_an_upper_bound() -> None:
    result = trial("oracle", PlumeSumm(ONE), roles={"simulator": write})
    asked = "\n".join(map(content, result.requests))
    assert len(result.predictions) == 5
    assert all(line.interaction["preference"] in asked for line in result.predictions)


@pytest.mark.model
@pytest.mark.variants
def test_no_learning_and_prose_run_on_the_packaged_model(tmp_path: Path) -> None:
    options = runner.Options(
        ["none", "prose"],
        ["plume_email"],
        backend="local",
        results=tmp_path,
        sampling=Sampling(max_tokens=16),
        backend_options=BackendOptions(None, window=1024),
        assignments=[
            *(
                "task.rounds=4",
                "task.seeds=1",
                "task.document_tokens=24",
                "task.user_max_tokens=24",
            ),
            *("prose.steps=1", "prose.parts=1", "prose.verify=false", "prose.max_tokens=12"),
        ],
        limit=4,
    )
    outcomes = asyncio.run(runner.run(options))
    for outcome in outcomes:
        lines = list(RunFolder(outcome.folder).iter_predictions())
        assert outcome.summary.status == "complete" and len(lines) == 4
        distances = [
            measure_edit(line.interaction["draft"], line.interaction["final"]).per_longer_text
            for line in lines
        ]
        score = outcome.summary.metrics["official"]["distance"]
        assert score == pytest.approx(sum(distances) / 4) and 0 < score <= 1
    coverage = [one.summary.metrics["official"]["preference_coverage"] for one in outcomes]
    assert coverage[0] == 0 and coverage[1] > 0


def test_a_folder_with_the_documents_of_other_seeds_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "tables.json").write_text('{"rows": {}, "seeds": [0, 1], "rounds": 200}')
    with pytest.raises(DataError, match=r"200 rounds and the seeds 0, 1; .* a folder of their own"):
        PlumeSumm().download("all", tmp_path)
