"""The layout of the package: its rooms, and imports that run one way between them."""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "personabench"

ROOMS = (
    ("types", "errors", "hashing"),
    ("models",),
    ("retrieval",),
    ("metrics",),
    ("api",),
    ("results",),
    ("run",),
    ("leaderboard",),
    ("report",),
    ("testing",),
    ("cli",),
    ("__main__",),
)
"""Modules and packages from the ground up: a room imports from its own level and from those before
it."""

LEVELS = {name: level for level, names in enumerate(ROOMS) for name in names}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py") if "vendor" not in path.parts}


def imports(path: Path) -> set[str]:
    """The package's modules that a file imports, also inside functions and for types alone."""
    targets = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("personabench"):
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                targets.add(submodule if submodule in MODULES else str(node.module))
        elif isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
    # The package itself holds the version and the names for plugins, which load on first use.
    return (targets & set(MODULES)) - {"personabench"}


def room(module: str) -> str:
    return module.split(".")[1]


@functools.cache
def all_imports() -> Mapping[str, set[str]]:
    return {module: imports(path) for module, path in MODULES.items() if module != "personabench"}


def test_the_package_has_the_rooms_of_the_layout_and_no_others() -> None:
    assert {room(module) for module in all_imports()} == set(LEVELS)


def test_imports_between_rooms_run_one_way() -> None:
    upward = [
        f"{module} imports {target}"
        for module, targets in all_imports().items()
        for target in targets
        if LEVELS[room(target)] > LEVELS[room(module)]
    ]
    assert upward == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    # Raises CycleError, which names the modules of a circle.
    TopologicalSorter(all_imports()).prepare()


def test_the_tests_mirror_the_package() -> None:
    folders = {path.parent.relative_to(PACKAGE) for path in MODULES.values()}
    tests = Path(__file__).parent
    nested = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    # Algorithms restated from papers, and the suites of docs/trust.md, are tests of several rooms.
    assert nested - {Path("methods"), Path("tasks"), Path("fidelity"), Path("trust")} <= folders


def test_no_two_modules_of_the_tests_have_one_name() -> None:
    # They are imported by their names alone; each folder may have a `conftest`.
    names = Counter(path.stem for path in Path(__file__).parent.rglob("*.py"))
    assert [name for name, count in names.items() if count > 1 and name != "conftest"] == []
