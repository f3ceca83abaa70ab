"""Hours of what ``test_http1`` does in seconds, guided by the branches that bytes take: a harness for atheris.

    NUMBA_DISABLE_JIT=1 python -m tests.kernels.fuzz_http1 requests DIRECTORY [-max_total_time=3600 …]
    NUMBA_DISABLE_JIT=1 python -m tests.kernels.fuzz_http1 answers DIRECTORY …
    NUMBA_DISABLE_JIT=1 python -m tests.kernels.fuzz_http1 requests DIRECTORY keep

DIRECTORY holds what has been found to take a new branch, and to begin with what is listed and what is kept in
``tests/kernels/corpus``. An input that llhttp and the compiled reader see differently ends the run, and stays in a file
``crash-…`` of the current directory, or where ``-artifact_prefix=`` says; one that has been read further than it goes
ends the process. ``keep`` puts what goes where nothing else does among that which is kept, and which ``test_http1``
reads each time.
"""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

if os.environ.get("NUMBA_DISABLE_JIT") != "1":
    sys.exit("set NUMBA_DISABLE_JIT=1: of machine code nobody sees which branches it takes")

if "keep" in sys.argv:
    from kernels.net import answerhead, bodies, http1, octets, requesthead, writing
else:
    import atheris  # type: ignore[import-not-found]

    names = ("answerhead", "bodies", "http1", "octets", "requesthead", "writing")
    with atheris.instrument_imports(include=[f"kernels.net.{name}" for name in names]):
        from kernels.net import answerhead, bodies, http1, octets, requesthead, writing

from tests.ingress import smuggling, test_answers
from tests.kernels import test_http1

FILES = {module.__file__ for module in (answerhead, bodies, http1, octets, requesthead, writing)}
READERS: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
    "requests": (test_http1.holds_found_request, [row.sent for row in smuggling.ROWS]),
    "answers": (test_http1.holds_found_answer, [row.said for row in test_answers.ROWS]),
}


def fill(directory: Path, inputs: Iterable[bytes]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(inputs):
        (directory / f"listed-{number}").write_bytes(data)


def keep(kind: str, found: list[bytes]) -> None:
    """Write the corpus anew: of what is there and what is found, in this order, what goes where none before did."""
    read, _ = READERS[kind]
    gone: set[tuple[str, int, int]] = set()
    kept = []
    for data in [*test_http1.corpus(kind), *sorted(found, key=len)]:
        way = branches(read, data)
        if not way <= gone:
            kept.append(data)
            gone |= way
    lines = (data.decode("latin-1").encode("unicode_escape").decode() for data in kept)
    (test_http1.CORPUS / f"{kind}.txt").write_text("".join(line + "\n" for line in lines))
    print(f"{len(kept)} of {len(found)} inputs are kept, they go {len(gone)} ways from line to line")


def branches(read: Callable[[bytes], object], data: bytes) -> set[tuple[str, int, int]]:
    """The pairs of lines of a file of FILES that follow each other while it is read."""
    seen: set[tuple[str, int, int]] = set()

    def enter(frame: FrameType, *_: Any) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        last = frame.f_lineno

        def step(frame: FrameType, *_: Any) -> Any:
            nonlocal last
            seen.add((frame.f_code.co_filename, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step

    sys.settrace(enter)
    try:
        read(data)
    finally:
        sys.settrace(None)
    return seen


def main(kind: str, where: str, *options: str) -> None:
    directory = Path(where)
    read, listed = READERS[kind]
    if options == ("keep",):
        keep(kind, [file.read_bytes() for file in directory.iterdir()])
        return
    fill(directory, (*(b"\x80" + data for data in listed), *test_http1.corpus(kind)))
    atheris.Setup([sys.argv[0], where, *options], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
