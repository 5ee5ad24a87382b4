"""oppu on the packaged model: rows of a comparison, and the same text from vLLM (test-train)."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("peft", reason="needs the extra train")

import gguf
import torch
from gguf.quants import dequantize
from training_fixtures import make_options, train, write_headlines

from personabench.models.backends import gguf_lora
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.backends.hf_transformers import Transformers
from personabench.models.backends.local import Local, find_model
from personabench.models.backends.repack import _copy_metadata
from personabench.models.backends.threads import THREADS
from personabench.models.backends.vllm import VLLM
from personabench.models.backends.vllm_server import COMMAND
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.run.training import Report
from personabench.testing.tiny_model import write_tiny_model
from personabench.types import Message, Request

pytestmark = pytest.mark.train
needs_vllm = pytest.mark.skipif(COMMAND not in os.environ, reason="needs vLLM: make test-train")
USERS = ("u1", "u2")
SETTINGS = ("epochs=2", "batch=4", "learning_rate=0.003", "min_records=8")
ARGUMENTS = ("--enforce-eager", "--max-model-len", "1024", "--dtype", "float32")
LORA = ("--enable-lora", "--max-lora-rank", "16")
QUESTIONS = (
    "Generate a headline for the following article: The harbour has a new lantern.",
    "Generate a headline for the following article: A kettle boils in the meadow.",
    "Name a river.",
    "Write one sentence about velvet.",
    "Generate a headline for the following article: The orchard is full of gravel.",
)


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    return Path(os.environ["PERSONABENCH_CHECKPOINT"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_headlines(tmp_path_factory.mktemp("data"), USERS, records=10, corpus=4)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def reports(checkpoint: Path, data: Path, results: Path) -> list[Report]:
    return asyncio.run(train(make_options(checkpoint, data, results, SETTINGS)))


def test_sizes_are_those_of_the_formula(reports: list[Report]) -> None:
    base, *users = [report.artifact for report in reports]
    hidden, layers, narrow = 576, 30, 192
    assert {user.card.parameters for user in users} == {460_800}
    assert layers * 8 * ((hidden + hidden) + (hidden + narrow)) == 460_800
    # k and the output of attention as well.
    assert base.card.parameters == 2 * 460_800
    for user in users:
        assert 4 * 460_800 < user.size < 4 * 460_800 + 40_000
        print(user.card.owner, user.card.seconds, "s", user.size, "bytes")


def test_four_rows_of_one_model(
    reports: list[Report], checkpoint: Path, data: Path, results: Path
) -> None:
    shuffled = make_options(checkpoint, data, results, SETTINGS, history="shuffled")
    assert all(report.reused for report in asyncio.run(train(shuffled)))
    rows: dict[str, dict[str, str]] = {}
    further: dict[str, dict[str, Any]] = {
        "none": {"methods": ["none"]},
        "stage 1": {"settings": (*SETTINGS, "stage=1")},
        "own": {},
        "shuffled": {"history": "shuffled"},
    }
    for name, changes in further.items():
        settings = () if name == "none" else changes.pop("settings", SETTINGS)
        options = make_options(checkpoint, data, results, settings, **changes)
        (outcome,) = asyncio.run(runner.run(options))
        lines = list(RunFolder(outcome.folder).iter_predictions())
        assert [line.error for line in lines] == [None, None]
        rows[name] = {line.user_id: str(line.output) for line in lines}
        print(name, outcome.summary.score(outcome.summary.primary), rows[name])
    assert rows["none"] != rows["stage 1"]
    assert rows["own"] != rows["shuffled"]


async def answer(backend: Backend, adapters: dict[str, Path]) -> dict[tuple[str, str], str]:
    """The replies to all questions, by adapter ("" is the model itself) and question."""
    await backend.identify()
    try:
        await backend.open()
        replies = {}
        for name in ("", *adapters):
            if name:
                backend.add_adapter(name, adapters[name])
            for question in QUESTIONS:
                request = Request((Message("user", question),), 24)
                if name:
                    request = Request((Message("user", question),), 24, adapter=name)
                response = await backend.complete(request, name)
                replies[name, question] = response.text
        return replies
    finally:
        await backend.aclose()


def compare(model: Path, reports: list[Report]) -> None:
    """Compare the replies of vLLM and of transformers, with and without the users' adapters."""
    adapters = {
        report.artifact.name: report.artifact.adapter
        for report in reports
        if report.artifact.card.owner
    }
    ours = asyncio.run(answer(Transformers(BackendOptions(model=str(model))), adapters))
    options = BackendOptions(model=str(model), vllm_args=(*ARGUMENTS, *LORA))
    served = asyncio.run(answer(VLLM(options), adapters))
    assert served == ours
    names = ["", *adapters]
    assert len({tuple(ours[name, question] for question in QUESTIONS) for name in names}) == 3


@needs_vllm
def test_vllm_gives_the_text_of_transformers(reports: list[Report], checkpoint: Path) -> None:
    compare(checkpoint, reports)


@needs_vllm
def test_vllm_gives_the_text_of_transformers_for_a_random_model(data: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    settings = ("epochs=4", "batch=4", "learning_rate=0.03", "min_records=8")
    compare(model, asyncio.run(train(make_options(model, data, tmp_path / "results", settings))))


def write_full_precision(path: Path) -> Path:
    """Write the packaged model as numbers in fp32 that are those of the checkpoint, in bf16."""
    reader = gguf.GGUFReader(find_model(None))
    writer = gguf.GGUFWriter(path, "llama")
    _copy_metadata(reader, writer)
    for tensor in reader.tensors:
        weights = torch.tensor(dequantize(tensor.data, tensor.tensor_type))
        writer.add_tensor(tensor.name, weights.bfloat16().float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_llama_cpp_gives_the_text_of_transformers(
    reports: list[Report], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without quantisation; that of the packaged model changes the model's own answers as much."""
    monkeypatch.setenv(THREADS, "1")
    adapters = {
        report.artifact.name: report.artifact.adapter
        for report in reports
        if report.artifact.card.owner
    }
    options = BackendOptions(model=str(write_full_precision(tmp_path / "full.gguf")), window=512)
    ours = asyncio.run(answer(Transformers(BackendOptions(model=str(checkpoint))), adapters))
    assert asyncio.run(answer(Local(options), adapters)) == ours
    assert len({tuple(ours[name, question] for question in QUESTIONS) for name in adapters}) == 2

    # Rows of queries and keys in the order of the checkpoint are another change of the model.
    monkeypatch.setattr(gguf_lora, "interleave_rows", lambda matrix, heads: matrix)
    assert asyncio.run(answer(Local(options), adapters)) != ours


def test_a_run_on_the_packaged_model_answers_through_the_adapters_of_its_checkpoint(
    reports: list[Report], checkpoint: Path, data: Path, results: Path
) -> None:
    local: dict[str, Any] = {
        "backend": "local",
        "backend_options": BackendOptions(checkpoint=str(checkpoint)),
        "wording": "full",
    }
    outputs = []
    for method in ("none", "oppu"):
        settings = SETTINGS if method == "oppu" else ()
        options = make_options(checkpoint, data, results, settings, methods=[method], **local)
        (outcome,) = asyncio.run(runner.run(options))
        lines = list(RunFolder(outcome.folder).iter_predictions())
        assert [line.error for line in lines] == [None, None]
        outputs.append({line.user_id: line.output for line in lines})
    assert outputs[0] != outputs[1]
    facts = outcome.summary.provenance["training"]
    assert facts["users"] == len(USERS) and facts["parameters"] == 460_800
