"""What may change the answers of a vLLM server is part of the model's identity."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from fake_vllm import SECRET

from personabench.errors import UsageError
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.model_identity import (
    adapted_identity,
    adapters_of,
    model_identity,
    served_identity,
)
from personabench.models.backends.vllm import VLLM


def checkpoint(folder: Path, weights: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_a_folder_is_named_by_content_not_place(tmp_path: Path) -> None:
    weights = bytes(3_000_000)
    one, same = checkpoint(tmp_path / "a/final", weights), checkpoint(tmp_path / "b/final", weights)
    other = checkpoint(tmp_path / "c/final", weights[:-1] + b"x")
    assert model_identity(str(one)) == model_identity(str(same)) != model_identity(str(other))
    assert model_identity(str(one))["name"] == "final" and str(tmp_path) not in str(
        model_identity(str(one))
    )
    entry = {"id": "alias", "root": str(one), "parent": None}
    assert served_identity(entry, [entry]) == model_identity(str(one))


def test_a_folder_on_another_machine_goes_by_its_served_name() -> None:
    entry = {"id": "mine-v2", "root": "/nowhere/here/final", "parent": None}
    assert served_identity(entry, [entry]) == {"kind": "vllm", "name": "mine-v2"}


def test_an_adapter_is_named_with_its_base() -> None:
    base = {"id": "base", "root": "org/tiny", "parent": None}
    adapter = {"id": "ann", "root": "/nowhere/ann", "parent": "base"}
    assert served_identity(adapter, [base, adapter]) == {
        "kind": "vllm",
        "name": "ann",
        "base": "org/tiny",
    }


OFF = '{"enable_thinking": false}'


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("-q fp8 --dtype=half", "--dtype=half --quantization=fp8"),
        (
            f"--default-chat-template-kwargs '{OFF}'",
            "'--default-chat-template-kwargs={\"enable_thinking\":false}'",
        ),
        ("--reasoning-parser qwen3", "--reasoning-parser=qwen3"),
        (
            "--generation-config vllm --max-model-len 4096",
            "--generation-config=vllm --max-model-len=4096",
        ),
        ("--trust-remote-code", "--trust-remote-code"),
        ("--an-option-of-tomorrow 3", "--an-option-of-tomorrow=3"),
        ("--seed -1", "--seed=-1"),
        ("--logits-processors a.B c.D", "--logits-processors=a.B c.D"),
    ],
)
def test_what_may_change_answers_is_part_of_the_model(words: str, options: str) -> None:
    assert model_identity("org/tiny", shlex.split(words)) == {
        **model_identity("org/tiny"),
        "options": options,
    }


@pytest.mark.parametrize(
    "words",
    [
        "--tensor-parallel-size 8 --data-parallel-size=2",
        "-tp 8 -pp=2 --distributed_executor_backend ray",
        "--gpu-memory-utilization .8 --max-num-seqs 64 "
        "--max_num_batched_tokens=8192 --enforce-eager",
        "--no-enable-prefix-caching --no-enable-chunked-prefill",
        "--disable-log-requests --uvicorn-log-level debug "
        "--served-model-name a b --download-dir /models",
        "--enable-lora --lora-modules ann=/a bob=/b --max-loras 2",
    ],
)
def test_what_changes_no_answer_is_not(words: str) -> None:
    assert model_identity("org/tiny", shlex.split(words)) == model_identity("org/tiny")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("--dtype half --seed 3", "--seed=3 --dtype=half"),
        ("--kv_cache_dtype fp8", "--kv-cache-dtype=fp8"),
        ("-q fp8", "--quantization fp8"),
        ("--dtype float --dtype half", "--dtype half"),
        ("--trust-remote-code --no-trust-remote-code", "--no-trust-remote-code"),
        ('--hf-overrides \'{"b": 1, "a": [2]}\'', '--hf_overrides=\'{"a":[2],"b":1}\''),
        ("--hf_overrides.rope_theta 3", "--hf-overrides.rope_theta=3"),
    ],
)
def test_one_argument_has_many_spellings(one: str, other: str) -> None:
    assert model_identity("org/tiny", shlex.split(one)) == model_identity(
        "org/tiny", shlex.split(other)
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("--trust-remote-code", "--no-trust-remote-code"),
        ("--middleware a --middleware b", "--middleware b"),
        ("--hf-overrides.layers+ a --hf-overrides.layers+ b", "--hf-overrides.layers+ b"),
        ("--hf-overrides.rope_theta 3", "--hf-overrides.rope-theta 3"),
        (
            f"--default-chat-template-kwargs '{OFF}'",
            f"--default-chat-template-kwargs '{OFF.replace('false', 'true')}'",
        ),
    ],
)
def test_different_arguments_are_different_models(one: str, other: str) -> None:
    assert model_identity("org/tiny", shlex.split(one)) != model_identity(
        "org/tiny", shlex.split(other)
    )


def test_files_among_arguments_count_by_content(tmp_path: Path) -> None:
    def of(path: Path, form: str) -> dict[str, str]:
        return model_identity("org/tiny", shlex.split(form.format(path)))

    for form in (
        "--chat-template {}",
        "--speculative-config.model={}",
        '--speculative-config \'{{"model":"{}"}}\'',
    ):
        for name, text in (("one.jinja", "a"), ("same.jinja", "a"), ("other.jinja", "b")):
            (tmp_path / name).write_text(text)
        one, same, other = (
            of(tmp_path / name, form) for name in ("one.jinja", "same.jinja", "other.jinja")
        )
        assert one == same != other and str(tmp_path) not in str(one)


async def test_arguments_in_the_command_of_vllm_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    given = BackendOptions("org/tiny", vllm_args=("--seed=3",))
    monkeypatch.setenv("PERSONABENCH_VLLM", "srun --gpus=1 vllm serve --dtype half --seed 1")
    made = VLLM(given)
    await made.identify()
    assert made.identity == model_identity("org/tiny", ["--dtype=half", "--seed=3"])
    for command, words in (
        ("serve --api-key x", "--api-key: cannot be set here"),
        ('vllm "serve', "PERSONABENCH_VLLM: No clos"),
    ):
        monkeypatch.setenv("PERSONABENCH_VLLM", command)
        with pytest.raises(UsageError, match=words):
            await VLLM(given).identify()


@pytest.mark.parametrize("option", ["--api-key", "--api_key", "--api-k", "--hf-token", "--hf_tok"])
async def test_a_secret_among_arguments_is_refused_before_anything_is_written(option: str) -> None:
    for words in ((option, SECRET), (f"{option}={SECRET}",)):
        with pytest.raises(
            UsageError, match=r"--vllm-args --(api|hf)-[a-z]+: .*set (VLLM_API_KEY|HF_TOKEN)"
        ) as caught:
            await VLLM(BackendOptions("org/tiny", vllm_args=words)).identify()
        assert SECRET not in str(caught.value)


def test_adapters_are_part_of_the_model_by_content(tmp_path: Path) -> None:
    one, other = checkpoint(tmp_path / "a", b"1"), checkpoint(tmp_path / "b", b"2")
    words = (
        "--enable-lora",
        "--lora-modules",
        f"ann={one}",
        f'{{"name": "bob", "path": "{other}"}}',
        "--dtype=half",
    )
    assert (
        adapters_of(words)
        == {"ann": str(one), "bob": str(other)}
        == adapters_of((f"--lora-modules=ann={one}", *words))
    )
    with pytest.raises(UsageError, match=r"--lora-modules .*not a name and a path"):
        adapters_of(("--lora-modules", '{"name": "ann"}'))
    base = model_identity("org/tiny")
    first = adapted_identity(base, "{user_id}", {"ann": str(one)})
    assert first["name"] == "org/tiny+{user_id}" and str(tmp_path) not in str(first)
    assert first == adapted_identity(base, "{user_id}", {"ann": str(one), "far": "/nowhere"})
    assert first != adapted_identity(base, "{user_id}", {"ann": str(other)})
    hub = adapted_identity(base, "ann", {"ann": "org/adapter-1"})
    assert (
        hub
        != adapted_identity(base, "ann", {"ann": "org/adapter-2"})
        != adapted_identity(base, "ann", {"ann": "/nowhere"})
    )
