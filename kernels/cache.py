"""Where compiled code is kept: a directory that is named by a digest of everything the code depends on.

Law: one directory, one meaning. Numba looks at the file that a function is in and not at those it calls, so a cached
caller would keep the old code of a changed callee (Numba's documentation, "Caching compiled functions: limitations").
Here a change to any file of ``kernels``, to Numba, Python, the CPU or a switch of Numba's is another directory.
"""

import functools
import hashlib
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

SOURCES = Path(__file__).parent

# These say where code goes and whether it is made, not what it is.
_NOT_IN_THE_CODE = ("NUMBA_CACHE_DIR", "NUMBA_CACHE_LOCATOR_CLASSES", "NUMBA_DISABLE_JIT", "NUMBA_NUM_THREADS")

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
    settings = {"CACHE_DIR": str(directory()), "CACHE_LOCATOR_CLASSES": ",".join(_LOCATORS)}
    for name, value in settings.items():
        os.environ[f"NUMBA_{name}"] = value
        if "numba" in sys.modules:
            setattr(sys.modules["numba"].config, name, value)
    return directory()


@functools.cache
def directory() -> Path:
    """``$TRAFFICPLANE_CACHE/<digest>``, by default below ``~/.cache/trafficplane``; it may not exist yet."""
    root = os.environ.get("TRAFFICPLANE_CACHE") or Path.home() / ".cache" / "trafficplane"
    return Path(root) / digest()


def digest() -> str:
    """16 hex digits of everything compiled code depends on."""
    parts = [platform.python_version(), _cpu()]
    parts += [f"{name} {metadata.version(name)}" for name in ("numba", "llvmlite", "numpy")]
    parts += [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if name.startswith("NUMBA_") and name not in _NOT_IN_THE_CODE
    ]
    summary = hashlib.blake2b("\n".join(parts).encode(), digest_size=8)
    for path in sorted(SOURCES.rglob("*.py")):
        content = path.read_bytes()
        summary.update(f"\n{path.relative_to(SOURCES)} {len(content)}\n".encode())
        summary.update(content)
    return summary.hexdigest()


def _cpu() -> str:
    """Architecture, and the model and features of the first core, as far as the system tells them."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        first = platform.processor()
    told = [line for line in first.splitlines() if line.startswith(("model name", "flags", "CPU part", "Features"))]
    return "\n".join([platform.machine(), *told])
