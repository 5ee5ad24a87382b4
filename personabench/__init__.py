"""personabench: does a method really know this user better?

The public face for methods and tasks.  Names are loaded on first use, so importing the package is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Method": "method",
    "Context": "context",
    "Population": "population",
    "Role": "roles",
    "Task": "task",
    "Dataset": "task",
    "Metric": "task",
    "Rendered": "task",
    "Tokens": "task",
    "Words": "task",
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
    "Words",
    "__version__",
]

if TYPE_CHECKING:
    from personabench.context import Context
    from personabench.errors import DataError, PersonabenchError, UsageError
    from personabench.method import Method
    from personabench.population import Population
    from personabench.roles import Role
    from personabench.task import Dataset, Metric, Rendered, Task, Tokens, Words
    from personabench.types import Message, Record, Request, Response, Sample, Usage, User


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"personabench.{_HOME[name]}"), name)
    raise AttributeError(f"module 'personabench' has no attribute '{name}'")
