"""The keys that a model or a posthoc prior adds to its recipe: the keyword arguments of its constructor.

They are read from its source, which is not imported: so recipes can be listed and checked without torch.
"""

from __future__ import annotations

import ast
import inspect
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from docstring_parser import DocstringStyle, parse

from rae_serve.errors import InvalidInput

MODELS: Final = Path(__file__).parent / "models"
PRIORS: Final = Path(__file__).parent / "priors"
_PACKAGE: Final = f"{__package__}.models."
# The packages from which the annotations and defaults of a constructor may come.
_IMPORTED: Final = ("pydantic", "typing")


class Source(NamedTuple):
    """A class of a model or of a prior, as its source describes it.

    Attributes:
        name: The name of the class.
        keys: The annotation and the default of every key, those of base classes first.
        meanings: What the keys mean, by the `Args:` sections of the docstrings.
    """

    name: str
    keys: dict[str, Any]
    meanings: dict[str, str]


def names() -> list[str]:
    """Return the names of the models, which are those of the files in `training/models`."""
    return sorted(path.stem for path in MODELS.glob("[!_]*.py"))


@lru_cache
def model_class(model: str) -> Source:
    """Return the one class of a model's file. Raise InvalidInput if the file does not have exactly one."""
    tree = ast.parse((MODELS / f"{model}.py").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    models = {
        alias.name: str(node.module).removeprefix(_PACKAGE)
        for node in imports
        if str(node.module).startswith(_PACKAGE)
        for alias in node.names
    }
    classes = []
    for node in tree.body:
        bases = {base.id for base in getattr(node, "bases", ()) if isinstance(base, ast.Name)}
        if isinstance(node, ast.ClassDef) and bases & {"Autoencoder", *models}:
            keys, meanings = dict[str, Any](), explained(ast.get_docstring(node))
            for base in bases & models.keys():
                inherited = model_class(models[base])
                keys, meanings = inherited.keys | keys, inherited.meanings | meanings
            classes.append(Source(node.name, keys | _keywords(node, tree), meanings))
    if len(classes) != 1:
        raise InvalidInput("model", f"{MODELS / model}.py must hold one Autoencoder, not {len(classes)}")
    return classes[0]


@lru_cache
def posthoc_names() -> list[str]:
    """Return the names of the priors that can be fitted on any auto-encoder."""
    return sorted(path.stem.replace("_", "-") for path in PRIORS.glob("*.py") if _posthoc_class(path.stem))


def posthoc_class(name: str) -> Source:
    """Return the class of one of `posthoc_names`."""
    found = _posthoc_class(posthoc_module(name))
    assert found
    return found


def posthoc_module(name: str) -> str:
    """Return the name of a posthoc prior's module in `training/priors`."""
    return name.replace("-", "_")


@lru_cache
def _posthoc_class(module: str) -> Source | None:
    """Return the class of a prior's file whose constructor takes `latent_dim` and keyword arguments, or None."""
    tree = ast.parse((PRIORS / f"{module}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            keys = _keywords(node, tree)
            constructor = _constructor(node)
            if (
                keys
                and constructor
                and [argument.arg for argument in constructor.args.args] == ["self", "latent_dim"]
            ):
                return Source(node.name, keys, explained(ast.get_docstring(node)))
    return None


def explained(docstring: str | None) -> dict[str, str]:
    """Return the meanings in the `Args:` or `Attributes:` section of a docstring, by name."""
    params = parse(docstring or "", DocstringStyle.GOOGLE).params
    return {param.arg_name: " ".join((param.description or "").split()) for param in params}


def _keywords(node: ast.ClassDef, tree: ast.Module) -> dict[str, Any]:
    """Return the annotation and the default of each keyword argument of a class's own constructor."""
    method = _constructor(node)
    if method is None:
        return {}
    # A function with the keyword arguments alone, after the imports and the constants that they name.
    arguments = ast.arguments([], [], None, method.args.kwonlyargs, method.args.kw_defaults, None, [])
    named = {name.id for name in ast.walk(arguments) if isinstance(name, ast.Name)}
    needed: list[ast.stmt] = []
    for statement in tree.body:
        match statement:
            case ast.ImportFrom(module=module) if module in _IMPORTED:
                needed.append(statement)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if name in named:
                needed.append(statement)
    function = ast.FunctionDef("constructor", arguments, [ast.Pass()], [], None)
    namespace: dict[str, Any] = {}
    part = ast.fix_missing_locations(ast.Module([*needed, function], []))
    exec(compile(part, node.name, "exec", dont_inherit=True), namespace)
    parameters = inspect.signature(namespace["constructor"]).parameters
    return {name: (parameter.annotation, parameter.default) for name, parameter in parameters.items()}


def _constructor(node: ast.ClassDef) -> ast.FunctionDef | None:
    """Return a class's own constructor."""
    methods = (part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__")
    return next(methods, None)
