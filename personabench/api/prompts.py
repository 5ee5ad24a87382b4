"""Prompts as data: the texts of a method in a template file beside it.

    # summary.prompts.toml
    [profile]
    about = "A summary of a user's records."
    slots = ["records"]

    [profile.compact]
    system = "You study one {person}."
    user = "Records:\\n\\n{records}"

A file has stages, and a stage has texts: `system` and `user` for a request, or `text` for a part of
one.  Each stage comes in two wordings: `full`, and `compact` for small models.  A name in braces is
a slot; `{{name}}` stands for the braces themselves.  Texts may be replaced one by one, which is
checked before the first model call.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from personabench.api.wording import Vocabulary, WordingName
from personabench.errors import PluginError, UsageError
from personabench.hashing import digest
from personabench.types import Message

WORDINGS: tuple[WordingName, ...] = get_args(WordingName)

ROLES: tuple[Literal["system", "user"], ...] = ("system", "user")
PART = "text"

VOCABULARY_SLOTS = (
    "person",
    "stimulus",
    "response",
    "profile_question",
    "goal",
    "answer_form",
    "Person",
    "Stimulus",
    "Response",
)
"""Slots of every text, filled from the task's vocabulary; `Person` is capitalized."""

_SLOT = re.compile(r"\{\{(\w+)\}\}|\{([A-Za-z_]\w*)\}")

Texts = Mapping[str, str]
"""The texts of a stage by name."""


@dataclass(frozen=True)
class Stage:
    """One kind of request, or a part of requests.

    Attributes:
        about: its purpose, in one sentence.
        slots: slots that its texts must have, since the request would lack content without them.
        optional: slots that its texts may have.
        wordings: its texts by wording.
    """

    about: str
    slots: tuple[str, ...]
    optional: tuple[str, ...]
    wordings: Mapping[str, Texts]

    @property
    def filled(self) -> tuple[str, ...]:
        """The slots that the method fills."""
        return (*self.slots, *self.optional)

    def check(self, texts: Texts, where: str) -> str:
        """Describe the first fault in the slots of some texts; empty without one."""
        available = (*self.filled, *VOCABULARY_SLOTS)
        used: set[str] = set()
        for name, text in texts.items():
            for slot in list_slots(text):
                if slot not in available:
                    hint = _suggest(slot, available)
                    return f"{where}, text '{name}': no slot {{{slot}}}; {hint}"
                used.add(slot)

        missing = [slot for slot in self.slots if slot not in used]
        if missing:
            return f"{where}: no text has the slot {{{missing[0]}}}, which must be in one of them"
        return ""


class PromptFile:
    """The template file of a method.

    Args:
        module_file: `__file__` of the module that the file is beside.
        name: the file's name, `OWNER.prompts.toml`.

    Attributes:
        owner: the name under which `--prompts FILE` replaces its texts.
    """

    def __init__(self, module_file: str, name: str) -> None:
        self.path = Path(module_file).parent / name
        self.owner = name.partition(".")[0]

    @cached_property
    def stages(self) -> Mapping[str, Stage]:
        """The stages by name.

        Raises:
            PluginError: the file is missing or wrong.
        """
        try:
            tables = tomllib.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PluginError(f"{self.path}: no template file that can be read: {error}") from error
        return {name: _read_stage(table, self, name) for name, table in tables.items()}

    def where(self, stage: str) -> str:
        """Name a stage in a message."""
        return f"{self.path}: method '{self.owner}', stage '{stage}'"


class _StageTable(msgspec.Struct, forbid_unknown_fields=True):
    """A stage as the file has it."""

    full: dict[str, str]
    compact: dict[str, str]
    about: str = ""
    slots: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def _read_stage(table: Any, file: PromptFile, name: str) -> Stage:
    where = file.where(name)
    try:
        fields = msgspec.convert(table, _StageTable)
    except msgspec.ValidationError as error:
        raise PluginError(f"{where}: {error}") from error

    stage = Stage(
        fields.about,
        fields.slots,
        fields.optional,
        {"full": fields.full, "compact": fields.compact},
    )
    for wording, texts in stage.wordings.items():
        problem = _check_names(texts, where) or stage.check(texts, f"{where}, wording '{wording}'")
        if problem:
            raise PluginError(problem)
    return stage


def _check_names(texts: Texts, where: str) -> str:
    if set(texts) in ({"system", "user"}, {"user"}, {PART}):
        return ""
    return f"{where}: expected the texts system and user, or {PART} alone, not {_join(texts)}"


@dataclass(frozen=True)
class Replacements:
    """The texts of `--prompts FILE`: by method, stage and name.

    Attributes:
        source: the file as the user named it.
    """

    source: str
    texts: Mapping[str, Mapping[str, Texts]]


def read_replacements(path: Path) -> Replacements:
    """Read texts that replace those of methods, from TOML or YAML.

    Raises:
        UsageError: the file cannot be read, or is no table of methods, stages and texts.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--prompts {path}: the file cannot be read: {error}") from error

    try:
        tables = _parse(path, content)
    # The two parsers have different errors; those of YAML derive from nothing narrower.
    except Exception as error:
        raise UsageError(f"--prompts {path}: {error}") from error
    return Replacements(str(path), _check_tables(tables, path))


def _parse(path: Path, content: str) -> Any:
    if path.suffix in (".yaml", ".yml"):
        # Imported late: few commands read YAML.
        import yaml

        return yaml.safe_load(content)
    return tomllib.loads(content)


def _check_tables(tables: Any, path: Path) -> dict[str, dict[str, Texts]]:
    example = "write it as [METHOD.STAGE] with system = ... and user = ..."
    if not isinstance(tables, dict):
        raise UsageError(f"--prompts {path}: expected a table of methods; {example}")

    for owner, stages in tables.items():
        if not isinstance(stages, dict):
            raise UsageError(f"--prompts {path}: '{owner}' is no table of stages; {example}")
        for stage, texts in stages.items():
            where = f"--prompts {path}: method '{owner}', stage '{stage}'"
            if not isinstance(texts, dict):
                raise UsageError(f"{where}: expected a table of texts; {example}")
            for name, text in texts.items():
                if not isinstance(text, str):
                    raise UsageError(f"{where}, text '{name}': expected a text, not {text!r}")
    return tables


def check_owners(
    replacements: Replacements,
    files: Iterable[PromptFile],
    methods: Iterable[str],
) -> None:
    """Check that every method that texts replace is part of a command.

    Args:
        files: the template files of the command's methods.

    Raises:
        UsageError: a name that owns none of the files.
    """
    owners = list(dict.fromkeys(file.owner for file in files))
    for owner in replacements.texts:
        if owner in owners:
            continue
        if not owners:
            raise UsageError(
                f"--prompts {replacements.source}: method '{owner}': no texts of {_join(methods)} "
                "can be replaced; leave the file out"
            )
        raise UsageError(
            f"--prompts {replacements.source}: method '{owner}': {_join(methods)} has no texts "
            f"under this name; {_suggest(owner, owners)}"
        )


@dataclass
class Prompts:
    """The texts of one method, resolved: a wording, and what replaces parts of it.

    Attributes:
        files: the method's template files; None for one whose texts are in its code.  If such a
            method works with the help of another, that one's texts are its compact ones.

    Raises:
        UsageError: a replaced text whose stage, name or slots do not exist.
    """

    files: Sequence[PromptFile] | None = None
    wording: WordingName = "compact"
    replacements: Replacements | None = None
    _texts: dict[tuple[str, str], Texts] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for file in self.files or ():
            replaced = self.replacements.texts.get(file.owner, {}) if self.replacements else {}
            for name in replaced:
                if name not in file.stages:
                    hint = _suggest(name, file.stages)
                    raise UsageError(f"{self._where(file, name)}: no such stage; {hint}")
            for name, stage in file.stages.items():
                self._texts[file.owner, name] = self._replace(file, name, stage, replaced)

    def _replace(
        self,
        file: PromptFile,
        name: str,
        stage: Stage,
        replaced: Mapping[str, Texts],
    ) -> Texts:
        texts = stage.wordings[self.wording]
        if name not in replaced:
            return texts

        where = self._where(file, name)
        allowed = (PART,) if PART in texts else ROLES
        for text_name in replaced[name]:
            if text_name not in allowed:
                raise UsageError(f"{where}: no text '{text_name}'; {_suggest(text_name, allowed)}")

        merged = {**texts, **replaced[name]}
        problem = stage.check(merged, where)
        if problem:
            raise UsageError(problem)
        return merged

    def _where(self, file: PromptFile, stage: str) -> str:
        assert self.replacements is not None
        return f"--prompts {self.replacements.source}: method '{file.owner}', stage '{stage}'"

    @property
    def resolved(self) -> dict[str, dict[str, Texts]]:
        """All texts by owner and stage, as `--prompts FILE` has them."""
        tables: dict[str, dict[str, Texts]] = {}
        for (owner, stage), texts in self._texts.items():
            tables.setdefault(owner, {})[stage] = texts
        return tables

    @property
    def identity(self) -> str | msgspec.UnsetType:
        """The hash of wording and texts; unset for the compact ones, which the source hash covers.

        Texts count, not their origin.
        """
        if self.wording != "compact":
            return digest([self.wording, self.resolved])
        return digest(self.resolved) if self.is_replaced else msgspec.UNSET

    @property
    def is_replaced(self) -> bool:
        """Whether texts are not those of the wording."""
        return self.resolved != Prompts(self.files, self.wording).resolved

    def changed(self, default: WordingName) -> dict[str, str]:
        """Return the options that differ from the default ones, to label a run."""
        options: dict[str, str] = {}
        if self.wording != default:
            options["wording"] = self.wording
        if self.is_replaced:
            options["prompts"] = self.name_replacements()
        return options

    def name_replacements(self) -> str:
        """Name the file of replaced texts, with the beginning of the hash of all texts."""
        assert self.replacements is not None
        stem = Path(self.replacements.source).stem
        # The hash separates two versions of one file.
        return f"{stem}-{digest(self.resolved)[:8]}"

    def messages(
        self,
        file: PromptFile,
        stage: str,
        words: Vocabulary,
        slots: Mapping[str, str],
    ) -> tuple[Message, ...]:
        """Fill the texts of a request; an empty one makes no message.

        Raises:
            PluginError: the method fills other slots than the stage has.
        """
        texts = self._stage_texts(file, stage)
        values = _fill(file, stage, words, slots)
        filled = [(role, fill_slots(texts[role], values)) for role in ROLES if role in texts]
        return tuple(Message(role, content) for role, content in filled if content)

    def part(
        self,
        file: PromptFile,
        stage: str,
        words: Vocabulary,
        slots: Mapping[str, str],
    ) -> str:
        """Fill the text of a part.

        Raises:
            PluginError: as `messages`.
        """
        text = self._stage_texts(file, stage)[PART]
        return fill_slots(text, _fill(file, stage, words, slots))

    def _stage_texts(self, file: PromptFile, stage: str) -> Texts:
        if stage not in file.stages:
            raise PluginError(f"{file.where(stage)}: no such stage; {_suggest(stage, file.stages)}")
        if (file.owner, stage) in self._texts:
            return self._texts[file.owner, stage]
        if self.files is None:
            return file.stages[stage].wordings["compact"]
        raise PluginError(
            f"{file.where(stage)}: the method uses this file without declaring it; add it to its "
            "class attribute `prompts`"
        )


def _fill(
    file: PromptFile,
    stage: str,
    words: Vocabulary,
    slots: Mapping[str, str],
) -> dict[str, str]:
    """Return the values of all slots, those of the task's vocabulary included."""
    expected = file.stages[stage].filled
    if set(expected) != set(slots):
        raise PluginError(
            f"{file.where(stage)}: the method fills the slots {_join(slots)}, but the stage has "
            f"{_join(expected)}"
        )
    return {**_vocabulary(words), **slots}


def _vocabulary(words: Vocabulary) -> dict[str, str]:
    values: dict[str, str] = {}
    for name in VOCABULARY_SLOTS:
        text: str = getattr(words, name.lower())
        values[name] = text if name.islower() else text.capitalize()
    return values


def list_slots(text: str) -> list[str]:
    """List the slots of a text, in its order."""
    return [match[2] for match in _SLOT.finditer(text) if match[2]]


def fill_slots(text: str, values: Mapping[str, str]) -> str:
    """Replace each slot by its value; values are not searched for slots."""
    return _SLOT.sub(lambda match: values[match[2]] if match[2] else f"{{{match[1]}}}", text)


def to_toml(tables: Mapping[str, Mapping[str, Texts]]) -> str:
    """Write texts as `--prompts FILE` reads them."""
    parts = []
    for owner, stages in tables.items():
        for stage, texts in stages.items():
            lines = [f"[{_key(owner)}.{_key(stage)}]"]
            lines += [f"{_key(name)} = {_toml_text(text)}" for name, text in texts.items()]
            parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else _toml_text(name)


def _toml_text(text: str) -> str:
    # The escapes of JSON are also those of TOML.
    lines = [json.dumps(line, ensure_ascii=False)[1:-1] for line in text.split("\n")]
    if len(lines) == 1:
        return f'"{lines[0]}"'

    content = "\n".join(lines)
    if '"""' not in text and not text.endswith('"'):
        content = content.replace('\\"', '"')
    # The line break after the opening quotes does not count.
    return f'"""\n{content}"""'


def _join(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _suggest(name: str, choices: Iterable[str]) -> str:
    """Name the nearest choice, or all."""
    choices = list(choices)
    matches = difflib.get_close_matches(name, choices, n=1)
    return f"did you mean {matches[0]}?" if matches else f"there are: {_join(choices)}"
