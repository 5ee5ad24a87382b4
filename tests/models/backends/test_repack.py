"""The packaged model in a faster format: made once, a model of its own, optional."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from personabench.models.backends.base import BackendOptions
from personabench.models.backends.local import REPACKED, Local, find_model
from personabench.models.backends.repack import repack
from personabench.types import Message, Request


def small_model(path: Path) -> Path:
    """Write a file with one tensor of each kind that repacking treats differently."""
    weights = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    kinds = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_key_value("some.words", ["a", "b"], gguf.GGUFValueType.ARRAY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1)
    writer.add_tensor("norm", weights)
    for name, kind in (("coarse", kinds.Q4_1), ("fine", kinds.Q8_0)):
        writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def test_a_repacked_file_keeps_metadata_and_weights(tmp_path: Path, cache: Path) -> None:
    source = small_model(tmp_path / "tiny.Q4_1.gguf")
    target = repack(source)
    assert target.name == "tiny.Q8_0.gguf" and target.is_relative_to(cache)
    assert target.parent.name == hashlib.sha256(source.read_bytes()).hexdigest()[:16]

    before, after = gguf.GGUFReader(source), gguf.GGUFReader(target)
    words = after.get_field("some.words")
    kind = after.get_field("general.file_type")
    assert words is not None and words.contents() == ["a", "b"]
    assert kind is not None and kind.contents() == gguf.LlamaFileType.MOSTLY_Q8_0
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert (old.name, list(old.shape)) == (new.name, list(new.shape))
        assert new.tensor_type.name == ("F32" if new.name == "norm" else "Q8_0")
        old_weights = gguf.quants.dequantize(old.data, old.tensor_type)
        new_weights = gguf.quants.dequantize(new.data, new.tensor_type)
        limit = np.abs(old_weights).max() / 254 * 1.01 if old.name == "coarse" else 0
        assert np.abs(old_weights - new_weights).max() <= limit


def test_a_file_is_repacked_once_and_to_the_same_bytes(tmp_path: Path, cache: Path) -> None:
    source = small_model(tmp_path / "tiny.Q4_1.gguf")
    target = repack(source)
    written, content = target.stat().st_mtime_ns, target.read_bytes()
    assert repack(source) == target and target.stat().st_mtime_ns == written
    target.unlink()
    assert repack(source).read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "broken.gguf"
    source.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + b"\xff" * 20)
    with pytest.raises(Exception, match=r".+"):
        repack(source)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_without_a_writable_cache_the_source_answers_and_the_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert find_model(REPACKED) == find_model(None)
    warning = capsys.readouterr().err
    assert "cannot be repacked" in warning and "another model" in warning


@pytest.mark.variants
@pytest.mark.model
def test_the_repacked_model_answers_under_a_name_of_its_own(cache: Path) -> None:
    async def ask(model: str | None) -> tuple[Local, str]:
        backend = Local(BackendOptions(model=model, window=512))
        await backend.identify()
        await backend.open()
        request = Request((Message("user", "What is the capital of France?"),), max_tokens=12)
        response = await backend.complete(request, "u")
        await backend.aclose()
        return backend, response.text

    source, _ = asyncio.run(ask(None))
    repacked, text = asyncio.run(ask(REPACKED))
    assert repacked.packaged and source.packaged and text.strip()
    assert repacked.identity["sha256"] != source.identity["sha256"]
    assert repacked.identity["name"] == "SmolLM2-135M-Instruct.Q8_0"
