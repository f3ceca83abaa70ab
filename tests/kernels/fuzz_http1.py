"""Hours of what ``test_http1`` does in seconds, guided by the branches that bytes take: a harness for atheris.

    pip install atheris
    NUMBA_DISABLE_JIT=1 python -m tests.kernels.fuzz_http1 DIRECTORY [-max_total_time=3600 …]

DIRECTORY holds what has been found to take a new branch, and to begin with the requests that are listed. An input that
llhttp and the compiled reader see differently ends the run, and stays in a file ``crash-…`` of the current directory.
"""

import os
import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found]

if os.environ.get("NUMBA_DISABLE_JIT") != "1":
    sys.exit("set NUMBA_DISABLE_JIT=1: of machine code nobody sees which branches it takes")

with atheris.instrument_imports(include=["kernels.net.http1"]):
    from kernels.net import http1

from tests.ingress import smuggling
from tests.kernels import test_http1


def one(data: bytes) -> None:
    """The first byte says where the rest is cut in two."""
    if data:
        sent, cut = data[1:], data[0] * (len(data) - 1) // 255
        test_http1.holds([sent[:cut], sent[cut:]])


def main() -> None:
    assert http1.LINES, "instrumented first"
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(smuggling.ROWS):
        (directory / f"listed-{number}").write_bytes(b"\x80" + row.sent)
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
