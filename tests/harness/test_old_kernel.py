"""A compiled load on Linux before 5.11, which has no epoll_pwait2: a seccomp filter refuses it to a process."""

import asyncio
import sys

import pytest

from tests.harness.subjects import OK, answering, serving

# Has no epoll_pwait2 before anything is compiled; sends 20 requests to port argv[1], of which the first are overdue.
OLD = """
import ctypes, struct, sys, time

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, EPOLL_PWAIT2, ENOSYS = 38, 22, 2, 441, 38
rules = (  # code, jump if true, jump if false, operand: of linux/bpf_common.h and linux/seccomp.h
    (0x20, 0, 0, 0),  # load the number of the system call
    (0x15, 0, 1, EPOLL_PWAIT2),
    (0x06, 0, 0, 0x00050000 | ENOSYS),  # it fails so
    (0x06, 0, 0, 0x7FFF0000),  # every other is as ever
)
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(rules), ctypes.addressof(code)))
libc = ctypes.CDLL(None)
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0) == 0
assert libc.syscall(EPOLL_PWAIT2, -1, 0, 0, 0, 0, 0) == -1

from harness.drivers import compiled
from harness.drivers.http import Destination
from tests.harness.subjects import in_turn

compiled.prepare()
stream = compiled.CompiledStream(in_turn(Destination("127.0.0.1", int(sys.argv[1])), 100, 200))
recorded = stream.run(time.monotonic_ns() - 50_000_000)
print(*recorded.requests["status"])
"""


@pytest.mark.syscalls
async def test_a_load_on_it_waits_by_milliseconds() -> None:
    async with serving(answering(OK)) as server:
        load = await asyncio.create_subprocess_exec(
            sys.executable, "-c", OLD, str(server.port), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await load.communicate()
    assert load.returncode == 0
    assert said.split() == [b"200"] * 20
