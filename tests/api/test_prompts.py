"""Prompts as data: template files, the two wordings, and texts that replace them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from personabench import PromptFile, Vocabulary
from personabench.api.prompts import (
    Prompts,
    Replacements,
    check_owners,
    fill_slots,
    read_replacements,
    to_toml,
)
from personabench.errors import PluginError, UsageError

WORDS = Vocabulary("author", "article", "headline", "What do they like?")
TEMPLATE = """
[profile]
slots = ["records"]
optional = ["hint"]

[profile.compact]
system = "Study one {person}.{hint}"
user = "{records}"

[profile.full]
system = "Study one {person} with care."
user = "All records:\\n{records}"

[notes]
slots = ["summary"]

[notes.compact]
text = "{summary}"

[notes.full]
text = "{summary} Use it."
"""

Make = Callable[[str], PromptFile]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(text: str) -> PromptFile:
        (tmp_path / "toy.prompts.toml").write_text(text, encoding="utf-8")
        return PromptFile(str(tmp_path / "toy.py"), "toy.prompts.toml")

    return write


def replacing(text: str) -> Replacements:
    return Replacements("mine.toml", tomllib.loads(text))


def test_a_request_is_filled_from_the_method_and_the_vocabulary(make: Make) -> None:
    file = make(TEMPLATE)
    compact = Prompts([file]).messages(file, "profile", WORDS, {"records": "R", "hint": "!"})
    full = Prompts([file], "full").messages(file, "profile", WORDS, {"records": "R", "hint": "!"})

    assert [message.content for message in compact] == ["Study one author.!", "R"]
    assert [message.content for message in full] == [
        "Study one author with care.",
        "All records:\nR",
    ]
    assert Prompts([file], "full").part(file, "notes", WORDS, {"summary": "S"}) == "S Use it."


def test_values_and_json_are_not_read_as_slots() -> None:
    text = 'Reply with {"views": {"a": 1}} about {person}, not {{person}}: {records}'
    filled = fill_slots(text, {"person": "author", "records": "{person} {{person}}"})
    assert filled == (
        'Reply with {"views": {"a": 1}} about author, not {person}: {person} {{person}}'
    )


def test_a_replaced_text_leaves_the_others(make: Make) -> None:
    file = make(TEMPLATE)
    prompts = Prompts([file], "full", replacing('[toy.profile]\nuser = "Mine: {records}"'))
    messages = prompts.messages(file, "profile", WORDS, {"records": "R", "hint": ""})
    assert [message.content for message in messages] == ["Study one author with care.", "Mine: R"]


def test_an_empty_system_text_makes_no_message(make: Make) -> None:
    file = make(TEMPLATE)
    prompts = Prompts([file], "full", replacing('[toy.profile]\nsystem = ""'))
    messages = prompts.messages(file, "profile", WORDS, {"records": "R", "hint": ""})
    assert [message.role for message in messages] == ["user"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[toy.profil]\nuser = "{records}"',
            "--prompts mine.toml: method 'toy', stage 'profil': no such stage; "
            "did you mean profile?",
        ),
        (
            '[toy.profile]\nuser = "{recods}"',
            "--prompts mine.toml: method 'toy', stage 'profile', text 'user': no slot {recods}; "
            "did you mean records?",
        ),
        (
            '[toy.profile]\nuser = "No slot"',
            "--prompts mine.toml: method 'toy', stage 'profile': no text has the slot {records}, "
            "which must be in one of them",
        ),
        (
            '[toy.profile]\nusr = "{records}"',
            "--prompts mine.toml: method 'toy', stage 'profile': no text 'usr'; did you mean user?",
        ),
        (
            '[toy.notes]\nuser = "{summary}"',
            "--prompts mine.toml: method 'toy', stage 'notes': no text 'user'; there are: text",
        ),
    ],
)
def test_a_replacement_that_cannot_work_is_named(make: Make, text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        Prompts([make(TEMPLATE)], "full", replacing(text))
    assert str(error.value) == message


def test_a_replacement_of_a_method_that_does_not_run_is_named(make: Make) -> None:
    replacements = replacing('[tow.profile]\nuser = "{records}"')
    with pytest.raises(UsageError, match=r"method 'tow': toy has no texts .*did you mean toy"):
        check_owners(replacements, [make(TEMPLATE)], ["toy"])
    with pytest.raises(UsageError, match="no texts of none, rag can be replaced"):
        check_owners(replacements, [], ["none", "rag"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[profile", "no template file that can be read"),
        ('[profile]\nabout = "x"', "missing required field `full`"),
        (TEMPLATE.replace("{records}", "{recods}"), "text 'user': no slot {recods}"),
        (TEMPLATE.replace("{summary} Use it.", "Use it."), "wording 'full': no text has the slot"),
        (TEMPLATE.replace('text = "{summary}"', 'word = "{summary}"'), "not word"),
    ],
)
def test_a_wrong_template_file_is_named(make: Make, text: str, problem: str) -> None:
    file = make(text)
    with pytest.raises(PluginError) as error:
        Prompts([file])
    assert str(file.path) in str(error.value)
    assert problem in str(error.value)


def test_a_method_that_fills_other_slots_is_named(make: Make) -> None:
    file = make(TEMPLATE)
    with pytest.raises(PluginError, match="stage 'profile': the method fills the slots records"):
        Prompts([file]).messages(file, "profile", WORDS, {"records": "R"})
    with pytest.raises(PluginError, match="stage 'notse': no such stage; did you mean notes"):
        Prompts([file]).part(file, "notse", WORDS, {})


def test_a_method_must_declare_the_files_that_it_uses(make: Make) -> None:
    file = make(TEMPLATE)
    with pytest.raises(PluginError, match="add it to its class attribute `prompts`"):
        Prompts([], "full").part(file, "notes", WORDS, {"summary": "S"})


def test_a_method_with_texts_in_its_code_gets_the_compact_ones_of_another(make: Make) -> None:
    file = make(TEMPLATE)
    prompts = Prompts(None, "full")
    assert prompts.part(file, "notes", WORDS, {"summary": "S"}) == "S"
    # The task's requests have two wordings as well.
    assert prompts.identity is not msgspec.UNSET
    assert prompts.changed("compact") == {"wording": "full"}


def test_the_identity_is_that_of_the_texts(make: Make) -> None:
    file = make(TEMPLATE)
    compact, full = Prompts([file]), Prompts([file], "full")
    assert compact.identity is msgspec.UNSET
    assert full.identity is not msgspec.UNSET

    # Equal texts under another name, and texts of a wording that are not changed, are the same.
    same = Prompts([file], "full", Replacements("x.toml", full.resolved))
    assert same.identity == full.identity
    assert not same.is_replaced

    # The task's own texts follow the wording, even if those of the method are replaced.
    as_full = Prompts([file], "compact", Replacements("y.toml", full.resolved))
    assert as_full.identity not in (full.identity, msgspec.UNSET)

    other = Prompts([file], "full", replacing('[toy.notes]\ntext = "Now {summary}"'))
    assert other.identity not in (full.identity, msgspec.UNSET)


def test_a_label_names_what_is_not_the_default(make: Make) -> None:
    file = make(TEMPLATE)
    assert Prompts([file], "full").changed("full") == {}
    assert Prompts([file], "full").changed("compact") == {"wording": "full"}

    replaced = Prompts([file], "full", replacing('[toy.notes]\ntext = "Now {summary}"'))
    ((name, value),) = replaced.changed("full").items()
    assert name == "prompts"
    assert value.startswith("mine-")


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        'two\nlines with "quotes" and {slots}',
        'a\n"""',
        'ends in a quote\n"',
        "back\\slash\nand\ttab",
        "\nleading and trailing\n",
        "carriage\r\nreturn",
        "",
    ],
)
def test_printed_texts_are_read_back(text: str) -> None:
    tables = {"toy": {"notes": {"text": text}}}
    assert tomllib.loads(to_toml(tables)) == tables


def test_yaml_and_toml_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[toy.notes]\ntext = "{summary}!"')
    (tmp_path / "a.yaml").write_text("toy:\n  notes:\n    text: '{summary}!'\n")
    texts = [read_replacements(tmp_path / name).texts for name in ("a.toml", "a.yaml")]
    assert texts[0] == texts[1] == {"toy": {"notes": {"text": "{summary}!"}}}


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.toml", "[toy", "a.toml: Expected"),
        ("a.yaml", "toy: [", "a.yaml: while parsing"),
        ("a.yaml", "text", "expected a table of methods"),
        ("a.toml", 'toy = "x"', "'toy' is no table of stages"),
        ("a.toml", '[toy]\nnotes = "x"', "method 'toy', stage 'notes': expected a table of texts"),
        ("a.toml", "[toy.notes]\ntext = 3", "stage 'notes', text 'text': expected a text, not 3"),
    ],
)
def test_a_file_of_texts_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: str, problem: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UsageError) as error:
        read_replacements(path)
    assert problem in str(error.value)
    assert name in str(error.value)


def test_a_missing_file_of_texts_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.toml: the file cannot be read"):
        read_replacements(tmp_path / "absent.toml")
