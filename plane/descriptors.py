"""How many files and sockets a process may have open."""

import resource


def allow_descriptors(number: int) -> None:
    """Raises this process's soft limit of open files as far as that many need and the hard limit lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
