"""Benchmark harness for LLM personalization: the public interface for methods and tasks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# Names are loaded on first use, so that `import personabench` and the command line start without
# numpy and the models.
_MODULES = {
    "Method": "api.method",
    "Memory": "api.memory",
    "MemoryItem": "api.memory_items",
    "TrainedMethod": "api.training",
    "TrainContext": "api.training",
    "Trained": "api.training",
    "Corpus": "api.training",
    "Batch": "api.memory_batches",
    "Context": "api.context",
    "Population": "api.population",
    "PromptFile": "api.prompts",
    "Role": "models.roles",
    "Task": "api.task",
    "OnlineTask": "api.online",
    "DialogueTask": "api.dialogue",
    "JudgedTask": "api.judged",
    "OfficialFiles": "api.official_files",
    "SubmissionFile": "api.official_files",
    "Downloadable": "api.data_sources",
    "Generative": "api.data_sources",
    "Audited": "api.data_sources",
    "Dataset": "api.dataset",
    "Layout": "api.layout",
    "comparison_record": "api.comparison",
    "rejected_responses": "api.comparison",
    "read_rows": "api.rows",
    "Metric": "metrics.metric",
    "Rendered": "api.wording",
    "Tokens": "models.tokens",
    "Vocabulary": "api.wording",
    "Wording": "api.wording",
    "Wrapper": "api.wrapper",
    "Record": "types",
    "User": "types",
    "Sample": "types",
    "Message": "types",
    "Request": "types",
    "Response": "types",
    "Usage": "types",
    "DataError": "errors",
    "UsageError": "errors",
    "PersonabenchError": "errors",
}
__all__ = [
    "Audited",
    "Batch",
    "Context",
    "Corpus",
    "DataError",
    "Dataset",
    "DialogueTask",
    "Downloadable",
    "Generative",
    "JudgedTask",
    "Layout",
    "Memory",
    "MemoryItem",
    "Message",
    "Method",
    "Metric",
    "OfficialFiles",
    "OnlineTask",
    "PersonabenchError",
    "Population",
    "PromptFile",
    "Record",
    "Rendered",
    "Request",
    "Response",
    "Role",
    "Sample",
    "SubmissionFile",
    "Task",
    "Tokens",
    "TrainContext",
    "Trained",
    "TrainedMethod",
    "Usage",
    "UsageError",
    "User",
    "Vocabulary",
    "Wording",
    "Wrapper",
    "__version__",
    "comparison_record",
    "read_rows",
    "rejected_responses",
]

if TYPE_CHECKING:
    from personabench.api.comparison import comparison_record, rejected_responses
    from personabench.api.context import Context
    from personabench.api.data_sources import Audited, Downloadable, Generative
    from personabench.api.dataset import Dataset
    from personabench.api.dialogue import DialogueTask
    from personabench.api.judged import JudgedTask
    from personabench.api.layout import Layout
    from personabench.api.memory import Memory
    from personabench.api.memory_batches import Batch
    from personabench.api.memory_items import MemoryItem
    from personabench.api.method import Method
    from personabench.api.official_files import OfficialFiles, SubmissionFile
    from personabench.api.online import OnlineTask
    from personabench.api.population import Population
    from personabench.api.prompts import PromptFile
    from personabench.api.rows import read_rows
    from personabench.api.task import Task
    from personabench.api.training import Corpus, TrainContext, Trained, TrainedMethod
    from personabench.api.wording import Rendered, Vocabulary, Wording
    from personabench.api.wrapper import Wrapper
    from personabench.errors import DataError, PersonabenchError, UsageError
    from personabench.metrics.metric import Metric
    from personabench.models.roles import Role
    from personabench.models.tokens import Tokens
    from personabench.types import Message, Record, Request, Response, Sample, Usage, User


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'personabench' has no attribute '{name}'")

    module = import_module(f"personabench.{_MODULES[name]}")
    return getattr(module, name)
