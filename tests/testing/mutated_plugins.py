"""Plugins with one fault each: a sound file, and edits that break it."""

from __future__ import annotations

METHOD = '''from dataclasses import dataclass

from personabench import Context, Method, Sample, User


class Mine(Method):
    """Answer with the newest records."""

    name = "mine"
    needs = ("history",)

    @dataclass(frozen=True)
    class Params:
        k: int = 3

    def visible(self, sample):
        return sample.history

    async def profile(self, user, ctx):
        return {"count": len(user.history)}

    async def predict(self, sample, state, ctx):
        return await ctx.answer(sample, records=sample.history[: self.params.k])
'''

TASK = """from personabench import Dataset, Message, Metric, Record, Rendered, Sample
from personabench import Task, Vocabulary

USERS = ("ada", "ben")


class Days(Dataset):
    separation, split, sample = "user", "dev", True
    source = "days"
    hash = "0123"

    def index(self):
        return [(f"{user}{day}", user) for user in USERS for day in range(2)]

    def load(self, position):
        name, user = self.index()[position]
        history = (Record("r1", "rain", "tea"), Record("r2", "sun", "walk"))
        return Sample(name, user, f"Day {name}?", history=history, references=("tea",))


class Mine(Task):
    name = "mine"
    metrics = (Metric("accuracy"), Metric("length"))
    words = Vocabulary("person", "day", "plan", "What do they like?", (), "Name the plan.")

    def open(self, split, data):
        return Days()

    def render(self, sample, records, notes, tokens):
        shown = " ".join(self.describe(record) for record in records)
        return Rendered((Message("user", f"{shown} {notes} {sample.input}"),))

    def parse(self, output, sample, scorer):
        return output.strip()

    def measure(self, parsed, sample):
        right = parsed == sample.references[0]
        return {"accuracy": float(right), "length": len(parsed or "") / 100}

    def describe(self, record):
        return f"{record.stimulus}: {record.response}"
"""

# Name of the fault, text to replace, replacement.
Mutation = tuple[str, str, str]

METHODS: tuple[Mutation, ...] = (
    ("a syntax error", "name = ", "name == = "),
    ("an import of nothing", "from dataclasses import dataclass\n", "import no_such_module\n"),
    ("an exit at import", "from dataclasses import dataclass\n", "import sys; sys.exit(0)\n"),
    ("an error at import", "class Mine(", "1 / 0\n\n\nclass Mine("),
    ("an interrupt at import", "class Mine(", "raise KeyboardInterrupt\n\n\nclass Mine("),
    ("no class", "class Mine(Method)", "class Mine"),
    ("a name that is a number", 'name = "mine"', "name = 3"),
    ("an empty name", 'name = "mine"', 'name = ""'),
    ("a name with a slash", 'name = "mine"', 'name = "my/own"'),
    ("needs that are a text", '("history",)', '"history"'),
    ("a version that is a text", "needs =", 'version = "2"\n    needs ='),
    ("parameters that are no dataclass", "    @dataclass(frozen=True)\n", ""),
    ("a parameter without a default", "k: int = 3", "k: int"),
    ("a misspelt predict", "async def predict(", "async def predct("),
    ("predict is no function", "async def predict(self", "predict = 3\n\n    async def say(self"),
    ("predict is not async", "async def predict(self, sample, state, ctx):\n        return await",
     "def predict(self, sample, state, ctx):\n        return 'x' or"),
    ("predict lacks an argument", "predict(self, sample, state,", "predict(self, sample,"),
    ("predict returns nothing", "return await ctx.answer", "await ctx.answer"),
    ("predict returns a number", "return await ctx.answer(", "return 4 or (ctx, "),
    ("predict forgets to await", "return await ctx", "return ctx"),
    ("predict fails", "return await", "return 1 / 0 or await"),
    ("predict exits", "return await", "raise SystemExit(0)\n        return await"),
    ("predict interrupts", "return await", "raise KeyboardInterrupt\n        return await"),
    ("predict raises GeneratorExit", "return await", "raise GeneratorExit\n        return await"),
    ("predict cancels itself", "return await",
     "import asyncio\n        raise asyncio.CancelledError\n        return await"),
    ("predict misspells a field", "sample.history[", "sample.histroy["),
    ("a profile that is no JSON", '{"count": len(user.history)}', "{object()}"),
    ("profile is not async", "async def profile", "def profile"),
    ("visible returns texts", "return sample.history\n", "return ['a', 'b']\n"),
    ("prepare without a population", "    async def profile",
     "    async def prepare(self, population, ctx):\n        self.all = population\n\n"
     "    async def profile"),
    ("requirements return a text", "    async def profile",
     "    def requirements(self):\n        return 'history'\n\n    async def profile"),
    ("an unknown need", '"history",', '"histroy",'),
    ("a rule that is a text", "needs =", 'rule = "yes"\n    needs ='),
    ("an unknown requirement", "    async def profile",
     "    def requirements(self):\n        return {'histroy'}\n\n    async def profile"),
    ("a constructor without params", "    async def profile",
     "    def __init__(self):\n        super().__init__()\n\n    async def profile"),
    ("a constructor that drops params", "    async def profile",
     "    def __init__(self, params=None):\n        pass\n\n    async def profile"),
    ("parameters that fail", "        k: int = 3\n",
     "        k: int = 3\n\n        def __post_init__(self):\n            1 / 0\n"),
    ("a default that all share", "k: int = 3", "k: list = []"),
    ("records that are texts", "sample.history[: self.params.k]", "['rain']"),
    ("notes that are a number", "records=sample.history[: self.params.k]", "notes=5"),
    ("no sample", "ctx.answer(sample,", "ctx.answer(None,"),
    ("a note that is no JSON", "return await", "ctx.note('a', object())\n        return await"),
    ("messages that are a text", "return await",
     "await ctx.complete('hello', max_tokens=8)\n        return await"),
    ("no tokens for an answer", "return await",
     "await ctx.complete([], max_tokens=0)\n        return await"),
    ("an unknown retriever", "return await",
     "await ctx.retrieve(sample, 3, 'bm52')\n        return await"),
    ("an exception without a text", "return await",
     "raise type('E', (Exception,), {'__str__': lambda self: 1 / 0})\n        return await"),
    ("an exit in a task of its own", "return await",
     "import asyncio, sys\n\n        async def leave():\n            sys.exit(0)\n\n"
     "        await asyncio.create_task(leave())\n        return await"),
    ("designed for a text", "needs =", 'designed_for = "lamp4"\n    needs ='),
    ("the constructor fails", "    async def profile",
     "    def __init__(self, params=None):\n        self.k = params.k.real.none\n\n"
     "    async def profile"),
)  # fmt: skip

TASKS: tuple[Mutation, ...] = (
    ("a syntax error", "class Mine(Task):", "class Mine(Task:"),
    ("an exit at import", "USERS = ", "import sys\n\nsys.exit(0)\nUSERS = "),
    ("an import of nothing", "USERS = ", "import no_such_module\n\nUSERS = "),
    ("no class", "class Mine(Task)", "class Mine"),
    ("a dataset without a hash", '    hash = "0123"\n', ""),
    ("a dataset with an empty hash", '"0123"', '""'),
    ("a hash that fails", '    hash = "0123"\n',
     "\n    @property\n    def hash(self):\n        return open('/no/such/file').read()\n"),
    ("a dataset without a source", '    source = "days"\n', ""),
    ("warnings that are a text", "    source =", '    warnings = "old"\n    source ='),
    ("open returns nothing", "return Days()", "Days()"),
    ("open returns the class", "return Days()", "return Days"),
    ("open fails", "return Days()", "return Days(split)"),
    ("open exits", "return Days()", "raise SystemExit(0)"),
    ("an index of names", '[(f"{user}{day}", user) for', '[f"{user}{day}" for'),
    ("an index with a repeated id", 'f"{user}{day}", user', 'f"{user}", user'),
    ("load returns nothing", "return Sample(name", "Sample(name"),
    ("load swaps id and user", "Sample(name, user,", "Sample(user, name,"),
    ("a reference that is no tuple", 'references=("tea",)', 'references="tea"'),
    ("a reference that is a number", 'references=("tea",)', "references=(1,)"),
    ("records that are texts", "history=history", 'history=("rain", "sun")'),
    ("load fails", "name, user = self", "name, user, day = self"),
    ("no metrics", '    metrics = (Metric("accuracy"), Metric("length"))\n', ""),
    ("a metric that is a text", 'Metric("length"))', '"length")'),
    ("two metrics of one name", 'Metric("length")', 'Metric("accuracy")'),
    ("a misspelt metric", '"accuracy": float', '"acuracy": float'),
    ("a metric that is a text value", "float(right)", "str(right)"),
    ("a metric that is not finite", "float(right)", 'float("nan")'),
    ("measure returns nothing", 'return {"accuracy"', '{"accuracy"'),
    ("measure fails", "parsed == sample.references[0]", "parsed == sample.references[9]"),
    ("measure exits", "right = parsed", "raise SystemExit(0)\n        right = parsed"),
    ("parse returns a number", "return output.strip()", "return len(output)"),
    ("parse fails", "output.strip()", "output.stripp()"),
    ("parse is async", "def parse", "async def parse"),
    ("render returns a text", "Rendered((Message", "str((Message"),
    ("messages that are no tuple", "(Message(\"user\", f\"{shown} {notes} {sample.input}\"),)",
     "Message(\"user\", sample.input)"),
    ("a content that is no text", 'f"{shown} {notes} {sample.input}"', "sample"),
    ("render lacks an argument", "records, notes, tokens)", "records, notes)"),
    ("describe returns nothing", 'return f"{record.stimulus}', 'f"{record.stimulus}'),
    ("words that are a text", "words = Vocabulary", 'words = "a" or Vocabulary'),
    ("scorers that are a text", "    words =", '    scorers = "official"\n    words ='),
    ("a kind that does not exist", "    words =", '    kind = "txt"\n    words ='),
    ("labels that are numbers", "    words =", "    labels = (1, 2)\n    words ="),
    ("an aggregate that fails", 'Metric("length")',
     'Metric("length", aggregate=lambda values: values.meen())'),
    ("a protocol without its method", "    words =", '    protocol = "online"\n    words ='),
    ("rendered records that are texts", "{sample.input}\"),)", "{sample.input}\"),), ('rain',)"),
    ("a constructor that drops params", "    def open",
     "    def __init__(self, params=None):\n        pass\n\n    def open"),
    ("no tokens for an answer", "    words =", "    max_tokens = 0\n    words ="),
    ("an unknown role", "    words =", '    roles = ("jugde",)\n    words ='),
    ("a flag that is a text", "    words =", '    quotes_gold = "yes"\n    words ='),
)  # fmt: skip


STATIC = """from personabench import Record, Sample, Task, Vocabulary


class Mine(Task):
    words = Vocabulary(person="reader", stimulus="book", response="rating")
    kind = "category"
    labels = ("good", "bad")

    def load(self, split, data):
        for user in ("ada", "ben"):
            history = [Record(stimulus="Dune", response="good")]
            yield Sample(user_id=user, input="Emma?", history=history, references=["bad"])
"""

STATIC_TASKS: tuple[Mutation, ...] = (
    ("load returns nothing", "yield Sample", "Sample"),
    ("load returns a number", "yield Sample", "return 3 or Sample"),
    ("load fails", "for user in", "for user, age in"),
    ("load exits", "yield Sample", "raise SystemExit(0)\n            yield Sample"),
    ("load interrupts", "yield Sample", "raise KeyboardInterrupt\n            yield Sample"),
    ("load is async", "def load", "async def load"),
    ("load lacks an argument", "self, split, data", "self, split"),
    ("load yields rows", "yield Sample(user_id=user", "yield dict(user_id=user"),
    ("an input that is a number", '"Emma?"', "7"),
    ("an empty input", '"Emma?"', '""'),
    ("a user that is a number", "user_id=user", "user_id=len(user)"),
    ("references that are a text", '["bad"]', '"bad"'),
    ("references that are numbers", '["bad"]', "[1]"),
    ("a history of texts", 'Record(stimulus="Dune", response="good")', '"Dune"'),
    ("an empty record", 'stimulus="Dune", response="good"', 'response=""'),
    ("one id for all", "user_id=user", 'id="q1", user_id=user'),
    ("a gold that is no label", '["bad"]', '["fine"]'),
    ("no words", "    words = ", "    wrds = "),
    ("words of numbers", 'person="reader"', "person=3"),
    ("labels that are a text", '("good", "bad")', '"good"'),
    ("scores that are words", '"category"', '"ordinal"'),
    ("no such kind", '"category"', '"categories"'),
    ("splits that are a text", "    kind =", '    splits = "dev"\n    kind ='),
    ("an unknown capability", "    kind =", '    offers = ("histroy",)\n    kind ='),
    ("neither load nor open", "def load", "def laod"),
    ("a label twice", '("good", "bad")', '("good", "bad", "bad")'),
    ("axes that are a text", 'response="rating"', 'response="rating", axes="style"'),
    ("a default split of no split", "    kind =", '    splits = ("test",)\n    kind ='),
    ("an unknown tokenizer", "    kind =", '    tokenizer = "wrds"\n    kind ='),
    ("no samples", "yield Sample", "continue\n            yield Sample"),
    ("no example data", "for user in",
     "from personabench import read_rows\n\n        list(read_rows(data))\n        for user in"),
)  # fmt: skip

ONLINE = TASK.replace(
    "    def open(",
    """    protocol = "online"
    offers = ("feedback",)
    roles = ("simulator", "judge")

    async def react(self, sample, output, simulator):
        said = await simulator.complete("Do you like it?", max_tokens=8)
        return {"said": said}, {"final": said}

    async def assess(self, sample, output, record, judge):
        return {"good": len(record["final"])}

    def measure_interaction(self, record, assessment, sample):
        return {"length": len(record["final"])}

    def open(""",
)

ONLINE_TASKS: tuple[Mutation, ...] = (
    ("react returns one value", 'return {"said": said}, {"final": said}', 'return {"said": said}'),
    ("react records a set", '{"final": said}', "{said}"),
    ("react fails", '"said": said', '"said": sayed'),
    ("react exits", "said = await", "raise SystemExit(0)\n        said = await"),
    ("react forgets to await", "await simulator", "simulator"),
    ("react is not async", "async def react", "def react"),
    ("a misspelt metric", 'return {"length": len(record', 'return {"lenght": len(record'),
    ("no react", "async def react", "async def reakt"),
    ("no assess", "async def assess", "async def asess"),
    ("assess fails", '"good": len(record', '"good": len(recrod'),
)  # fmt: skip


def mutate(source: str, mutation: Mutation) -> str:
    """Return a source with one fault."""
    _, sound, broken = mutation
    assert sound in source, mutation
    return source.replace(sound, broken, 1)
