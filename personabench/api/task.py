"""The `Task` interface: data, wording, reading of answers and metrics.

A task words its requests and reads the answers; it knows no method.  A static task is `load`,
`words` and `kind`: its requests, its reading of answers and its metrics have defaults by kind, each
of which it may replace.  Further abilities are interfaces of their own: `OnlineTask`,
`DialogueTask` and `JudgedTask` for interaction, `OfficialFiles` and `SubmissionFile` for the
benchmark's files, `Downloadable`, `Generative` and `Audited` for its data.

A benchmark's folder may define several tasks; the registry lists every class that has a literal
`name`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from personabench.api import defaults, wording
from personabench.api.contracts import TASK, Contract, check_dataset, guard_methods
from personabench.api.dataset import Dataset
from personabench.api.layout import Layout, has_layout
from personabench.api.prompts import PromptFile, Prompts, Replacements
from personabench.api.rows import NoDataError
from personabench.api.sample_check import locate_class, module_file
from personabench.api.static import StaticDataset
from personabench.api.wording import Rendered, ResponseKind, Vocabulary, Wording, WordingName
from personabench.errors import UsageError
from personabench.metrics.evidence import measure_evidence
from personabench.metrics.metric import Metric, Value
from personabench.models.tokens import Tokens
from personabench.retrieval.tokenizers import get_tokenizer
from personabench.types import Record, Sample

if TYPE_CHECKING:
    from personabench.models.roles import RoleName

__all__ = ["JsonObject", "Protocol", "Task"]

Protocol = Literal["static", "online", "dialogue"]
JsonObject = Mapping[str, Any]
"""A recorded interaction, a feedback or an assessment: any JSON object."""

_TEXT_FIELDS = (
    "person",
    "stimulus",
    "response",
    "profile_question",
    "instruction",
    "goal",
    "answer_form",
)
_EXAMPLE_ENDINGS = (".jsonl", ".json", ".csv")


def _dataset(plugin: Any, value: Any) -> str:
    return check_dataset(plugin, value, Dataset)


CONTRACTS: Mapping[str, Contract] = {
    **wording.CONTRACTS,
    **TASK,
    "open": Contract("a `Dataset`", _dataset),
}


class Task(Wording):
    """A benchmark task.  Its base `Wording` is the part that methods may use.

    Attributes:
        title: one line for lists.
        example: True if the example data suits any method; such a task is used when none is named.
        version: to be raised when prompts or scores change.
        metrics: the metrics, the first of them the primary one; by default those of `kind`:
            accuracy and macro-F1, MAE and RMSE, or ROUGE.
        default_split: the split to use when none is named.
        paper_settings: values of options in the benchmark's paper; a list has several.  A method of
            that paper is "adapted" in a run that differs.
        splits: the splits that `load` knows; by default the default split alone.
        accepts_file: whether `--data` may be a file; a task with `load` and the default `open`
            always accepts one.
        history_format: how `render` shows records: as earlier "turns" of the chat, as a "list", or
            "auto", which is turns if all records have a stimulus.
        prompts: template files of texts that `--prompts FILE` may replace; `texts` holds those of
            the chosen wording.
        full_words: the vocabulary of the wording `full`, if it is another one than `words`.
        quotes_gold: True if requests name their own answer by design ("tea or coffee?"); `check
            task` then counts such requests instead of failing.
        shares_records: True if different users have the same records by design, such as filler.
        published_hashes: SHA-256 of the benchmark's files, by name, if they are known.
        sensitive: True if texts of the data may disturb readers: errors, logs and the terminal then
            name samples by their ids and quote nothing.
        source, licence: of the data.
        over_own_data: True if the samples come from tables of the user's own, whatever their form.
        protocol: how an answer comes about.  `static` is one request, `dialogue` a conversation led
            by `DialogueTask.converse`, `online` one round of a user's trajectory, ended by
            `OnlineTask.react`.
        offers: the capabilities that methods find, out of `personabench.api.capabilities`; those
            that follow from `kind` need no declaration.
        roles: the further models that are always needed; an option may change them on the instance.
        optional_roles: the further models that are used when the run names them.
        Params: a frozen dataclass of options, set with `--set task.key=value`.
    """

    title: ClassVar[str] = ""
    example: ClassVar[bool] = False
    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]] = ()
    default_split: ClassVar[str] = "dev"
    paper_settings: ClassVar[Mapping[str, Any]] = {}
    splits: ClassVar[tuple[str, ...]] = ()
    accepts_file: ClassVar[bool] = False
    history_format: ClassVar[defaults.HistoryFormat] = "auto"
    prompts: ClassVar[Sequence[PromptFile]] = ()
    full_words: ClassVar[Vocabulary | None] = None
    quotes_gold: ClassVar[bool] = False
    shares_records: ClassVar[bool] = False
    published_hashes: ClassVar[Mapping[str, str]] = {}
    sensitive: ClassVar[bool] = False
    source: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    over_own_data: ClassVar[bool] = False
    protocol: ClassVar[Protocol] = "static"
    offers: ClassVar[tuple[str, ...]] = ("history", "population", "dates", "precedents")
    roles: tuple[RoleName, ...] = ()
    optional_roles: tuple[RoleName, ...] = ()

    _default_metrics: ClassVar[tuple[Metric, ...]] = ()

    @dataclasses.dataclass(frozen=True)
    class Params(Layout):
        """Options of the task: by default those of the layout of `render`."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        guard_methods(cls, CONTRACTS)

        # Chosen again in every subclass, whose kind may differ, until one declares its metrics.
        if cls.metrics is cls._default_metrics:
            label_count = len(cls.labels) if isinstance(cls.labels, Sequence) else 0
            cls._default_metrics = defaults.choose_metrics(cls.kind, label_count)
            cls.metrics = cls._default_metrics

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        _check_declarations(type(self))
        _check_layout(type(self), self.params)
        if not hasattr(self, "name"):
            # The registry names classes that it loads; a test may create one without it.
            self.name = type(self).__name__  # type: ignore[misc]
        self.texts = Prompts(type(self).prompts)
        self._compact_words = self.words
        self._use_words(self.words)

    def choose_wording(
        self, wording: WordingName, replacements: Replacements | None = None
    ) -> None:
        """Word requests for small models (`compact`, the default) or for others (`full`).

        It is chosen before the data are opened. `replacements` replace texts of `prompts`.

        Raises:
            UsageError: a replaced text whose stage, name or slots do not exist.
        """
        self.wording = wording
        self.texts = Prompts(type(self).prompts, wording, replacements)
        if self.full_words is not None:
            self._use_words(self.full_words if wording == "full" else self._compact_words)

    def _use_words(self, words: Vocabulary) -> None:
        self._can_replace_contract = defaults.can_replace_contract(words)
        self._own_goal = words.goal
        completed = defaults.complete_vocabulary(
            words, self.kind, self.labels, has_precedents="precedents" in self.offers
        )
        if completed != self.words:
            self.words = completed  # type: ignore[misc]

    def load(self, split: str, data: Path | None) -> Iterable[Sample]:
        """Yield the samples of a split, with references if the split has them.

        Ids, index and hash are computed from the samples, in their order.  A history is a list of
        records, oldest first.  Data that is too large to be read at every start implements `open`
        instead.

        Args:
            split: one of `splits`.
            data: the file or folder of `--data`.  Without it, the example data: a file beside the
                task's own and of its name (`books.jsonl`, `.json` or `.csv` beside `books.py`, or
                the folder `sample` of a package); None if there is none.

        Raises:
            DataError: the data is missing or broken; the message names file, record and field.
        """
        raise UsageError(_explain_no_samples(type(self)))

    def open(self, split: str, data: Path | None) -> Dataset:
        """Open a split from a file or folder, or the example data without one.

        Raises:
            UsageError: unknown split.
            DataError: the files are missing or broken; the message names file, record and field.
        """
        cls = type(self)
        if cls.load is Task.load:
            raise UsageError(_explain_no_samples(cls))
        splits = self.splits or (self.default_split,)
        if split not in splits:
            raise UsageError(f"{self.name} has no split '{split}'; it has: {', '.join(splits)}")

        path = _find_example_data(cls) if data is None else data
        is_measured_by_default = cls.measure is Task.measure
        try:
            return StaticDataset(
                cls,
                lambda: self.load(split, path),
                split=split,
                source=_describe_source(cls, path, is_example=data is None),
                sample=data is None,
                labels=self.labels,
                explain_gold=self._explain_gold if is_measured_by_default else lambda sample: "",
                ordered=self.protocol == "online",
            )
        except NoDataError as error:
            raise _explain_no_data(self) from error

    def render(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
    ) -> Rendered:
        """See `Wording`: a chat of notes, records as turns or as a list, question, instruction."""
        return defaults.render_chat(self, sample, records, notes, self.history_format)

    def render_content(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
    ) -> Rendered | None:
        """See `Wording`: `render` without the instruction of `words`.

        None if this instruction is the task's own and `words` has no `answer_form`, or if it is not
        quoted by a `render` of the task's own.
        """
        if not self._can_replace_contract:
            return None
        if type(self).render is Task.render:
            return defaults.render_content(self, sample, records, notes, self.history_format)
        rendered = self.render(sample, records, notes, tokens)
        return defaults.replace_instruction(rendered, self.words.instruction, self._own_goal)

    def parse(
        self,
        output: str,
        sample: Sample,
        scorer: str,
    ) -> str | None:
        """See `Wording`: a label, a number of the scale, an option or a text, by `kind`."""
        return defaults.parse_answer(self, output, sample, scorer)

    def measure(
        self,
        parsed: str | None,
        sample: Sample,
    ) -> Mapping[str, Value]:
        """Return a sample's values for each metric; `parsed` is None for an unparsed answer.

        By default these are the values of the metrics of `kind`.
        """
        return defaults.measure_answer(self, parsed, sample)

    def _explain_gold(self, sample: Sample) -> str:
        return defaults.explain_gold(self, sample)

    def describe_missing(self) -> str:
        """Explain which optional parts of the task are not installed here; empty if none.

        `personabench doctor` shows it. What every run needs belongs to the dataset's
        `missing_requirement`.
        """
        return ""

    def measure_retrieval(self, sample: Sample, shown: Sequence[str]) -> Mapping[str, Value]:
        """Return metric values from the ids of the records that the model saw.

        By default recall and precision of the sample's evidence, if it has any.  They are reported
        without being listed in `metrics`; those of a task that overrides this have to be listed.
        """
        return measure_evidence(sample, shown)

    def measure_interaction(
        self,
        interaction: JsonObject,
        assessment: JsonObject | None,
        sample: Sample,
    ) -> Mapping[str, Value]:
        """Return metric values from a recorded interaction and from the judge's assessment.

        They replace those of `measure`.  A metric left out is missing for the sample; without a
        value of the primary metric the sample has no score.
        """
        return {}

    @classmethod
    def derive(
        cls,
        options: tuple[Mapping[str, Any], Mapping[str, Any]],
        scores: tuple[Mapping[str, float], Mapping[str, float]],
    ) -> Mapping[str, float]:
        """Return numbers that two runs give together, by name; `compare` prints them.

        Args:
            options: the task's options in either run.
            scores: the metrics of either run on the samples that both have.
        """
        return {}

    @classmethod
    def metrics_of(cls, metric_names: Collection[str]) -> tuple[Metric, ...]:
        """Return the metrics of a run that reports these names."""
        # Tasks whose metrics depend on their data override this and select by name.
        # Judged metrics have a default since a task may be judged without being a JudgedTask.
        return (*cls.metrics, *getattr(cls, "judged_metrics", ()))


def _check_declarations(cls: type[Task]) -> None:
    """Check the attributes on which the defaults depend.

    Raises:
        UsageError: one is missing or has no meaning; the message names class and file.
    """
    kinds = get_args(ResponseKind)
    if cls.kind not in kinds:
        raise UsageError(
            f"{locate_class(cls)}: kind is {cls.kind!r}, expected {' or '.join(kinds)}"
        )

    formats = get_args(defaults.HistoryFormat)
    if cls.history_format not in formats:
        raise UsageError(
            f"{locate_class(cls)}: history_format is {cls.history_format!r}, "
            f"expected {' or '.join(formats)}"
        )

    words = getattr(cls, "words", None)
    if not isinstance(words, Vocabulary):
        raise UsageError(
            f"{locate_class(cls)} has no `words`; write words = Vocabulary("
            'person="reader", stimulus="book", response="rating"), with its own nouns'
        )

    for field in _TEXT_FIELDS:
        value = getattr(words, field)
        if not isinstance(value, str):
            raise UsageError(f"{locate_class(cls)}: words.{field} is {value!r}, expected text")

    for attribute in ("labels", "splits", "scorers"):
        values = getattr(cls, attribute)
        is_texts = isinstance(values, list | tuple) and all(isinstance(v, str) for v in values)
        if not is_texts:
            raise UsageError(
                f"{locate_class(cls)}: {attribute} is {values!r}, expected a tuple of texts"
            )

    if cls.splits and cls.default_split not in cls.splits:
        raise UsageError(
            f"{locate_class(cls)}: default_split is {cls.default_split!r}, "
            f"expected one of its splits: {', '.join(cls.splits)}"
        )

    is_pairs = isinstance(words.axes, list | tuple) and all(map(_is_axis, words.axes))
    if not is_pairs:
        raise UsageError(
            f"{locate_class(cls)}: words.axes is {words.axes!r}, "
            'expected pairs of texts such as (("Style", "wording and tone"),)'
        )

    try:
        get_tokenizer(cls.tokenizer)
    except UsageError as error:
        raise UsageError(f"{locate_class(cls)}: {error}") from error

    if cls.kind == "ordinal":
        try:
            defaults.find_scale(cls.labels)
        except ValueError as error:
            raise UsageError(
                f"{locate_class(cls)}: labels is {cls.labels!r}, expected the whole numbers "
                "of an ordinal task's scale as text, or its two ends, such as ('1', '5')"
            ) from error


def _check_layout(cls: type[Task], params: Any) -> None:
    """Check that chosen options of the layout have an effect.

    Raises:
        UsageError: the task words its requests itself and declares no such options.
    """
    if has_layout(params) and cls.Params is Task.Params and cls.render is not Task.render:
        raise UsageError(
            f"{locate_class(cls)}: its requests have one layout; leave out task.layout, "
            "task.profile and task.order"
        )


def _is_axis(axis: Any) -> bool:
    is_pair = isinstance(axis, list | tuple) and len(axis) == 2
    return is_pair and all(isinstance(text, str) for text in axis)


def list_example_paths(cls: type[Task]) -> list[Path]:
    """List the paths at which a task's example data may be."""
    file = module_file(cls)
    if file is None:
        return []
    if file.name == "__init__.py":
        return [file.parent / "sample"]
    return [file.with_suffix(ending) for ending in _EXAMPLE_ENDINGS]


def _explain_no_samples(cls: type[Task]) -> str:
    # Also for a direct call of `load` on a task that has `open` instead.
    if cls.open is not Task.open:
        return f"{locate_class(cls)} has no `load`: its samples come from `open`"
    return (
        f"{locate_class(cls)} has neither `load`, which yields samples, nor `open`; "
        "expected one of them"
    )


def _find_example_data(cls: type[Task]) -> Path | None:
    return next((path for path in list_example_paths(cls) if path.exists()), None)


def _explain_no_data(task: Task) -> UsageError:
    cls = type(task)
    paths = " or ".join(path.name for path in list_example_paths(cls))
    expected = f"expected {paths} beside its file, or" if paths else "expected"
    return UsageError(
        f"{locate_class(cls)}: task {task.name} has no example data; "
        f"{expected} a file named with --data"
    )


def _describe_source(cls: type[Task], path: Path | None, *, is_example: bool) -> str:
    if path is None:
        return f"{cls.__name__}.load"
    return f"example data {path}" if is_example else str(path)


guard_methods(Task, CONTRACTS)
