"""`check method` trains on marked data: leaks into artifacts are named, honest training passes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from personabench.api import registry
from personabench.api.training import TrainedMethod
from personabench.testing.checks import check_method
from personabench.testing.training_check import check_training, open_training_examples

ENDS = "training ends with artifacts"
READS = "training reads no task's data"
REPEATS = "two trainings give the same files"
OTHERS = "training sees no other tested user"
REFERENCES = "training sees no reference of a tested sample"
LATER = "training sees no later record"
TRAINABLE = "the method can be trained here"
HEAD = '''import hashlib
import json
import random
import sys

from personabench import Trained, TrainedMethod
from personabench.api.registry import load_class


class Words(TrainedMethod):
    """Answer with the words of the user's own texts before the request."""

    name = "words"
    kind = "json"

    def write(self, ctx, texts):
        (ctx.folder / "words.json").write_text(json.dumps(texts))
        return Trained("json", parameters=len(texts))

    def digest(self, ctx, texts):
        """Unreadable, as the weights of an adapter are."""
        names = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
        return self.write(ctx, [names])

    async def predict(self, sample, state, ctx):
        artifact = ctx.artifact(sample)
        words = "" if artifact is None else (artifact.folder / "words.json").read_text()
        return await ctx.answer(sample, notes=words[:200])

    async def train_user(self, user, ctx):
        texts = [ctx.exchange(record).output for record in user.history]
'''
HONEST = "        return self.write(ctx, texts)\n"
KEPT = "        self.kept += texts\n"
FRAME = """        frame = sys._getframe()
        while "trainee" not in frame.f_locals or "self" not in frame.f_locals:
            frame = frame.f_back
        dataset = frame.f_locals["self"].training.dataset
        samples = [dataset.load(position) for position in range(len(dataset.index()))]
        own = [sample for sample in samples if sample.user_id == user.id]
"""
LAST = "        texts += [record.stimulus for record in own[1].history]\n"
GOLD = "        texts += list(own[0].references)\n"


def load(folder: Path, *body: str) -> TrainedMethod:
    path = folder / "words.py"
    path.write_text(HEAD + "".join(body))
    method: TrainedMethod = registry.load_class("method", str(path))()
    return method


def check(folder: Path, *body: str) -> dict[str, tuple[bool | None, str]]:
    """The findings about training alone."""
    method = load(folder, *body)
    task = registry.load_class("task", "lamp4")()
    dataset = task.open("user/dev", None)
    with open_training_examples(method, task, dataset) as examples:
        assert not isinstance(examples, str)
        findings = list(check_training(method, examples))
    return {finding.what: (finding.holds, finding.detail) for finding in findings}


def test_an_honest_method_in_plain_python_passes_without_the_extra(tmp_path: Path) -> None:
    findings = {found.what: found for found in check_method(load(tmp_path, HONEST), "lamp4", 2)}
    assert {found.holds for found in findings.values()} == {True}, findings
    assert {ENDS, READS, REPEATS, OTHERS, REFERENCES, LATER} < findings.keys()
    assert findings[ENDS].detail == "3 users, 0 of them without an artifact"
    assert "every sample gets an answer" in findings


WRITINGS = [pytest.param("write", marks=pytest.mark.variants), "digest"]


@pytest.mark.parametrize("writing", WRITINGS)
def test_a_list_that_is_kept_between_users_is_named_with_records(
    tmp_path: Path, writing: str
) -> None:
    """The defect of OPPU's released code, in a readable artifact and in one that is not."""
    findings = check(
        tmp_path,
        "        self.kept = getattr(self, 'kept', [])\n",
        KEPT,
        f"        return self.{writing}(ctx, list(self.kept))\n",
    )
    holds, detail = findings[OTHERS]
    assert holds is False
    assert findings[REPEATS][0] and findings[REFERENCES][0] and findings[LATER][0]
    assert "record " in detail and " of user " in detail
    if writing == "digest":
        assert "words.json depends on record" in detail


@pytest.mark.parametrize(
    ("leak", "check_name", "noun"),
    [
        pytest.param(GOLD, REFERENCES, "reference of sample ", id="reference"),
        pytest.param(LAST, LATER, "later record ", id="later", marks=pytest.mark.variants),
    ],
)
@pytest.mark.parametrize("writing", WRITINGS)
def test_what_a_frame_of_the_engine_holds_is_named(
    tmp_path: Path, leak: str, check_name: str, noun: str, writing: str
) -> None:
    findings = check(tmp_path, FRAME, leak, f"        return self.{writing}(ctx, texts)\n")
    failed = {name for name, (holds, _) in findings.items() if holds is False}
    assert failed == {check_name}
    assert noun in findings[check_name][1]


def test_a_record_that_the_log_names_is_seen(tmp_path: Path) -> None:
    log = "        ctx.log(str(own[1].history[-1].stimulus))\n"
    holds, detail = check(tmp_path, FRAME, log, HONEST)[LATER]
    assert holds is False and "-later of user" in detail


def test_an_exchange_of_a_hidden_record_fails_with_its_line(tmp_path: Path) -> None:
    late = "        ctx.exchange(own[1].history[-1])\n"
    findings = check(tmp_path, FRAME, late, HONEST)
    assert findings.keys() == {ENDS}
    holds, detail = findings[ENDS]
    assert holds is False
    assert "-later is not visible to user" in detail
    assert (
        f"{tmp_path / 'words.py'}, line {HEAD.count(chr(10)) + FRAME.count(chr(10)) + 1}" in detail
    )


def test_data_that_training_opens_is_named_with_its_line(tmp_path: Path) -> None:
    opening = 'load_class("task", "lamp4")().open("user/dev", None)'
    caught = f"        try:\n            {opening}\n        except Exception:\n            pass\n"
    holds, detail = check(tmp_path, caught, HONEST)[READS]
    assert holds is False
    assert "Lamp.open is called" in detail and f"line {HEAD.count(chr(10)) + 2}" in detail


def test_training_by_chance_is_told(tmp_path: Path) -> None:
    findings = check(
        tmp_path, "        return self.write(ctx, [str(random.SystemRandom().random())])\n"
    )
    assert findings[REPEATS][0] is False
    assert "words.json" in findings[REPEATS][1]


def test_a_method_that_trains_nobody_is_not_checkable(tmp_path: Path) -> None:
    findings = check(tmp_path, '        return Trained("none")\n')
    assert findings == {ENDS: (None, "3 users, 3 of them without an artifact")}


def test_a_method_with_adapters_is_skipped_with_a_reason_without_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find(name: str) -> object:
        return None if name in ("torch", "peft") else find_spec("json")

    monkeypatch.setattr("personabench.models.backends.hf_transformers.find_spec", find)
    (finding,) = check_method(registry.load_class("method", "oppu")(), "lamp4")
    assert (finding.what, finding.holds) == (TRAINABLE, None)
    assert "torch, peft not installed: pip install" in finding.detail
