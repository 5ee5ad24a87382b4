"""GGUF files made of the packaged model: without a chat template, or with another one."""

from __future__ import annotations

from pathlib import Path

from personabench.models.backends.gguf import CHAT_TEMPLATE
from personabench.models.backends.local import find_model

# As Gemma's: no system role, and turns that alternate.
NO_SYSTEM = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\n' }}"
)


def base_model(path: Path) -> Path:
    """Write the packaged model without its chat template."""
    content = find_model(None).read_bytes()
    # A key of the same length, so that no offset changes.
    key = CHAT_TEMPLATE.encode()
    path.write_bytes(content.replace(key, key[:-1] + b"_", 1))
    return path


def with_template(path: Path, template: str) -> Path:
    """Write the packaged model with another chat template, which must not be longer."""
    content = find_model(None).read_bytes()
    key = CHAT_TEMPLATE.encode()
    start = content.index(key) + len(key) + 4
    length = int.from_bytes(content[start : start + 8], "little")
    encoded = template.encode()
    padding = length - len(encoded) - len("{##}")
    assert padding >= 0, f"the template may have {length - 4} bytes, it has {len(encoded)}"
    filled = encoded + b"{#" + b" " * padding + b"#}"
    path.write_bytes(content[: start + 8] + filled + content[start + 8 + length :])
    return path
