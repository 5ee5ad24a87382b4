"""Repack a GGUF file once into the Q8_0 format, for which llama.cpp has fast CPU kernels.

The weights change a little: in every block of 32, they are rounded to 1/127 of the largest.  The
repacked file is therefore another model than its source, with a name and a hash of its own.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gguf

FORMAT = "Q8_0"


def repack(source: Path) -> Path:
    """Return the Q8_0 version of a GGUF file from the user's cache, made now if it is missing.

    Its folder in the cache is named after the hash of the source.

    Raises:
        OSError: the cache cannot be written.
        ImportError: the package `gguf` is missing.
        ValueError: the source is no GGUF file, or has tensors that cannot be repacked.
    """
    with source.open("rb") as file:
        sha = hashlib.file_digest(file, "sha256").hexdigest()
    base, _, _ = source.stem.rpartition(".")
    target = cache_folder() / sha[:16] / f"{base or source.stem}.{FORMAT}.gguf"
    if target.is_file():
        return target

    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"repacking {source.name} once, into {target}", file=sys.stderr, flush=True)
    # Written under another name, since another process may be repacking the same file.
    descriptor, name = tempfile.mkstemp(dir=target.parent, suffix=".tmp")
    os.close(descriptor)
    temporary = Path(name)
    try:
        _write(source, temporary)
        temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return target


def cache_folder() -> Path:
    """The folder of repacked models in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "personabench" / "models"


def _write(source: Path, target: Path) -> None:
    import gguf
    from gguf.quants import dequantize, quantize

    reader = gguf.GGUFReader(source)
    architecture = reader.get_field(gguf.Keys.General.ARCHITECTURE)
    if architecture is None:
        raise ValueError(f"{source} does not name its architecture")

    writer = gguf.GGUFWriter(target, architecture.contents())
    try:
        _copy_metadata(reader, writer)
        kinds = gguf.GGMLQuantizationType
        unchanged = (kinds.F32, kinds.F16, kinds.BF16, kinds.Q8_0)
        for tensor in reader.tensors:
            data, kind = tensor.data, tensor.tensor_type
            if kind not in unchanged:
                weights = dequantize(data, kind)
                data, kind = quantize(weights, kinds.Q8_0), kinds.Q8_0
            writer.add_tensor(tensor.name, data, raw_dtype=kind)

        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    import gguf

    # The writer sets the header and the architecture itself.
    own = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", gguf.Keys.General.ARCHITECTURE)
    for name, field in reader.fields.items():
        if name == gguf.Keys.General.FILE_TYPE:
            writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
        elif name not in own:
            kind = field.types[0]
            item_kind = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, sub_type=item_kind)
