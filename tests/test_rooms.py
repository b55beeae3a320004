"""Which part of the code may import which. docs/architecture.md says why."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.serving import ROOT

PACKAGES = ("rae_serve", "training")
FORBIDDEN = {
    "library": ("rae_serve.server", "rae_serve.cli", "training"),
    "server": ("rae_serve.cli", "training"),
    "cli": ("rae_serve.server",),
    "training": ("rae_serve.server", "rae_serve.cli"),
}


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))}


def room_of(module: str) -> str:
    """The room of a module. `rae_serve.service` is the server's entry, and stands beside the library."""
    package, _, rest = module.partition(".")
    if package == "training":
        return "training"
    if rest == "service":
        return "server"
    return rest.split(".")[0] if rest.split(".")[0] in ("server", "cli") else "library"


def imports(module: str, *, inside_functions: bool = True) -> Iterator[str]:
    """The modules that a file imports, by statement or by a literal name. Those under TYPE_CHECKING count too."""
    nodes = [ast.parse(MODULES[module].read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            nodes += ast.iter_child_nodes(node)
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(source), level=0):
                # `from rae_serve import bundle` imports the module rae_serve.bundle, not the package's names.
                names = (f"{source}.{alias.name}" for alias in node.names)
                yield from (name if name in MODULES else source for name in names)
            case ast.ImportFrom():
                raise AssertionError(f"{module}, line {node.lineno}: a relative import")
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(source)), *_],
            ):
                yield source


def is_inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_only_what_it_may(room):
    members = [module for module in MODULES if room_of(module) == room]
    assert members
    wrong = [(module, name) for module in members for name in imports(module) if is_inside(name, FORBIDDEN[room])]
    assert wrong == []


def test_nothing_that_serves_imports_torch():
    serving = [module for module in MODULES if room_of(module) != "training"]
    wrong = [(module, name) for module in serving for name in imports(module) if is_inside(name, ("torch",))]
    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other(package):
    graph = {
        module: {name for name in imports(module, inside_functions=False) if is_inside(name, (package,))}
        for module in MODULES
        if is_inside(module, (package,))
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which shows the cycle


def test_the_library_alone_brings_no_package_of_another_room():
    code = "import sys, rae_serve; rae_serve.Bundle, rae_serve.Engine; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    others = {"torch", "onnx", "bentoml", "fastapi", "starlette", "typer", "rich", "httpx", "training"}
    assert others & set(loaded.stdout.split()) == set()
