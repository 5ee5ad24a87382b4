"""The template files of the built-in methods, in both wordings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from personabench.api import registry
from personabench.api.prompts import WORDINGS, PromptFile, Prompts
from personabench.api.wording import WordingName
from personabench.hashing import digest
from personabench.testing import trial

# The compact texts are those of the published reference results.  Another hash orphans these.
COMPACT = {
    "amem_like": "f3e949de3a0a545f0f36e242fbeb5cc3b76c0c7de3c3d9ad33dbc8b2031f3f55",
    "cicl": "8cbb693fecc81d7fc4322ff42d667cb4f75162cda0f69f70fbbcc38595805f20",
    "cipher": "239180df846b4e4476af49b0dfe5a16d0cffba2e2c8e40d993f7610a03941044",
    "compsum": "ebee9c03f907980410feb055947b46b2f0bc57d7f9166e8bb947690f78be393b",
    "dpl": "490bef7cb8f1652d1be29e178684f15a3eb548b783e7c0c297fa5cecdbf69504",
    "drp": "20d2682b9bfb9a5530ff35e59de2f2bb9f1894283c87cd645ee6a18f75eb73ff",
    "eragent": "49abc0c20e57b31d831a46948c183736ae386ff552f3d4bd91217f50c83be41c",
    "fermi": "86cb6ee356ee1f4827d87287635e2819d85cb32581f3f1accb8647e995153895",
    "gepa": "7782d86cdfa06317eab821c385f7894dae44ea8c72b50073ad3ef0801b1f04b8",
    "hyperalign": "0437fab4a2ceb8fcca8df4aca5bd33b39c7802f8341e4c942c9757aae4b060a4",
    "k_lamp": "5f1f3f4b27a8504f5877245f4acd0b3d15504793a32140efbdbf4fff13cb1fae",
    "mara": "75c457de046c939cec47d676e2ec5eb5dee14cd32bd0907e119062e881d151ac",
    "mem0_like": "9c693c4819414a6607877382fba4efc08b1e46c708353fee68bae4ba9ed3bebe",
    "memorybank_like": "69119442cecacce525b0195650bc11ff694b17012e057f6035d81bf0d0612e80",
    "memoryos_like": "3313ee928642d2b28130243ad65e52a393c8c54980fcf87493b17b9364f6902d",
    "persona_db": "c365ecc4f2ef5d850d6c7ec47ab91a2f85871b229339bd6a9b6774acd31cd5e6",
    "raise": "2e27bb47c507fc9d9207e6ef55c9906a6134da4519702d4b38e87f5eae5981f2",
    "prose": "e41db542435925a437a24662cca6a098aae556234f059a49bd7c5dd992c92556",
    "remind": "76cbd724c597b5ebef3203373ddcb3278f1e8ff4d46d6a5795e975794854eab1",
    "rpm": "ce56a3865c1ae30b3438ba18a26ede9487b90e71034561ace9910ac4487ddc9d",
    "summary": "4e158e8fe1b76676045b13ac6169ca6791f14653ac6266118ad0a22b3da7d936",
    "trsr": "dfca51abd44b9ba63045fce7e67c3a415282a8247d2871772b51c4bc6df906e0",
    "two_step": "0f5122ff90c0ac664c9f3a1cfd65b7c5296e72ec203609dd7cc6596ccd966571",
}
BREVITY = re.compile(
    r"one line|a line each|short paragraph|one paragraph|at most|(one|two|three) (or|to) \w+ "
    r"sentences|brief(ly)?\b(?<!than brief)",
    re.IGNORECASE,
)


TASKS = {"raise": "penguin", "two_step": "usafebench"}
"""Tasks of methods that do not run on reviews."""
OTHER: dict[WordingName, WordingName] = {"full": "compact", "compact": "full"}


def collect_files() -> dict[str, PromptFile]:
    classes = [registry.load_class("method", name) for name in registry.list_entries("method")]
    return {file.owner: file for cls in classes for file in cls.prompts or ()}


FILES = collect_files()


def test_compact_texts_are_those_of_the_reference_results() -> None:
    hashes = {owner: digest(Prompts([file]).resolved) for owner, file in sorted(FILES.items())}
    assert hashes == COMPACT


@pytest.mark.parametrize("owner", FILES)
@pytest.mark.parametrize("wording", WORDINGS)
def test_braces_of_json_are_written_once(owner: str, wording: WordingName) -> None:
    # Only `{{word}}` stands for `{word}`; doubled before anything else, a model sees both.
    for texts in Prompts([FILES[owner]], wording).resolved[owner].values():
        assert not [text for text in texts.values() if re.search(r"\{\{(?!\w+\}\})", text)]


@pytest.mark.parametrize("owner", FILES)
def test_full_texts_do_not_limit_replies(owner: str) -> None:
    for stage, texts in Prompts([FILES[owner]], "full").resolved[owner].items():
        for text in texts.values():
            assert not BREVITY.search(text), (stage, BREVITY.search(text))


@pytest.mark.parametrize("owner", FILES)
def test_every_stage_says_what_it_is_for(owner: str) -> None:
    assert all(stage.about.endswith(".") for stage in FILES[owner].stages.values())


@pytest.mark.parametrize("owner", FILES)
@pytest.mark.parametrize("wording", WORDINGS)
def test_both_wordings_run_and_reach_the_requests(owner: str, wording: WordingName) -> None:
    if registry.list_entries("method")[owner].facts.get("external"):
        pytest.importorskip(owner)
    result = trial(owner, TASKS.get(owner, "reviews"), limit=1, wording=wording)
    assert all(prediction.error is None for prediction in result.predictions)

    requests = "\n".join(
        message.content for request in result.requests for message in request.messages
    )
    literals = list_literals(owner, wording) - list_literals(owner, OTHER[wording])
    assert any(literal in requests for literal in literals)


def list_literals(owner: str, wording: WordingName) -> set[str]:
    """The texts between the slots of a file."""
    stages = Prompts([FILES[owner]], wording).resolved[owner].values()
    return {
        literal
        for texts in stages
        for text in texts.values()
        for literal in re.split(r"\{\w+\}", text)
        if len(literal) > 10
    }


def test_a_template_file_is_part_of_the_source_hash(tmp_path: Path) -> None:
    module = tmp_path / "sketch.py"
    template = tmp_path / "sketch.prompts.toml"
    module.write_text(SKETCH)
    hashes = set()
    for text in ("{records}", "All {records}"):
        template.write_text(TEMPLATE.format(text=text))
        hashes.add(registry.source_hash(registry.load_class("method", str(module))))
    assert len(hashes) == 2


SKETCH = """
from personabench import Method, PromptFile

PROMPTS = PromptFile(__file__, "sketch.prompts.toml")


class Sketch(Method):
    prompts = (PROMPTS,)

    async def predict(self, sample, state, ctx):
        return await ctx.answer(sample, notes=ctx.part(PROMPTS, "notes", records="x"))
"""
TEMPLATE = """
[notes]
slots = ["records"]

[notes.compact]
text = "{text}"

[notes.full]
text = "{{records}}"
"""
