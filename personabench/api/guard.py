"""The guard around plugin code: a fault becomes one message, the traceback goes to the run's log.

A message names class, method, file and line, the expected result and the actual one.  Whatever
plugin code raises is a fault of the plugin, `SystemExit` included: it costs a sample, never the
command.  Errors of the engine and real interrupts pass.
"""

from __future__ import annotations

import ast
import dataclasses
import dis
import inspect
import itertools
import logging
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from personabench.api.source import BUILT_IN, ENGINE
from personabench.errors import PersonabenchError, PluginError

TRACEBACKS = logging.getLogger("personabench.engine")
# Without a handler, logging prints errors to stderr; outside a run's log the one message is enough.
TRACEBACKS.addHandler(logging.NullHandler())

_RAISE = dis.opmap["RAISE_VARARGS"]


@contextmanager
def plugin_guard(plugin: Any, stage: str, expected: str) -> Iterator[None]:
    """Turn whatever the code of a plugin raises into one error.

    Args:
        plugin: the object or the class whose code runs.
        stage: the name of its method.
        expected: the result that the method should have.

    Raises:
        PluginError: the code failed.
        PersonabenchError: the code's own, or the engine's.
    """
    try:
        yield
    except BaseException as error:
        if not is_fault(error):
            raise
        raise explain_failure(plugin, stage, expected, error) from error


def is_fault(error: BaseException) -> bool:
    """Whether an exception from plugin code is the plugin's own fault.

    Errors of the engine, cancellation and Ctrl-C are not.
    """
    if isinstance(error, PersonabenchError):
        return False
    # Imported late, since lists of methods need no event loop.
    import asyncio

    if isinstance(error, asyncio.CancelledError):
        return not _is_cancelling()
    if isinstance(error, KeyboardInterrupt | GeneratorExit):
        return _comes_from_raise(error)
    return isinstance(error, Exception) or not _comes_through_engine(error)


def explain_failure(plugin: Any, stage: str, expected: str, error: BaseException) -> PluginError:
    """Explain an exception of plugin code, and write its traceback to the log."""
    name = f"{_class_of(plugin).__name__}.{stage}"
    TRACEBACKS.error("%s", name, exc_info=error)
    location = locate_failure(plugin, error) or locate(plugin, stage)
    reason = describe_error(error)
    return PluginError(f"{name} ({location}): expected {expected}, but it raised {reason}")


def describe_error(error: BaseException) -> str:
    """Return the type of an exception and its text, if it has one."""
    try:
        text = str(error)
    except Exception:
        # The text of an exception class of a plugin is code of the plugin as well.
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def explain_result(plugin: Any, stage: str, expected: str, problem: str) -> PluginError:
    """Explain a wrong result of plugin code; the problem is a clause such as "it returned None"."""
    name = f"{_class_of(plugin).__name__}.{stage}"
    return PluginError(f"{name} ({locate(plugin, stage)}): expected {expected}, but {problem}")


def params_of(cls: type[Any]) -> type[Any]:
    """Return the parameter class of a method or a task.

    Raises:
        PluginError: it is not a dataclass, or a field has no default.
    """
    params = cls.Params
    expected = "a dataclass whose fields have defaults; write @dataclass(frozen=True) above it"
    if not (isinstance(params, type) and dataclasses.is_dataclass(params)):
        raise explain_result(cls, "Params", expected, "it is not a dataclass")

    for field in dataclasses.fields(params):
        factory = field.default_factory
        if field.default is dataclasses.MISSING and factory is dataclasses.MISSING:
            raise explain_result(cls, "Params", expected, f"'{field.name}' has no default")
    return params


def create(cls: type[Any], *params: Any) -> Any:
    """Create a method or a task, with its default parameters unless some are given.

    Raises:
        PluginError: its own code fails, or its constructor does not pass `params` on.
    """
    params_class = params_of(cls)
    if not params:
        with plugin_guard(cls, "Params", "an object of default values"):
            params = (params_class(),)
    with plugin_guard(cls, "__init__", "an object that takes `params`"):
        plugin = cls(*params)

    if not hasattr(plugin, "params"):
        problem = "the object has no `params`"
        raise explain_result(cls, "__init__", "a call of super().__init__(params)", problem)
    return plugin


def describe_value(value: Any) -> str:
    """Name the type of a value, with the value itself if it is short."""
    name = type(value).__name__
    if isinstance(value, bool | int | float | str) and len(repr(value)) <= 40:
        return f"{name} {value!r}"
    return name


def locate(plugin: Any, name: str) -> str:
    """Return file and line of an attribute of a plugin, of its class if it is not in its source."""
    cls = _class_of(plugin)
    for base in cls.__mro__:
        if is_engine(base) or base.__module__ in sys.stdlib_module_names:
            continue
        function = inspect.unwrap(base.__dict__.get(name))  # type: ignore[arg-type]
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        if code is not None:
            return f"{code.co_filename}, line {code.co_firstlineno}"
        if name in base.__dict__:
            return f"{source_file(base)}, line {_line_of(base, name)}"
    return f"{source_file(cls)}, line {_line_of(cls, '')}"


def is_engine(cls: type[Any]) -> bool:
    """Whether a class is part of the engine, not of a built-in or foreign method or task."""
    module = cls.__module__
    return module.partition(".")[0] == ENGINE and not module.startswith(BUILT_IN)


def source_file(cls: type[Any]) -> str:
    """Return the file that defines a class."""
    module = sys.modules.get(cls.__module__)
    return str(getattr(module, "__file__", None) or cls.__module__)


def _class_of(plugin: Any) -> type[Any]:
    return plugin if isinstance(plugin, type) else type(plugin)


def _is_cancelling() -> bool:
    import asyncio

    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and task.cancelling() > 0


def _comes_through_engine(error: BaseException) -> bool:
    """Whether an exception comes out of a call of the engine, such as one of the model."""
    trace = traceback.walk_tb(error.__traceback__)
    by_engine = [_is_engine_file(frame.f_code.co_filename) for frame, _ in trace]
    # The outermost frames are the guard's.
    inside = itertools.dropwhile(bool, by_engine)
    return any(inside)


def _comes_from_raise(error: BaseException) -> bool:
    """Whether an exception comes from a `raise`, not from a signal or a closed coroutine."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False

    # asyncio's own signal handler raises KeyboardInterrupt as well.
    module = str(trace.tb_frame.f_globals.get("__name__", ""))
    instruction = trace.tb_frame.f_code.co_code[trace.tb_lasti]
    return instruction == _RAISE and module.partition(".")[0] != "asyncio"


def locate_failure(plugin: Any, error: BaseException) -> str | None:
    """Return the innermost line in the plugin's folder: deeper frames belong to libraries."""
    trace = traceback.walk_tb(error.__traceback__)
    stack = [(frame.f_code.co_filename, line) for frame, line in trace]
    return _innermost_line(_class_of(plugin), stack[::-1])


GUARDED = "guarded_call"
"""The name of the functions that call plugin code, by which they are recognized on a stack."""


def stack_of(frame: FrameType | None) -> list[FrameType]:
    """Return a frame and its callers, innermost first."""
    stack = []
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    return stack


def find_plugin_call(stack: Sequence[FrameType]) -> str | None:
    """Name the innermost guarded call on a stack: `Class.method (file, line)`; None without."""
    for depth, frame in enumerate(stack):
        variables = frame.f_locals
        if frame.f_code.co_name != GUARDED or not {"plugin", "stage"} <= variables.keys():
            continue
        cls, stage = _class_of(variables["plugin"]), variables["stage"]
        inner = [(inner.f_code.co_filename, inner.f_lineno) for inner in stack[:depth]]
        return f"{cls.__name__}.{stage} ({_innermost_line(cls, inner) or locate(cls, stage)})"
    return None


def _innermost_line(cls: type[Any], stack: Iterable[tuple[str, int]]) -> str | None:
    """Return the first line of a stack, innermost first, that is in the folder of a class."""
    folders = {
        Path(source_file(base)).resolve().parent
        for base in cls.__mro__
        if not is_engine(base) and base.__module__ not in sys.stdlib_module_names
    }
    for filename, line in stack:
        path = Path(filename).resolve()
        if not is_library(path) and not folders.isdisjoint(path.parents):
            return f"{filename}, line {line}"
    return None


def is_library(path: Path) -> bool:
    """Whether a file is the engine's or an installed package's, which may be below any folder."""
    if _is_engine_file(path) or path.suffix != ".py":
        return True
    if _ENGINE in path.parents:
        return False
    return "site-packages" in path.parts or _STDLIB in path.parents


_ENGINE = Path(__file__).resolve().parent.parent
_STDLIB = Path(dataclasses.__file__).resolve().parent


def _is_engine_file(filename: str | Path) -> bool:
    path = Path(filename)
    if _ENGINE not in path.parents:
        return False
    # Built-in methods and tasks are installed inside of the engine's package.
    return path.relative_to(_ENGINE).parts[0] not in ("methods", "tasks")


def _line_of(cls: type[Any], name: str) -> int:
    """Return the line of a class attribute in its source, that of the class if it has none."""
    try:
        tree = ast.parse(Path(source_file(cls)).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return 1

    for node in ast.walk(tree):
        if not (isinstance(node, ast.ClassDef) and node.name == cls.__name__):
            continue
        for statement in node.body:
            if name in _bound_names(statement):
                return statement.lineno
        return node.lineno
    return 1


def _bound_names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return [statement.target.id]
    return []
