"""How commands of ``plane bench`` end before their work is done."""

import sys
from typing import NoReturn

import click

INTERRUPTED = 130  # the exit code


def fail(message: str, code: int) -> NoReturn:
    """Says it and exits."""
    click.echo(f"error: {message}", err=True)
    sys.exit(code)
