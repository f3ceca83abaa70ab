"""Where a run came from: what one must know to believe its numbers, or to repeat it."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from plane import __version__

PACKAGES = ("ray", "numpy", "numba", "aiohttp", "pyarrow", "uvloop", "httptools")


def of_machine() -> dict[str, str]:
    """Versions, commit, kernel, processor: metadata of a run by key (docs/records.md)."""
    return {
        "command": shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]),
        "versions": json.dumps({"trafficplane": __version__, "python": platform.python_version(), **_versions()}),
        "commit": commit(),
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
    }


def of_input(scenario_text: str, objects: Sequence[object]) -> dict[str, str]:
    """The scenario as it was read and digests of it and of its manifests."""
    manifests = json.dumps(objects, sort_keys=True, separators=(",", ":"), default=str)
    return {
        "scenario": scenario_text,
        "scenario_sha256": sha256(scenario_text.encode()).hexdigest(),
        "manifests_sha256": sha256(manifests.encode()).hexdigest(),
    }


def commit() -> str:
    """The git commit that runs: from TRAFFICPLANE_COMMIT (a Ray job sees no .git), else from git; empty if unknown."""
    given = os.environ.get("TRAFFICPLANE_COMMIT")
    if given is not None:
        return given
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def run_id(now: datetime | None = None) -> str:
    """A name for a run that sorts by time and that two runs do not share: ``20260102T030405Z-9f2c``."""
    return f"{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.urandom(2).hex()}"


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
