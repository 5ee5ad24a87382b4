"""oppu: training that does not depend on other users, its embargo, and the rows of a comparison."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("peft", reason="needs the extra train")

import torch
from safetensors.torch import load_file
from training_fixtures import (
    ENDINGS,
    file_hashes,
    make_options,
    resolve_runs,
    train,
    write_headlines,
)

from personabench.api.artifacts import Artifact, Artifacts, check_embargo, read_artifact
from personabench.api.training import Exchange, TrainContext, tokenize_prompt
from personabench.errors import DataError, UsageError
from personabench.leaderboard import boards
from personabench.methods.oppu import USER_MODULES
from personabench.methods.oppu.examples import IGNORED, Example, make_example
from personabench.methods.oppu.trainer import Settings, Trainer, combine
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.hf_transformers import Transformers
from personabench.results.index import Run
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.run.options import Options
from personabench.run.training import Report, Trainings
from personabench.testing.tiny_model import write_tiny_model
from personabench.types import Message, Prediction, Record, Request, Sample

CLI = (sys.executable, "-c", "from personabench.cli.app import main; main()")
FAST = ("population=false", "epochs=1", "batch=4", "min_records=4")
SETTINGS = Settings(USER_MODULES, 8, 8, 0.05, 1e-3, 0.01, 2, 4, 0.1, 0.3)
RANK = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_headlines(tmp_path_factory.mktemp("data"))


def run(options: Options) -> tuple[list[runner.Outcome], list[list[Prediction]]]:
    outcomes = asyncio.run(runner.run(options))
    lines = [list(RunFolder(outcome.folder).iter_predictions()) for outcome in outcomes]
    return outcomes, lines


# 4: the same bytes


async def test_training_twice_reversed_and_alone_gives_the_same_bytes(
    model: Path, data: Path, tmp_path: Path
) -> None:
    first = file_hashes(await train(make_options(model, data, tmp_path / "1", FAST)))
    again = file_hashes(await train(make_options(model, data, tmp_path / "2", FAST)))
    backwards = await train(make_options(model, data, tmp_path / "3", FAST), order=-1)
    alone = write_headlines(tmp_path / "alone", ["u2"])
    single = file_hashes(await train(make_options(model, alone, tmp_path / "4", FAST)))

    assert set(first) == set(ENDINGS)
    assert first == again == file_hashes(backwards)
    assert single == {"u2": first["u2"]}
    assert first["u1"] != first["u2"] != first["u3"]


async def test_another_seed_gives_another_adapter(model: Path, data: Path, tmp_path: Path) -> None:
    first = file_hashes(await train(make_options(model, data, tmp_path, FAST, users=1)))
    other = file_hashes(
        await train(make_options(model, data, tmp_path, FAST, users=1, draw=0, seed=5))
    )
    assert first.keys() == other.keys()
    assert first != other


# 5: what training sees


class Watched(Trainer):
    """A trainer that keeps the texts of all its examples."""

    texts: list[str] = []

    def fit(self, examples: Sequence[Example], *further: Any) -> Any:
        self.texts += [self.tokenizer.decode(example.tokens) for example in examples]
        return super().fit(examples, *further)


@pytest.mark.parametrize("k", [0, 2])
async def test_training_sees_visible_records_of_its_user_and_no_reference(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, k: int
) -> None:
    monkeypatch.setattr("personabench.methods.oppu.trainer.Trainer", Watched)
    monkeypatch.setattr(Watched, "texts", [])
    settings = (*FAST, f"k={k}")
    seen: dict[str, list[str]] = {}

    def notify(report: Report) -> None:
        seen[report.artifact.card.owner] = Watched.texts.copy()
        Watched.texts.clear()

    await train(make_options(model, data, tmp_path, settings), notify=notify)
    for user, texts in seen.items():
        assert len(texts) == 12
        joined = "\n".join(texts)
        for other in ENDINGS:
            assert (f"mark-{other}-" in joined) == (other == user)
            assert f"gold-of-{other}" not in joined
            assert f"question-of-{other}" not in joined
        for index, text in enumerate(texts):
            later = [f"mark-{user}-{number:03d}" for number in range(index + 1, 12)]
            assert f"mark-{user}-{index:03d}" in text
            assert not any(mark in text for mark in later)
            shown = sum(f"mark-{user}-{number:03d}" in text for number in range(index))
            assert shown == min(k, index)


def test_a_record_that_is_not_visible_is_refused_in_training(tmp_path: Path) -> None:
    from personabench.api import registry

    task = registry.load_class("task", "lamp4")()
    visible = Record("1", "an article", "A headline")
    ctx = TrainContext(task, "base", "cpu", 0, tmp_path, visible={"1": visible})
    ctx.like = Sample("q", "u1", "Generate a headline for the following article: it")
    assert ctx.exchange(visible).output == "A headline"
    with pytest.raises(UsageError, match="record 2 is not visible to user u1"):
        ctx.exchange(visible, [Record("2", "another", "Later")])
    assert ctx.seen.records == ("1",)


async def test_an_artifact_that_saw_a_hidden_record_is_refused_with_both_ids(
    model: Path, data: Path, tmp_path: Path
) -> None:
    options = make_options(model, data, tmp_path, FAST, users=1)
    (report,) = await train(options)
    (resolved,) = await resolve_runs(options)
    sample = resolved.dataset.load(resolved.positions[0])
    artifact = report.artifact
    check_embargo(artifact, sample)

    hidden = sample.history[-1].id
    earlier = Sample("q-early", sample.user_id, sample.input, history=sample.history[:-1])
    with pytest.raises(UsageError, match=rf"sample q-early.* record {hidden}, which"):
        check_embargo(artifact, earlier)
    with pytest.raises(UsageError, match=rf"q-other.* user {sample.user_id}, while"):
        check_embargo(artifact, Sample("q-other", "u9", "", history=sample.history))

    # The same check stands between a run's method and the artifact.
    artifacts = Artifacts(
        resolved.training.store,  # type: ignore[union-attr]
        lambda: None,
        lambda sample: (artifact.card.owner, artifact.folder.name),
        "train",
    )
    assert artifacts.user(sample) == artifact
    with pytest.raises(UsageError, match=hidden):
        artifacts.user(earlier)


async def test_a_corpus_with_a_tested_user_is_refused(model: Path, tmp_path: Path) -> None:
    data = write_headlines(tmp_path / "data")
    for name in ("questions", "outputs"):
        (data / f"train_{name}.json").write_text((data / f"dev_{name}.json").read_text())
    with pytest.raises(UsageError, match="shares user u1"):
        await train(make_options(model, data, tmp_path / "r", ("epochs=1",)))


# 6 and 7: examples


@pytest.fixture(scope="module")
def trainer(model: Path) -> Trainer:
    return Trainer(str(model), "cpu")


def make(trainer: Trainer, question: str, output: str, cutoff: int = 2048) -> Example | None:
    exchange = Exchange((Message("user", question),), output, ())
    return make_example(exchange, trainer.tokenizer, tokenize_prompt, cutoff, "output")


def test_the_loss_is_on_the_output_alone(trainer: Trainer) -> None:
    example = make(trainer, "Name a bird.", "Wren")
    assert example is not None
    output = [*trainer.tokenizer("Wren")["input_ids"], trainer.tokenizer.eos_token_id]
    given = len(example.tokens) - len(output)
    assert list(example.labels) == [IGNORED] * given + output

    # By hand: the log-probability of every output token after all tokens before it.
    total = 0.0
    with torch.inference_mode():
        for index, token in enumerate(output):
            before = torch.tensor([[*example.tokens[: given + index]]])
            logits = trainer.model(input_ids=before).logits[0, -1]
            total -= float(torch.log_softmax(logits, -1)[token])
        computed = float(trainer.loss(trainer.model, [example]))
    assert math.isclose(computed, total, rel_tol=1e-4)


def test_padding_and_neighbours_do_not_change_the_loss(trainer: Trainer) -> None:
    short, long = make(trainer, "Bird?", "Wren"), make(trainer, "Name a long river.", "Danube")
    assert short is not None and long is not None
    with torch.inference_mode():
        apart = sum(float(trainer.loss(trainer.model, [example])) for example in (short, long))
        together = float(trainer.loss(trainer.model, [short, long]))
    assert math.isclose(apart, together, rel_tol=1e-4)


def test_the_cutoff_removes_the_left_of_the_request_and_never_the_output(trainer: Trainer) -> None:
    whole = make(trainer, "abc" * 30, "the headline")
    assert whole is not None
    cut = make(trainer, "abc" * 30, "the headline", cutoff=40)
    assert cut is not None
    assert len(cut.tokens) == 40
    assert cut.tokens == whole.tokens[-40:]
    assert cut.learnt == whole.learnt == len("the headline") + 1
    assert make(trainer, "abc", "the headline", cutoff=13) is not None
    assert make(trainer, "abc", "the headline", cutoff=12) is None


async def test_outputs_over_the_cutoff_are_left_out_and_counted(
    model: Path, tmp_path: Path
) -> None:
    data = write_headlines(tmp_path / "data", ["u1"])
    questions = json.loads((data / "dev_questions.json").read_text())
    questions[0]["profile"][3]["title"] = "long " * 40
    (data / "dev_questions.json").write_text(json.dumps(questions))
    (report,) = await train(make_options(model, data, tmp_path / "r", (*FAST, "cutoff=120")))
    assert report.artifact.card.counts == {"output_over_cutoff": 1, "examples": 11}


# 8: it learns the user


async def test_the_own_adapter_fits_held_out_records_better_than_none_and_than_anothers(
    model: Path, tmp_path: Path
) -> None:
    data = write_headlines(tmp_path / "data", records=30)
    (resolved,) = await resolve_runs(make_options(model, data, tmp_path))
    trainer = Trainer(str(model), "cpu")
    adapters, held_out = {}, {}
    for position in resolved.positions:
        sample = resolved.dataset.load(position)
        ctx = TrainContext(
            resolved.task,
            str(model),
            "cpu",
            7,
            tmp_path / sample.user_id,
            like=sample.view(),
            visible={record.id: record for record in sample.history},
        )
        exchanges = [ctx.exchange(record) for record in sample.history]
        examples = [
            make_example(exchange, trainer.tokenizer, tokenize_prompt, 512, "output")
            for exchange in exchanges
        ]
        usable = [example for example in examples if example is not None]
        assert len(usable) == 30
        adapters[sample.user_id] = ctx.folder
        held_out[sample.user_id] = usable[-5:]
        strong = SETTINGS._replace(epochs=8, learning_rate=0.02)
        trainer.fit(usable[:-5], strong, ctx.seed, ctx.folder)

    for user, examples in held_out.items():
        base = trainer.mean_loss(examples)
        own = trainer.mean_loss(examples, adapters[user])
        others = [
            trainer.mean_loss(examples, adapters[other]) for other in adapters if other != user
        ]
        assert own < base
        assert own < min(others)


# 9: sizes, and other readers of the file


async def test_parameters_and_bytes_are_those_of_the_formula(
    model: Path, data: Path, tmp_path: Path
) -> None:
    (report,) = await train(make_options(model, data, tmp_path, FAST, users=1))
    hidden, layers, query, value = 64, 2, 64, 32
    expected = layers * RANK * ((hidden + query) + (hidden + value))
    assert report.artifact.card.parameters == expected
    tensors = load_file(report.artifact.adapter / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == expected
    assert 4 * expected < report.artifact.size < 4 * expected + 4096
    assert str(tmp_path) not in (report.artifact.adapter / "adapter_config.json").read_text()


async def test_plain_peft_gives_the_text_of_the_backend(
    model: Path, data: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings = ("population=false", "epochs=3", "batch=4", "learning_rate=0.03")
    (report,) = await train(make_options(model, data, tmp_path, settings, users=1))
    backend = Transformers(BackendOptions(model=str(model)))
    await backend.identify()
    await backend.open()
    backend.add_adapter("own", report.artifact.adapter)
    tokenizer = AutoTokenizer.from_pretrained(model)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, str(report.artifact.adapter)).eval()
    differing = 0
    for question in ("harbour lantern", "gravel", "velvet kettle meadow", "ribbon", "orchard"):
        messages = (Message("user", question),)
        reply = await backend.complete(Request(messages, 24, adapter="own"), "")
        plain = await backend.complete(Request(messages, 24), "")
        prompt = torch.tensor([tokenize_prompt(tokenizer, messages)])
        generated = adapted.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=24,
            do_sample=False,
        )
        text = tokenizer.decode(generated[0, prompt.shape[1] :], skip_special_tokens=True)
        assert reply.text == text
        differing += plain.text != reply.text
    assert differing
    await backend.aclose()


def test_a_combined_adapter_changes_the_model_like_both(
    trainer: Trainer, model: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    modules = ("q_proj", "k_proj", "v_proj", "o_proj")
    example = make(trainer, "Name a bird.", "Wren")
    assert example is not None
    strong = SETTINGS._replace(learning_rate=0.02, alpha=16)
    trainer.fit([example] * 8, strong._replace(targets=modules, rank=4), 1, tmp_path / "task")
    merged = Trainer(str(model), "cpu", tmp_path / "task")
    merged.fit([make(merged, "Name a river.", "Danube")] * 8, strong, 2, tmp_path / "user")  # type: ignore[list-item]
    combine(tmp_path / "task", tmp_path / "user", tmp_path / "both")

    both = PeftModel.from_pretrained(trainer.model, str(tmp_path / "both")).eval()
    stacked = PeftModel.from_pretrained(merged.model, str(tmp_path / "user")).eval()
    tokens = torch.tensor([example.tokens])
    with torch.inference_mode():
        expected = stacked(input_ids=tokens).logits
        assert torch.allclose(both(input_ids=tokens).logits, expected, atol=1e-4)
        with both.disable_adapter():
            assert not torch.allclose(both(input_ids=tokens).logits, expected, atol=1e-2)
    trainer.model = both.unload()


# 10: interrupts


async def test_an_interrupted_training_goes_on_with_the_next_user(
    model: Path, data: Path, tmp_path: Path
) -> None:
    options = make_options(model, data, tmp_path, FAST)

    def interrupt(report: Report) -> None:
        if len(list(tmp_path.rglob("card.json"))) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await train(options, notify=interrupt)
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("card.json")}
    assert len(finished) == 2

    # A process that was killed leaves a folder that is no artifact.
    (store,) = {path.parents[3] for path in finished}
    torn = store / "users" / "u3" / ".dead.tmp"
    torn.mkdir(parents=True)
    (torn / "card.json").write_text("{")
    with pytest.raises(UsageError, match=r"not trained for user .*; train with: personabench"):
        await runner.run(options)

    reports = await train(options)
    assert sorted(report.reused for report in reports) == [False, True, True]
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())
    assert not torn.exists()
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_command_ends_at_an_interrupt_and_goes_on_when_repeated(
    model: Path, data: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    words = ["train", "oppu", "--task", "lamp4", "--data", str(data), "--model", str(model)]
    words += ["--results", str(results), "--set", "min_records=4", "--set", "population=false"]
    # Too long to end by itself.
    slow = [*CLI, *words, "--set", "epochs=100000", "--json"]
    with subprocess.Popen(slow, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(600):
            if list(results.rglob("*.tmp")):
                break
            time.sleep(0.1)
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "finished users are kept" in err
    assert not list(results.rglob("card.json"))

    quick = [*CLI, *words, "--set", "epochs=1", "--json"]
    first, again = [
        subprocess.run(quick, capture_output=True, text=True, check=True) for _ in range(2)
    ]
    assert "user u2: " in first.stderr and "kept" not in first.stderr
    assert again.stderr.count("kept") == 3
    (trained,), (kept,) = json.loads(first.stdout), json.loads(again.stdout)
    assert (trained["trained"], kept["trained"]) == (3, 0)
    plan = subprocess.run([*quick, "--dry-run"], capture_output=True, text=True, check=True)
    (work,) = json.loads(plan.stdout)
    assert (work["users"], work["finished"], work["records"], work["steps"]) == (3, 3, 36, 3)
    assert trained["parameters"] == kept["parameters"] == 3584
    assert trained["records"] == 12


async def test_a_failed_training_leaves_no_artifact(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(trainer: Trainer, *further: Any) -> Any:
        (tmp_path / "reached").touch()
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Trainer, "_update", fail)
    with pytest.raises(Exception, match="out of memory"):
        await train(make_options(model, data, tmp_path, FAST))
    assert (tmp_path / "reached").exists()
    assert not list(tmp_path.rglob("card.json"))
    assert not list(tmp_path.rglob("*.safetensors"))


async def test_a_damaged_artifact_is_named(model: Path, data: Path, tmp_path: Path) -> None:
    options = make_options(model, data, tmp_path, FAST, users=1)
    (report,) = await train(options)
    weights = report.artifact.adapter / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged .*delete this folder and train again"):
        await train(options)


# 11: rows


def test_the_rows_of_a_comparison(model: Path, data: Path, tmp_path: Path) -> None:
    settings = ("epochs=3", "batch=2", "learning_rate=0.03", "min_records=4")
    options = make_options(model, data, tmp_path, settings)
    reports = asyncio.run(train(options))
    base, *users = [report.artifact for report in reports]
    assert base.card.owner == "" and {user.card.owner for user in users} == set(ENDINGS)
    assert {user.card.parent for user in users} == {base.name}
    assert set(base.seen.users) == {"t0", "t1", "t2"}
    by_owner = {user.card.owner: user for user in users}

    def row(**changes: Any) -> dict[str, Prediction]:
        more = changes.pop("settings", settings)
        _, (lines,) = run(make_options(model, data, tmp_path, more, **changes))
        assert all(line.error is None for line in lines), lines
        return {line.user_id: line for line in lines}

    def used(lines: dict[str, Prediction]) -> dict[str, str]:
        return {
            user: line.interaction.get("method", {}).get("artifact", "")
            for user, line in lines.items()
        }

    own = row()
    assert used(own) == {user: artifact.name for user, artifact in by_owner.items()}
    stage1 = row(settings=(*settings, "stage=1"))
    assert set(used(stage1).values()) == {base.name}
    none = row(history="none")
    assert set(used(none).values()) == {base.name}
    assert {user: line.output for user, line in none.items()} == {
        user: line.output for user, line in stage1.items()
    }

    asyncio.run(train(make_options(model, data, tmp_path, settings, history="shuffled")))
    shuffled = row(history="shuffled")
    for user, name in used(shuffled).items():
        owner = next(owner for owner, artifact in by_owner.items() if artifact.name == name)
        assert owner != user


async def test_shuffled_histories_reuse_the_owners_artifacts(
    model: Path, data: Path, tmp_path: Path
) -> None:
    await train(make_options(model, data, tmp_path, FAST))
    reports = await train(make_options(model, data, tmp_path, FAST, history="shuffled"))
    assert reports and all(report.reused for report in reports)


async def test_a_shorter_history_has_an_artifact_of_its_own(
    model: Path, data: Path, tmp_path: Path
) -> None:
    await train(make_options(model, data, tmp_path, FAST, users=1))
    (report,) = await train(make_options(model, data, tmp_path, FAST, users=1, history="size=5"))
    assert not report.reused
    assert report.artifact.card.records == 5


def test_users_with_few_records_are_answered_by_stage_1(
    model: Path, data: Path, tmp_path: Path
) -> None:
    settings = ("epochs=1", "min_records=13")
    options = make_options(model, data, tmp_path, settings)
    reports = asyncio.run(train(options))
    assert [report.artifact.card.kind for report in reports] == ["lora", "none", "none", "none"]
    (outcome,), (lines,) = run(options)
    assert outcome.summary.counters["without_user_adapter"] == 3
    assert {line.interaction["method"]["artifact"] for line in lines} == {reports[0].artifact.name}
    (board,) = boards([Run(outcome.summary, outcome.folder)])
    (note,) = [note for note in board.notes if note.startswith("Trained: ")]
    assert "the task on 3 samples of 3 other users; 3 users have no adapter." in note

    # What is answered is scored again without artifacts.
    shutil.rmtree(tmp_path / "artifacts")
    (again,), _ = run(options)
    assert again.summary.n == outcome.summary.n == 3
    assert again.summary.provenance["training"] == outcome.summary.provenance["training"]


# Adapters of a map


def test_a_map_of_adapters_with_users_of_the_base(model: Path, data: Path, tmp_path: Path) -> None:
    reports = asyncio.run(train(make_options(model, data, tmp_path, FAST)))
    folders = {report.artifact.card.owner: report.artifact.folder for report in reports}
    adapters = {"u1": str(folders["u1"]), "u2": str(folders["u2"]), "*": ""}
    options = make_options(
        model,
        data,
        tmp_path,
        methods=["none"],
        backend_options=BackendOptions(model=str(model), adapter_map=adapters),
    )
    (outcome,), _ = run(options)
    assert outcome.summary.counters["base_without_adapter"] == 1
    assert outcome.summary.n == 3


def test_a_map_whose_card_names_a_hidden_record_is_refused(
    model: Path, data: Path, tmp_path: Path
) -> None:
    (report,) = asyncio.run(train(make_options(model, data, tmp_path, FAST, users=1)))
    owner = report.artifact.card.owner
    adapters = {owner: str(report.artifact.folder)}
    options = make_options(
        model,
        data,
        tmp_path,
        methods=["none"],
        history="size=11",
        backend_options=BackendOptions(model=str(model), adapter_map=adapters),
    )
    with pytest.raises(UsageError, match=rf"sample q-{owner} .*record {owner}-000, which"):
        run(options)


def test_artifacts_are_read_back_as_written(model: Path, data: Path, tmp_path: Path) -> None:
    (report,) = asyncio.run(train(make_options(model, data, tmp_path, FAST, users=1)))
    artifact = read_artifact(report.artifact.folder)
    assert isinstance(artifact, Artifact)
    assert artifact == report.artifact
    assert artifact.card.records == 12
    assert artifact.card.steps == 3
    assert Trainings.__doc__
