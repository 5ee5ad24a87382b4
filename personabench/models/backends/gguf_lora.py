"""Convert LoRA adapters of peft into GGUF files, in the form in which llama.cpp applies them.

An adapter changes a weight matrix by `scale * B @ A`.  llama.cpp keeps the rows of the query and
key projections of Llama models in another order: the two halves of every head, between which
rotary embeddings turn numbers, are interleaved.  The rows of B follow them; A stays as it is.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from personabench.errors import UsageError
from personabench.models.backends.adapters import CONFIG
from personabench.models.backends.gguf import read_outline

WEIGHTS = "adapter_model.safetensors"
ARCHITECTURE = "llama"
"""The architecture of Llama, Mistral and SmolLM2 in GGUF files; others order rows differently."""
_PREFIX = "base_model.model."
# Options of peft under which an adapter is more than two matrices with one scale.
_UNSUPPORTED = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
_DTYPES: Mapping[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}

Matrix = npt.NDArray[np.float32]


class AdapterConverter:
    """Writes GGUF files of adapters of one model.

    Args:
        model: the GGUF file of the base model.

    Raises:
        UsageError: it is of another architecture.
    """

    def __init__(self, model: Path) -> None:
        import gguf

        try:
            values, shapes = read_outline(model)
        except (OSError, ValueError, LookupError, struct.error) as error:
            raise UsageError(f"{model} cannot be read as a GGUF file: {error}") from error
        architecture = values.get("general.architecture")
        if architecture != ARCHITECTURE:
            raise UsageError(
                f"--backend local has adapters for models of the architecture '{ARCHITECTURE}', "
                f"and {model.name} is of '{architecture}'; use --backend transformers or vllm"
            )
        self._model = model.name
        self._shapes = shapes
        heads = values[f"{ARCHITECTURE}.attention.head_count"]
        key_heads = values.get(f"{ARCHITECTURE}.attention.head_count_kv", heads)
        self._heads = {"attn_q": heads, "attn_k": key_heads}
        layers = values[f"{ARCHITECTURE}.block_count"]
        self._names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)

    def convert(self, adapter: Path, target: Path) -> None:
        """Write an adapter, a folder in the format of peft, as a GGUF file.

        Raises:
            UsageError: it is no plain LoRA adapter, or does not fit the model.
        """
        import gguf

        config = _read_config(adapter)
        tensors: dict[str, Matrix] = {}
        for module, (first, second) in _pair_matrices(adapter).items():
            name = self._names.get_name(module, try_suffixes=(".weight",)) or ""
            weight = f"{name}.weight"
            shape = self._shapes.get(weight)
            if not name.startswith("blk.") or shape != [first.shape[1], len(second)]:
                raise UsageError(
                    f"{adapter} does not fit {self._model}: it changes a matrix {module} of "
                    f"{len(second)} x {first.shape[1]}, and the model has "
                    + (f"{shape[1]} x {shape[0]} there" if shape else "none that can be adapted")
                )
            heads = self._heads.get(name.rpartition(".")[2])
            tensors[f"{weight}.lora_a"] = first
            tensors[f"{weight}.lora_b"] = interleave_rows(second, heads) if heads else second

        writer = gguf.GGUFWriter(target, ARCHITECTURE)
        try:
            writer.add_type(gguf.GGUFType.ADAPTER)
            writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
            rank = config["r"]
            root = math.sqrt(rank) if config.get("use_rslora") else rank
            # llama.cpp divides this number by the rank.
            writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, config["lora_alpha"] / root * rank)
            for name, tensor in tensors.items():
                writer.add_tensor(name, tensor)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def interleave_rows(matrix: Matrix, heads: int) -> Matrix:
    """Order the rows of a projection into `heads` heads as llama.cpp has them."""
    rows, columns = matrix.shape
    halves = matrix.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def _read_config(adapter: Path) -> dict[str, Any]:
    path = adapter / CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
        known = config["peft_type"], config["r"], config["lora_alpha"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as the configuration of an adapter") from error
    special = [name for name in _UNSUPPORTED if config.get(name)]
    if config.get("bias", "none") != "none":
        special.append("bias")
    if known[0] != "LORA" or special:
        reason = ", ".join(special) or f"peft_type {known[0]}"
        raise UsageError(
            f"{adapter}: --backend local has plain LoRA adapters only, without {reason}; use "
            "--backend transformers or vllm"
        )
    return config


def _pair_matrices(adapter: Path) -> dict[str, tuple[Matrix, Matrix]]:
    """The matrices A, rank x inputs, and B, outputs x rank, by the name of their module.

    Raises:
        UsageError: there are other tensors.
    """
    path = adapter / WEIGHTS
    matrices: dict[str, dict[str, Matrix]] = {}
    try:
        for name, tensor in read_safetensors(path):
            module, _, part = name.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
            matrices.setdefault(module, {})[part] = tensor
        return {name: (parts["lora_A"], parts["lora_B"]) for name, parts in matrices.items()}
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} cannot be read as a LoRA adapter: {error}") from error


def read_safetensors(path: Path) -> Iterator[tuple[str, Matrix]]:
    """Read the tensors of a safetensors file as fp32, also those in bf16, which numpy lacks.

    Raises:
        OSError, ValueError, KeyError: it is no such file, or has other numbers.
    """
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        values = np.frombuffer(content[start + first : start + last], _DTYPES[entry["dtype"]])
        if entry["dtype"] == "BF16":
            # The upper half of a number in fp32.
            values = (values.astype(np.uint32) << 16).view(np.float32)
        yield name, values.reshape(entry["shape"]).astype(np.float32)
