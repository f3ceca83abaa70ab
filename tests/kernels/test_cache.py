"""The cache of compiled code: named by what the code depends on, filled once."""

import ast
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kernels import cache
from kernels.jit import INTERPRETED

# Compiles the smaller part only, for real; the lines that were shown as progress go to standard output.
WARM = """
from kernels import warm
warm.warm(lambda line: print(line, flush=True), warm.LOAD_BALANCING)
assert warm.is_there(warm.LOAD_BALANCING)
"""


def python(code: str, root: Path, folder: Path = cache.SOURCES.parent) -> subprocess.Popen[str]:
    """Runs code with the kernels of this folder."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(root), "TRAFFICPLANE_CACHE": str(root / "cache")}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate(timeout=500)
    assert process.returncode == 0, text
    return text


def test_importing_kernels_imports_no_numba(tmp_path: Path) -> None:
    assert output(python("import kernels, sys; print('numba' in sys.modules)", tmp_path)) == "False\n"


def test_numba_keeps_its_code_in_the_directory_whichever_is_imported_first(tmp_path: Path) -> None:
    for first, second in (("kernels", "numba"), ("numba", "kernels")):
        code = f"import {first}, {second}, numba; print(numba.config.CACHE_DIR)"
        assert Path(output(python(code, tmp_path)).strip()).parent == tmp_path / "cache"


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sources, to be changed."""
    folder = shutil.copytree(cache.SOURCES, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "SOURCES", folder)
    return folder


def touch(file: Path) -> None:
    """Another text that means the same."""
    file.write_text(file.read_text() + "\n")


def folders(sources: Path) -> dict[str, str]:
    """The name of each file's folder as a new process finds it."""
    cache.folder_of.cache_clear()
    cache.imported_by.cache_clear()
    return {str(file.relative_to(sources)): cache.folder_of(file).name for file in sources.rglob("*.py")}


def test_equal_sources_have_equal_folders_wherever_they_are(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = folders(copy)
    monkeypatch.undo()
    assert folders(cache.SOURCES) == there


@pytest.mark.parametrize(
    ("changed", "reached", "not_reached"),
    [
        ("layout.py", {"lb/hashing.py", "lb/forward.py", "net/relay.py", "net/gateway.py", "layout_http.py"}, set()),
        ("lb/select.py", {"lb/forward.py", "net/relay.py"}, {"lb/hashing.py", "net/loadgen.py", "net/responder.py"}),
        ("net/loadgen.py", {"warm.py"}, {"lb/forward.py", "net/relay.py", "net/gateway.py", "net/syscalls.py"}),
    ],
)
def test_a_change_is_another_folder_for_what_it_reaches(
    copy: Path, changed: str, reached: set[str], not_reached: set[str]
) -> None:
    before, digest = folders(copy), cache.digest()
    touch(copy / changed)
    after = folders(copy)
    differing = {name for name in before if before[name] != after[name]}
    assert {changed, *reached} <= differing
    assert not not_reached & differing
    assert cache.digest() != digest


def test_what_a_file_imports_is_what_python_makes_of_it() -> None:
    """All compiled code hangs by this, so here by the compiler's own eyes."""
    for file in cache.SOURCES.rglob("*.py"):
        named = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: imports are absolute"
                assert node.module
                named |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
        ours = {name.replace(".", "/") for name in named if name.partition(".")[0] == "kernels"}
        paths = {path for name in ours for path in (f"{name}.py", f"{name}/__init__.py")}
        files = {cache.SOURCES.parent / path for path in paths}
        assert cache.imported_by(file) == {path for path in files if path.is_file()}, file


def test_the_directory_follows_switches_of_the_compiler_and_not_of_where_it_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def directory() -> Path:
        cache.directory.cache_clear()
        return cache.directory()

    before = directory()
    monkeypatch.setenv("NUMBA_CACHE_DIR", "elsewhere")
    assert directory() == before
    monkeypatch.setenv("NUMBA_OPT", "1")
    assert directory() != before
    monkeypatch.undo()
    assert directory() == before


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_of_processes_that_warm_up_at_once_one_compiles_and_the_others_load(tmp_path: Path) -> None:
    processes = [python(WARM, tmp_path) for _ in range(3)]
    lines = [output(process) for process in processes]
    assert sorted(lines) == ["", "", "compiling for this machine, once: load balancing\n"]
    compiled = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb[ci]")}
    started = time.monotonic()
    assert output(python(WARM, tmp_path)) == ""
    assert time.monotonic() - started < 120
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb[ci]")} == compiled


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_after_a_change_only_what_it_reaches_is_compiled(tmp_path: Path) -> None:
    call = "import numpy as np; from kernels.lb import hashing; hashing.mix64(np.uint64(1))"
    copy = shutil.copytree(cache.SOURCES, tmp_path / "copy" / "kernels", ignore=shutil.ignore_patterns("__pycache__"))

    def compiled() -> dict[Path, int]:
        return {path: path.stat().st_ino for path in tmp_path.rglob("*.nb[ci]")}

    assert output(python(call, tmp_path)) == ""
    before = compiled()
    touch(copy / "lb" / "population.py")
    assert output(python(call, tmp_path, copy.parent)) == ""
    after = compiled()
    assert len(after) == 2 * len(before) > 0
    assert {*after.values()} == {*before.values()}  # the same files by other names
    touch(copy / "lb" / "hashing.py")
    assert output(python(call, tmp_path, copy.parent)) == ""
    assert len({*compiled().values()}) == 2 * len({*before.values()})


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_a_copy_of_the_sources_somewhere_else_compiles_nothing(tmp_path: Path) -> None:
    hashing = "import numpy as np; from kernels.lb import hashing; hashing.mix64(np.uint64(1))"
    assert output(python(hashing, tmp_path)) == ""
    compiled = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb[ci]")}
    assert compiled
    shutil.copytree(cache.SOURCES, tmp_path / "copy" / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    assert output(python(hashing, tmp_path, tmp_path / "copy")) == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb[ci]")} == compiled


# Two entrances to one function that has none; what is there by whom is asked of Numba's counts.
FRAGMENTS = """
import numpy as np
from kernels.jit import by_family, inner, kernel, part

@inner
def _twice(number):
    return 2 * number

@part
def _more(numbers, at):
    numbers[at] += _twice(numbers[at])

@kernel
def _is_less(one, other):
    return one < other

@kernel
def _is_more(one, other):
    return one > other

less, more = by_family(_is_less, _is_less), by_family(_is_more, _is_more)

@inner
def _less(one, other):
    return less(one, other)

@inner
def _more_than(one, other):
    return more(one, other)

@kernel
def first(numbers):
    numbers[0] = _less(numbers[0], numbers[1])

@kernel
def both(numbers):
    first(numbers)
    numbers[1] = _more_than(numbers[1], numbers[2])

@kernel
def one(numbers):
    _more(numbers, 0)

@kernel
def other(numbers):
    for i in range(numbers.size):
        _more(numbers, i)
"""
CALLED = """
import numpy as np
import entrances
numbers = np.arange(1, 4)
entrances.{}(numbers)
print(numbers.tolist(), sum(entrances.{}.stats.cache_hits.values()), sum(entrances._more.stats.cache_hits.values()))
"""


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_what_has_no_entrance_is_kept_for_further_entrances_that_lead_there(tmp_path: Path) -> None:
    (tmp_path / "entrances.py").write_text(FRAGMENTS)

    def call(name: str) -> str:
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})" + CALLED.format(name, name)
        return output(python(code, tmp_path))

    assert call("one") == "[3, 2, 3] 0 0\n"
    assert call("other") == "[3, 6, 9] 0 1\n"
    assert call("other") == "[3, 6, 9] 1 0\n"
    # What other processes have compiled of one name, here the lambdas of ``by_family``, stays apart.
    assert call("first").startswith("[1, 2, 3] ")
    assert call("both").startswith("[1, 0, 3] ")
