"""The keys that a model adds to its recipe: the keyword arguments of its constructor.

They are read from the model's source, which is not imported: so recipes can be listed and checked without torch.
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
_PACKAGE: Final = f"{__package__}.models."
# The packages from which the annotations and defaults of a constructor may come.
_IMPORTED: Final = ("pydantic", "typing")


class ModelClass(NamedTuple):
    """A model's class, as its source describes it.

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
def model_class(model: str) -> ModelClass:
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
            classes.append(ModelClass(node.name, keys | _keywords(node, tree), meanings))
    if len(classes) != 1:
        raise InvalidInput("model", f"{MODELS / model}.py must hold one Autoencoder, not {len(classes)}")
    return classes[0]


def explained(docstring: str | None) -> dict[str, str]:
    """Return the meanings in the `Args:` or `Attributes:` section of a docstring, by name."""
    params = parse(docstring or "", DocstringStyle.GOOGLE).params
    return {param.arg_name: " ".join((param.description or "").split()) for param in params}


def _keywords(node: ast.ClassDef, tree: ast.Module) -> dict[str, Any]:
    """Return the annotation and the default of each keyword argument of a class's own constructor."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            break
    else:
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
