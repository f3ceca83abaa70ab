"""Command-line flags as Go programs take them: ``-name value`` or ``-name=value``, one or two dashes.

Switches need no value.

https://pkg.go.dev/flag#hdr-Command_line_flag_syntax; pflag's one-letter flags are not needed by any workload.
"""

from collections.abc import Iterable, Mapping, Sequence

from plane.pods.spec import StartError

TRUE = ("1", "t", "T", "true", "TRUE", "True")
FALSE = ("0", "f", "F", "false", "FALSE", "False")


class Flags:
    """The flags of one program, parsed.

    known     name → default, as text; a name that is a key of ``known`` may be given
    switches  those of them that take no value
    Raises StartError that names the argument which is not known or wrong.
    """

    def __init__(self, program: str, arguments: Sequence[str], known: Mapping[str, str], switches: Iterable[str] = ()):
        self._program = program
        self._values = dict(known)
        switches = set(switches)
        rest = list(arguments)
        while rest:
            argument = rest.pop(0)
            name, equals, value = argument.lstrip("-").partition("=")
            if not argument.startswith("-") or name not in known:
                flags = " ".join(f"--{flag}" for flag in known)
                raise self._error(
                    f'argument "{argument}" is not one the plane runs it with; it knows {flags or "none"}'
                )
            if not equals and name in switches:
                value = "true"
            elif not equals:
                if not rest:
                    raise self._error(f'argument "{argument}" needs a value')
                value = rest.pop(0)
            self._values[name] = value

    def text(self, name: str) -> str:
        return self._values[name]

    def integer(self, name: str) -> int:
        try:
            return int(self._values[name])
        except ValueError:
            raise self._error(f'--{name} "{self._values[name]}" is no whole number') from None

    def port(self, name: str) -> int:
        number = self.integer(name)
        if not 0 < number < 65536:
            raise self._error(f"--{name} {number} is no port, choose 1 to 65535")
        return number

    def switch(self, name: str) -> bool:
        value = self._values[name]
        if value not in (*TRUE, *FALSE):
            raise self._error(f'--{name} "{value}" is neither true nor false')
        return value in TRUE

    def _error(self, what: str) -> StartError:
        return StartError("RunContainerError", f"{self._program}: {what}")
