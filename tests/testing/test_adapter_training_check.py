"""`check method` on methods that train adapters, on a tiny random model: needs the extra train."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("peft", reason="needs the extra train")

from personabench.api import registry
from personabench.api.training import Exchange, TrainContext, TrainedMethod
from personabench.methods.oppu import Oppu
from personabench.testing.checks import check_method
from personabench.testing.training_check import (
    LATER,
    OTHERS,
    REFERENCES,
    check_training,
    open_training_examples,
)


@pytest.mark.parametrize("name", ["oppu", "stylevector"])
def test_the_trained_methods_pass(name: str) -> None:
    findings = list(check_method(registry.load_class("method", name)(), "lamp4", 2))
    assert {finding.holds for finding in findings} == {True}, findings
    assert len(findings) == 13


class Leaking(Oppu):
    """The defect of OPPU's released code: the list of examples is never emptied."""

    name = "leaking"

    def _make_examples(self, exchanges: Any, tokenizer: Any, ctx: TrainContext) -> Any:
        kept: list[Exchange] = vars(self).setdefault("kept", [])
        kept.extend(exchanges)
        return super()._make_examples(kept, tokenizer, ctx)


def test_examples_of_other_users_are_seen_in_the_bytes_of_an_adapter() -> None:
    method: TrainedMethod = Leaking(Leaking.Params(population=False, epochs=1))
    task = registry.load_class("task", "lamp4")()
    with open_training_examples(method, task, task.open("user/dev", None)) as examples:
        assert not isinstance(examples, str)
        findings = {finding.what: finding for finding in check_training(method, examples)}
        others = examples.users[:-1]
    failed = {what for what, finding in findings.items() if finding.holds is False}
    assert failed == {OTHERS.check}
    assert findings[REFERENCES.check].holds and findings[LATER.check].holds
    detail = findings[OTHERS.check].detail
    assert f"user {examples.users[-1]}: adapter/adapter_model.safetensors depends on" in detail
    assert f"of user {others[0]}" in detail and " more" in detail
