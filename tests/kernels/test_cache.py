"""The cache of compiled code: named by what the code depends on, filled once."""

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
warm.PARTS = {"load balancing": warm.PARTS["load balancing"]}
warm.warm(lambda line: print(line, flush=True))
assert warm.is_warm()
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
    text, _ = process.communicate(timeout=200)
    assert process.returncode == 0, text
    return text


def test_importing_kernels_imports_no_numba(tmp_path: Path) -> None:
    assert output(python("import kernels, sys; print('numba' in sys.modules)", tmp_path)) == "False\n"


def test_numba_keeps_its_code_in_the_directory_whichever_is_imported_first(tmp_path: Path) -> None:
    for first, second in (("kernels", "numba"), ("numba", "kernels")):
        code = f"import {first}, {second}, numba; print(numba.config.CACHE_DIR)"
        assert Path(output(python(code, tmp_path)).strip()).parent == tmp_path / "cache"


def test_digest_follows_each_source_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(cache.SOURCES, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    before = cache.digest()
    monkeypatch.setattr(cache, "SOURCES", copy)
    assert cache.digest() == before
    for changed in (copy / "layout.py", copy / "lb" / "hashing.py"):
        changed.write_text(changed.read_text() + "\n")
        assert cache.digest() != before
        before = cache.digest()


def test_digest_follows_switches_of_the_compiler_and_not_of_where_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.digest()
    monkeypatch.setenv("NUMBA_CACHE_DIR", "elsewhere")
    assert cache.digest() == before
    monkeypatch.setenv("NUMBA_OPT", "1")
    assert cache.digest() != before


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_of_processes_that_warm_up_at_once_one_compiles_and_the_others_load(tmp_path: Path) -> None:
    processes = [python(WARM, tmp_path) for _ in range(3)]
    lines = [output(process) for process in processes]
    assert sorted(lines) == ["", "", "compiling for this machine, once: load balancing\n"]
    compiled = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb[ci]")}
    started = time.monotonic()
    assert output(python(WARM, tmp_path)) == ""
    assert time.monotonic() - started < 20
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb[ci]")} == compiled


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_a_copy_of_the_sources_somewhere_else_compiles_nothing(tmp_path: Path) -> None:
    hashing = "import numpy as np; from kernels.lb import hashing; hashing.mix64(np.uint64(1))"
    assert output(python(hashing, tmp_path)) == ""
    compiled = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb[ci]")}
    assert compiled
    shutil.copytree(cache.SOURCES, tmp_path / "copy" / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    assert output(python(hashing, tmp_path, tmp_path / "copy")) == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb[ci]")} == compiled
