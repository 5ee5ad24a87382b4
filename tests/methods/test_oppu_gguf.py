"""The adapters of oppu as llama.cpp applies them: the change of the weights is that of peft."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("peft", reason="needs the extra train")

import gguf
import torch
from peft import PeftModel
from training_fixtures import make_options, train, write_headlines

from personabench.methods.oppu.trainer import Trainer
from personabench.models.backends.gguf_lora import AdapterConverter
from personabench.testing.tiny_model import write_tiny_model

RANK = 8
SETTINGS = (
    "population=false",
    "epochs=1",
    "batch=4",
    "min_records=4",
    "learning_rate=0.05",
    "alpha=20",
)


async def test_the_gguf_of_an_adapter_changes_weights_as_pefts_merge_does(
    tmp_path: Path,
) -> None:
    """The base is written as llama.cpp's converter orders it; only names and shapes are read."""
    model = write_tiny_model(tmp_path / "model")
    data = write_headlines(tmp_path / "data")
    (report,) = await train(make_options(model, data, tmp_path, SETTINGS, users=1))
    base = Trainer(str(model), "cpu").model
    config = base.config
    heads, key_heads = config.num_attention_heads, config.num_key_value_heads
    names = {"q_proj": ("attn_q", heads), "v_proj": ("attn_v", 0)}
    before = {name: weight.clone() for name, weight in base.named_parameters()}
    merged = PeftModel.from_pretrained(base, str(report.artifact.adapter)).merge_and_unload()

    writer = gguf.GGUFWriter(tmp_path / "base.gguf", "llama")
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_block_count(config.num_hidden_layers)
    for layer in range(config.num_hidden_layers):
        for module, (short, _) in names.items():
            weight = before[f"model.layers.{layer}.self_attn.{module}.weight"]
            writer.add_tensor(f"blk.{layer}.{short}.weight", weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    AdapterConverter(tmp_path / "base.gguf").convert(report.artifact.adapter, tmp_path / "a.gguf")
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    tensors = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    scale = reader.get_field(gguf.Keys.Adapter.LORA_ALPHA).contents() / RANK
    assert scale == 2.5
    after = dict(merged.named_parameters())
    for layer in range(config.num_hidden_layers):
        for module, (short, count) in names.items():
            name = f"model.layers.{layer}.self_attn.{module}.weight"
            change = after[name] - before[name]
            assert change.norm() > 0.01
            if count:
                # Heads, halves and rows of a half: the rows of the two halves take turns.
                parts = change.reshape(count, 2, -1, change.shape[1])
                change = torch.stack([parts[:, 0], parts[:, 1]], dim=2).reshape(change.shape)
            first, second = (tensors[f"blk.{layer}.{short}.weight.lora_{part}"] for part in "ab")
            assert torch.allclose(scale * second @ first, change, atol=1e-5)
