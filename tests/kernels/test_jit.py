"""What ``kernels.jit`` leaves to the reader of a rule: that Python does not call what has no entrance for it."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

KERNELS = Path(__file__).parents[2] / "kernels"


def decorators(function: ast.FunctionDef) -> set[str]:
    return {each.id for each in function.decorator_list if isinstance(each, ast.Name)}


def calls(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    """(module or nothing, function, line) of each name that may be a function's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield "", node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr, node.lineno


def test_python_calls_no_compiled_function_that_has_no_entrance_for_it() -> None:
    """It would call nothing at all, and end with the process."""
    trees = {path: ast.parse(path.read_text()) for path in KERNELS.rglob("*.py")}
    inner: defaultdict[str, set[str]] = defaultdict(set)
    for path, tree in trees.items():
        for each in ast.walk(tree):
            if isinstance(each, ast.FunctionDef):
                private = "kernel" in decorators(each) and each.name.startswith("_")
                inner[path.stem] |= {each.name} if private or "part" in decorators(each) else set()
    assert {"read", "_begin"} <= inner["requests"], "the decorators have other names now"
    wrong = [
        f"{path.name}:{line} {name}"
        for path, tree in trees.items()
        for each in ast.walk(tree)
        if isinstance(each, ast.FunctionDef) and not decorators(each) & {"kernel", "part", "intrinsic"}
        for module, name, line in calls(each)
        if name in inner[module or path.stem]
    ]
    assert not wrong
