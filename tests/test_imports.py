"""Packages import from lower layers only, and no cycle exists."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "agegender"
# From the lowest; a package imports from itself and those before it.
LAYERS = (
    *("errors", "version", "system", "distributed", "config", "tasks", "models", "runs", "data"),
    *("prediction", "evaluation", "training", "sweeps", "weights", "web", "cli", "api"),
)
MAX_FILES = 13


def modules() -> dict[str, Path]:
    """Returns the modules by name, without `__main__` files and the package itself."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if path.name != "__main__.py" and name != "__init__":
            found[name] = path
    return found


MODULES = modules()


def imported(tree: ast.AST) -> Iterator[str]:
    """Yields the imports of a file, also those within functions, but not those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imported(node)


def dependencies(path: Path) -> set[str]:
    names = [name.removeprefix("agegender.") for name in imported(ast.parse(path.read_text(encoding="utf-8")))]
    return {known for name in names for known in (name, name.rpartition(".")[0]) if known in MODULES and known}


GRAPH = {name: dependencies(path) - {name} for name, path in MODULES.items()}


def test_imports_form_no_cycle() -> None:
    list(TopologicalSorter(GRAPH).static_order())


@pytest.mark.parametrize("layer", LAYERS)
def test_layer_imports_from_lower_layers_only(layer: str) -> None:
    lower = LAYERS[: LAYERS.index(layer) + 1]
    upward = {
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if name.split(".")[0] == layer and other.split(".")[0] not in lower
    }
    assert not upward


def test_every_module_belongs_to_a_layer() -> None:
    assert {name.split(".")[0] for name in MODULES} == set(LAYERS)


def test_folders_hold_few_files() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    sizes = {str(folder.relative_to(PACKAGE)): len(list(folder.glob("*.py"))) for folder in folders}
    assert {folder: size for folder, size in sizes.items() if size > MAX_FILES} == {}
