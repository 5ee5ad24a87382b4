"""stylevector: vectors as computed by hand, and answers with and without them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("peft", reason="needs the extra train")

import torch
from safetensors.torch import load_file
from training_fixtures import (
    file_hashes,
    make_options,
    resolve_runs,
    train,
    write_headlines,
)

from personabench.api.training import TrainContext
from personabench.errors import UsageError
from personabench.models.backends.hf_transformers import load_checkpoint, tokenize_prompt
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.testing.tiny_model import write_tiny_model

METHOD = ["stylevector"]
LAYER = 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_headlines(tmp_path_factory.mktemp("data"), records=3)


def outputs(options: Any) -> dict[str, str]:
    (outcome,) = asyncio.run(runner.run(options))
    lines = list(RunFolder(outcome.folder).iter_predictions())
    assert all(line.error is None for line in lines), lines
    return {line.user_id: str(line.output) for line in lines}


def test_the_vector_is_the_mean_difference_computed_by_hand(
    model: Path, data: Path, tmp_path: Path
) -> None:
    options = make_options(model, data, tmp_path, (f"layer={LAYER}",), methods=METHOD, users=1)
    (report,) = asyncio.run(train(options))
    card = report.artifact.card
    assert (card.kind, card.parameters, card.records) == ("steering_vector", 64, 3)
    (resolved,) = asyncio.run(resolve_runs(options))
    sample = resolved.dataset.load(resolved.positions[0])
    ctx = TrainContext(
        resolved.task,
        str(model),
        "cpu",
        0,
        tmp_path,
        like=sample.view(),
        visible={record.id: record for record in sample.history},
    )
    loaded, tokenizer = load_checkpoint(str(model), "cpu")
    differences = []
    with torch.inference_mode():
        for record in sample.history:
            prompt = tokenize_prompt(tokenizer, ctx.exchange(record).messages)
            reply: list[int] = []
            while len(reply) < resolved.task.max_tokens:
                logits = loaded(input_ids=torch.tensor([[*prompt, *reply]])).logits[0, -1]
                reply.append(int(logits.argmax()))
                if reply[-1] == tokenizer.eos_token_id:
                    break
            generic = tokenizer.decode(reply, skip_special_tokens=True)
            states = []
            for text in (record.response, generic):
                tokens = [*prompt, *tokenizer(text)["input_ids"]]
                hidden = loaded(input_ids=torch.tensor([tokens]), output_hidden_states=True)
                states.append(hidden.hidden_states[LAYER + 1][0, -1])
            differences.append(states[0] - states[1])
    vector = load_file(report.artifact.adapter / "steering.safetensors")["vector"]
    assert torch.allclose(vector, torch.stack(differences).mean(0), atol=1e-4)
    assert vector.norm() > 0.01


def test_strength_zero_gives_the_text_of_the_base(model: Path, data: Path, tmp_path: Path) -> None:
    def options(methods: list[str], *settings: str, **changes: Any) -> Any:
        return make_options(model, data, tmp_path, settings, methods=methods, **changes)

    reports = asyncio.run(train(options(METHOD)))
    assert {report.artifact.card.owner for report in reports} == {"u1", "u2", "u3"}
    base = outputs(options(["none"]))
    assert outputs(options(METHOD, "strength=0")) == base
    steered = outputs(options(METHOD, "strength=20"))
    assert steered != base
    # Another strength is no other training, and no history is the base.
    assert all(report.reused for report in asyncio.run(train(options(METHOD, "strength=3"))))
    assert outputs(options(METHOD, history="none")) == base
    asyncio.run(train(options(METHOD, history="shuffled")))
    assert outputs(options(METHOD, "strength=20", history="shuffled")) != steered


def test_two_trainings_give_the_same_bytes(model: Path, data: Path, tmp_path: Path) -> None:
    hashes = []
    for name, order in (("a", 1), ("b", -1)):
        reports = asyncio.run(
            train(make_options(model, data, tmp_path / name, methods=METHOD), order=order)
        )
        hashes.append(file_hashes(reports))
    assert hashes[0] == hashes[1]


def test_a_layer_that_the_model_does_not_have(model: Path, data: Path, tmp_path: Path) -> None:
    options = make_options(model, data, tmp_path, ("layer=2",), methods=METHOD)
    with pytest.raises(UsageError, match=r"layer 2 of .* has 2 layers"):
        asyncio.run(train(options))
