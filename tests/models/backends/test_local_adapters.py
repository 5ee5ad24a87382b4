"""LoRA adapters on the local backend: converted for llama.cpp, one choice for each request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from personabench.errors import BackendError, UsageError
from personabench.models.backends import create, local_adapters
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.backends.gguf_lora import (
    AdapterConverter,
    interleave_rows,
    read_safetensors,
)
from personabench.models.backends.local import Local, find_model
from personabench.models.backends.threads import THREADS
from personabench.types import Message, Request

WIDTH, KEY_WIDTH, LAYERS, RANK = 576, 192, 30, 4
HEADS, KEY_HEADS = 9, 3
QUESTIONS = ("Name a river.", "What is velvet?")
CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "bias": "none"}


def write_adapter(folder: Path, seed: int, **changes: Any) -> Path:
    """A random adapter of the packaged model's attention, strong enough to change answers."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer in range(LAYERS):
        for module, rows in (("q", WIDTH), ("k", KEY_WIDTH), ("v", KEY_WIDTH), ("o", WIDTH)):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}_proj"
            first, second = rng.normal(size=(RANK, WIDTH)), rng.normal(size=(rows, RANK))
            tensors[f"{name}.lora_A.weight"] = (0.02 * first).astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = (0.2 * second).astype(np.float32)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **changes}))
    return folder


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {name: write_adapter(root / name, seed) for seed, name in enumerate("ab")}


@pytest.fixture(scope="module")
def converter() -> AdapterConverter:
    return AdapterConverter(find_model(None))


def ask(adapter: str, question: str) -> Request:
    fields = {"adapter": adapter} if adapter else {}
    return Request((Message("user", question),), max_tokens=6, **fields)


async def answer(
    adapters: dict[str, Path], order: Sequence[str], questions: Sequence[str] = QUESTIONS
) -> list[str]:
    """The replies to questions through adapters, in an order; to one question, all at once.

    The adapter "" is the model itself.
    """
    backend = Local(BackendOptions(window=128))
    for name, folder in adapters.items():
        backend.add_adapter(name, folder)
    await backend.identify()
    await backend.open()
    try:
        calls = [ask(name, question) for name in order for question in questions]
        if len(questions) == 1:
            replies = await asyncio.gather(*(backend.complete(call, "u") for call in calls))
        else:
            replies = [await backend.complete(call, "u") for call in calls]
        return [reply.text for reply in replies]
    finally:
        await backend.aclose()


@pytest.mark.model
async def test_each_request_has_its_own_adapter_and_no_other_call_changes_its_answer(
    adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(THREADS, "1")
    alone = {"": await answer({}, [""])}
    alone |= {name: await answer({name: adapters[name]}, [name]) for name in ("a", "b")}
    assert len({tuple(texts) for texts in alone.values()}) == 3
    # llama.cpp takes the start of a prompt from the call before, whose adapter was another.
    order = ("a", "", "b", "", "a", "b")
    expected = [text for name in order for text in alone[name]]
    assert await answer(adapters, order) == expected
    # With room for one adapter, the server starts again for each change, and calls wait for it.
    monkeypatch.setattr(local_adapters, "LOADED", 1)
    assert await answer(adapters, order[:3], QUESTIONS[:1]) == expected[:6:2]


def tensors_of(path: Path) -> tuple[dict[str, np.ndarray[Any, Any]], float]:
    reader = gguf.GGUFReader(path)
    alpha = reader.get_field(gguf.Keys.Adapter.LORA_ALPHA)
    assert alpha is not None
    return {tensor.name: np.array(tensor.data) for tensor in reader.tensors}, alpha.contents()


def permute(weights: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows in llama.cpp's order, one after the other: row i of a half stands at 2 i."""
    rows = []
    size = len(weights) // heads
    for head in range(heads):
        for number in range(size // 2):
            rows += [weights[head * size + number], weights[head * size + size // 2 + number]]
    return np.stack(rows)


@pytest.mark.parametrize(("changes", "scale"), [({}, 2.0), ({"use_rslora": True}, 4.0)])
def test_the_change_of_the_weights_is_that_of_the_adapter_in_the_models_order(
    tmp_path: Path, converter: AdapterConverter, changes: dict[str, Any], scale: float
) -> None:
    adapter = write_adapter(tmp_path / "adapter", 7, **changes)
    source = dict(read_safetensors(adapter / "adapter_model.safetensors"))
    converter.convert(adapter, tmp_path / "adapter.gguf")
    tensors, alpha = tensors_of(tmp_path / "adapter.gguf")
    assert len(tensors) == 8 * LAYERS
    for module, short, heads in (
        ("q", "attn_q", HEADS),
        ("k", "attn_k", KEY_HEADS),
        ("v", "attn_v", 0),
        ("o", "attn_output", 0),
    ):
        prefix = f"base_model.model.model.layers.3.self_attn.{module}_proj"
        change = scale * source[f"{prefix}.lora_B.weight"] @ source[f"{prefix}.lora_A.weight"]
        expected = permute(change, heads) if heads else change
        second, first = (tensors[f"blk.3.{short}.weight.lora_{part}"] for part in "ba")
        np.testing.assert_allclose(alpha / RANK * second @ first, expected, rtol=1e-4, atol=1e-6)
    assert not np.allclose(interleave_rows(second, HEADS), second)


def test_bf16_is_read_as_the_upper_half_of_fp32(tmp_path: Path) -> None:
    values = np.array([1.5, -2.25, 0.0], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = json.dumps({"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + halves)
    ((name, tensor),) = read_safetensors(path)
    assert name == "x" and tensor.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"use_dora": True}, "without use_dora"),
        ({"peft_type": "IA3"}, "without peft_type IA3"),
        ({"bias": "all"}, "without bias"),
        ({"rank_pattern": {"q_proj": 2}}, "without rank_pattern"),
    ],
)
def test_adapters_of_other_kinds_are_refused(
    tmp_path: Path, converter: AdapterConverter, changes: dict[str, Any], reason: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", 0, **changes)
    with pytest.raises(UsageError, match=f"{reason}; use --backend transformers or vllm"):
        converter.convert(adapter, tmp_path / "adapter.gguf")


def test_adapters_that_do_not_fit_are_refused(tmp_path: Path, converter: AdapterConverter) -> None:
    adapter = write_adapter(tmp_path / "adapter", 0)
    weights = adapter / "adapter_model.safetensors"
    target = tmp_path / "adapter.gguf"
    name = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    for layer, columns, reason in ((0, 64, "576 x 576 there"), (99, WIDTH, "none that can be")):
        first, second = np.zeros((RANK, columns), "f4"), np.zeros((WIDTH, RANK), "f4")
        save_file({name.format(layer, "A"): first, name.format(layer, "B"): second}, weights)
        with pytest.raises(UsageError, match=reason):
            converter.convert(adapter, target)
    save_file({name.format(0, "A"): first}, weights)
    with pytest.raises(UsageError, match=r"cannot be read as a LoRA adapter: 'lora_B'"):
        converter.convert(adapter, target)
    weights.write_bytes(b"nothing")
    with pytest.raises(UsageError, match="cannot be read as a LoRA adapter"):
        converter.convert(adapter, target)


async def test_unknown_names_are_refused_before_the_model_loads() -> None:
    backend = create("local", BackendOptions(adapter_map={"u1": "served"}))
    with pytest.raises(UsageError, match="user u1: 'served' is no folder with an adapter"):
        await backend.identify()
    plain = Local(BackendOptions())
    await plain.identify()
    with pytest.raises(BackendError, match="no adapter 'other' is known"):
        await plain.complete(ask("other", "?"), "u")


async def test_the_map_and_the_checkpoint_are_part_of_the_identity(
    tmp_path: Path, adapters: dict[str, Path]
) -> None:
    async def identify(**options: Any) -> Backend:
        backend = create("local", BackendOptions(**options))
        await backend.identify()
        return backend

    plain = await identify()
    assert plain.misses_checkpoint and "adapters" not in plain.identity
    mapped = await identify(adapter_map={"u1": str(adapters["a"])})
    assert mapped.identity.keys() - plain.identity.keys() == {"adapters"}

    (tmp_path / "config.json").write_text("{}")
    linked = await identify(checkpoint=str(tmp_path))
    assert not linked.misses_checkpoint
    assert linked.identity["checkpoint_name"] == tmp_path.name
    assert len(linked.identity["checkpoint_sha256"]) == 64
