"""Where compiled code is kept: a directory that is named by a digest of everything the code depends on.

Law: one directory, one meaning. Numba looks at the file that a function is in and not at those it calls, so a cached
caller would keep the old code of a changed callee (Numba's documentation, "Caching compiled functions: limitations").
Here a change to any file of ``kernels``, to Numba, Python, the CPU or a switch of Numba's is another directory.

Within it each file's code has a folder by the text of that file and of all that it imports. A new directory begins with
those folders that others have already, so what a change cannot reach is not compiled anew. Tuples come as arguments,
and their classes are Numba's types by name alone; so all layouts are taken for imported everywhere.
"""

import contextlib
import functools
import hashlib
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

SOURCES = Path(__file__).parent

# These say where code goes and whether it is made, not what it is.
_NOT_IN_THE_CODE = ("NUMBA_CACHE_DIR", "NUMBA_CACHE_LOCATOR_CLASSES", "NUMBA_DISABLE_JIT", "NUMBA_NUM_THREADS")

# As the house writes them: ``from kernels.lb import hashing``. A test holds this to what Python makes of each file.
_IMPORT = re.compile(r"^\s*from\s+(kernels[\w.]*)\s+import\s+(\([^)]*\)|.+)", re.MULTILINE)

# Who is asked where the code of a function is: ours for ours, and then Numba's own.
_LOCATORS = (
    "kernels.locator.Locator",
    "UserProvidedCacheLocator",
    "InTreeCacheLocator",
    "UserWideCacheLocator",
    "IPythonCacheLocator",
    "ZipCacheLocator",
)


def use() -> Path:
    """Point Numba at ``directory()``; through the environment too, which Numba reads again with each compilation."""
    begin(directory())
    settings = {"CACHE_DIR": str(directory()), "CACHE_LOCATOR_CLASSES": ",".join(_LOCATORS)}
    for name, value in settings.items():
        os.environ[f"NUMBA_{name}"] = value
        if "numba" in sys.modules:
            setattr(sys.modules["numba"].config, name, value)
    return directory()


@functools.cache
def directory() -> Path:
    """``$TRAFFICPLANE_CACHE/<digests>``, by default below ``~/.cache/trafficplane``."""
    root = os.environ.get("TRAFFICPLANE_CACHE") or Path.home() / ".cache" / "trafficplane"
    return Path(root) / f"{_hexadecimal(_compiler())}-{digest()}"


@functools.cache
def folder_of(source: Path) -> Path:
    """Where the code of one file of ``SOURCES`` is kept, within ``directory``; it may not exist yet."""
    name = ".".join(source.relative_to(SOURCES).with_suffix("").parts)
    return directory() / f"{name}-{digest(reached_from(source))}"


def begin(new: Path) -> None:
    """Make the directory, with the folders of it that others have: as links, for files in them are only ever replaced.

    Where it cannot be made, it is Numba's to see what to do.
    """
    if new.exists():
        return
    with contextlib.suppress(OSError):
        new.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=new.parent) as unnamed:
            made = Path(unnamed) / new.name
            made.mkdir()
            compiler = new.name.partition("-")[0]
            others = sorted(new.parent.glob(f"{compiler}-*"), key=lambda other: other.stat().st_mtime, reverse=True)
            for name in (folder_of(source).name for source in SOURCES.rglob("*.py")):
                for other in others:
                    if (other / name).is_dir():
                        _link(other / name, made / name)
                        break
            made.rename(new)  # fails where another process has been faster


def _link(there: Path, here: Path) -> None:
    here.mkdir()
    for pattern in ("*.nbi", "*.nbc"):  # in this order, for what an index names is there before it does
        for file in there.glob(pattern):
            (here / file.name).hardlink_to(file)


def digest(sources: Iterable[Path] | None = None) -> str:
    """16 hex digits of the text of some files of ``SOURCES``, or of all."""
    paths = SOURCES.rglob("*.py") if sources is None else sources
    texts = ((path.relative_to(SOURCES), path.read_bytes()) for path in sorted(paths))
    return _hexadecimal(part for path, text in texts for part in (f"{path} {len(text)}".encode(), text))


def reached_from(source: Path) -> set[Path]:
    """That file of ``SOURCES``, the layouts and all they import of them, and what those import, and so on."""
    reached = {source, *SOURCES.glob("layout*.py")}
    ahead = list(reached)
    while ahead:
        new = imported_by(ahead.pop()) - reached
        reached |= new
        ahead += new
    return reached


@functools.cache
def imported_by(source: Path) -> frozenset[Path]:
    """The files of ``SOURCES`` that a file imports from; where a package's part may be meant or a name in it, both."""
    named = set()
    for package, names in _IMPORT.findall(source.read_text()):
        named |= {package} | {f"{package}.{name}" for name in re.findall(r"(\w+)(?:\s+as\s+\w+)?", names)}
    places = [SOURCES.parent.joinpath(*name.split(".")) for name in named]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return frozenset(file for file in files if file.is_file())


def _compiler() -> Iterable[bytes]:
    """What compiled code depends on besides its sources."""
    yield platform.python_version().encode()
    yield _cpu().encode()
    for name in ("numba", "llvmlite", "numpy"):
        yield f"{name} {metadata.version(name)}".encode()
    for name, value in sorted(os.environ.items()):
        if name.startswith("NUMBA_") and name not in _NOT_IN_THE_CODE:
            yield f"{name}={value}".encode()


def _hexadecimal(parts: Iterable[bytes]) -> str:
    summary = hashlib.blake2b(digest_size=8)
    for part in parts:
        summary.update(part + b"\n")
    return summary.hexdigest()


def _cpu() -> str:
    """Architecture, and the model and features of the first core, as far as the system tells them."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        first = platform.processor()
    told = [line for line in first.splitlines() if line.startswith(("model name", "flags", "CPU part", "Features"))]
    return "\n".join([platform.machine(), *told])
