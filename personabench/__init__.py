"""personabench: does a method really know this user better?

The public face for methods and tasks.  Names are loaded on first use, so importing the package is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Method": "api.method",
    "Context": "api.context",
    "Population": "api.population",
    "Role": "models.roles",
    "Task": "api.task",
    "Dataset": "api.dataset",
    "Metric": "metrics.metric",
    "Rendered": "api.wording",
    "Tokens": "models.tokens",
    "Vocabulary": "api.wording",
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
    "Context",
    "DataError",
    "Dataset",
    "Message",
    "Method",
    "Metric",
    "PersonabenchError",
    "Population",
    "Record",
    "Rendered",
    "Request",
    "Response",
    "Role",
    "Sample",
    "Task",
    "Tokens",
    "Usage",
    "UsageError",
    "User",
    "Vocabulary",
    "__version__",
]

if TYPE_CHECKING:
    from personabench.api.context import Context
    from personabench.api.dataset import Dataset
    from personabench.api.method import Method
    from personabench.api.population import Population
    from personabench.api.task import Task
    from personabench.api.wording import Rendered, Vocabulary
    from personabench.errors import DataError, PersonabenchError, UsageError
    from personabench.metrics.metric import Metric
    from personabench.models.roles import Role
    from personabench.models.tokens import Tokens
    from personabench.types import Message, Record, Request, Response, Sample, Usage, User


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"personabench.{_HOME[name]}"), name)
    raise AttributeError(f"module 'personabench' has no attribute '{name}'")
