"""What a workload is told of the container it stands in for."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from plane import environment
from plane.addresses import AddressPlan
from plane.model import Object
from plane.validation.metadata import APP_ANNOTATION

HOST_NAME_MAX = 63


class StartError(Exception):
    """A container cannot start. ``reason`` is a word of kubectl's, the text says what is wrong and the remedy."""

    def __init__(self, reason: str, message: str):
        self.reason = reason
        super().__init__(message)


class Listen(NamedTuple):
    """Where a workload listens: the manifest's port, and the one that is bound for it."""

    ip: str
    port: int
    bound_port: int

    def __str__(self) -> str:
        shifted = f" (for port {self.port})" if self.port != self.bound_port else ""
        return f"{self.ip}:{self.bound_port}{shifted}"


@dataclass(frozen=True)
class ContainerSpec:
    """A container of a pod that has its node and its address."""

    pod: Object
    container: Object
    plan: AddressPlan

    @property
    def name(self) -> str:
        return str(self.container["name"])

    @property
    def pod_name(self) -> str:
        return str(self.pod["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.pod["metadata"].get("namespace", "default"))

    @property
    def image(self) -> str:
        return str(self.container["image"])

    @property
    def ip(self) -> str:
        return str(self.pod["status"]["podIP"])

    @property
    def hostname(self) -> str:
        """What ``hostname`` prints in the container."""
        return str(self.pod["spec"].get("hostname") or self.pod_name)[:HOST_NAME_MAX]

    @property
    def is_first(self) -> bool:
        """Whether it is the pod's first container, which annotations speak of."""
        return self.container is self.pod["spec"]["containers"][0]

    @property
    def app(self) -> str:
        """``module:attribute`` of the Python app that runs in the place of the pod's first container, or empty."""
        if not self.is_first:
            return ""
        return str((self.pod["metadata"].get("annotations") or {}).get(APP_ANNOTATION) or "")

    def env(self) -> dict[str, str]:
        return {"HOSTNAME": self.hostname, **environment.resolve(self.pod, self.container)}

    def ports(self, protocol: str = "TCP") -> list[int]:
        """Numbers of the declared container ports of a protocol."""
        rows = self.container.get("ports") or ()
        return [row["containerPort"] for row in rows if row.get("protocol", "TCP") == protocol]

    def port_named(self, port: int | str) -> int | None:
        """The number of a port that is given by number or by name; None where no port has the name."""
        if isinstance(port, int):
            return port
        rows = self.container.get("ports") or ()
        return next((row["containerPort"] for row in rows if row.get("name") == port), None)

    def listen(self, port: int) -> Listen:
        return Listen(self.ip, port, self.plan.bound_port(port))

    def arguments(self, program: str) -> list[str]:
        """The arguments that the image's ``program`` is started with, ``$(VAR)`` expanded.

        Raises StartError where ``command`` names another program than the image's own.
        """
        variables = self.env()
        command, *given = [
            environment.expand(text, variables)
            for text in (*(self.container.get("command") or (program,)), *(self.container.get("args") or ()))
        ]
        if PurePosixPath(command).name != program:
            raise StartError(
                "RunContainerError",
                f'command "{command}" is no program the plane can run; leave command out, '
                f"{self.image} is run as {program}",
            )
        return given
