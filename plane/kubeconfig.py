"""The kubeconfig file: where a running plane's API is, and the token that opens it.

Law: the file is the key to the plane. It has mode 0600 from its first byte, it appears whole or not at all, and it
goes when the plane goes. It is JSON, which is YAML too, so ``kubectl --kubeconfig`` reads it; one that ``kubectl
config`` has rewritten as YAML is read as well.
"""

import base64
import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plane.errors import PlaneError

VARIABLE = "TRAFFICPLANE_KUBECONFIG"
NAME = "trafficplane"


@dataclass(frozen=True)
class Access:
    """What a client needs: ``server`` URL, bearer ``token``, the CA's certificates as PEM, the default namespace."""

    server: str
    token: str
    ca_pem: str
    namespace: str = "default"


def default_path() -> Path:
    """``$TRAFFICPLANE_KUBECONFIG``, else ``~/.trafficplane/config``."""
    return Path(os.environ.get(VARIABLE) or Path.home() / ".trafficplane" / "config")


def write(path: Path, server: str, token: str, ca_pem: str) -> None:
    """Puts the file in place of one that may be there. Raises PlaneError where it cannot be written."""
    refuse_others(path)
    text = json.dumps(_document(server, token, ca_pem), indent=2) + "\n"
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        # O_EXCL: a file or link that somebody else put there is never written to.
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        part.replace(path)
    except OSError as error:
        raise PlaneError(f"cannot write the kubeconfig file {path}: {error.strerror}; set {VARIABLE}") from error


def refuse_others(path: Path) -> None:
    """Raises PlaneError where the file is there and not a plane's: credentials of other clusters are not replaced."""
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise PlaneError(f"cannot read the kubeconfig file {path}: {error.strerror}; set {VARIABLE}") from error
    if not text.strip():
        return
    try:
        names = {row["name"] for row in _parsed(text)["contexts"]}
    except (ValueError, KeyError, TypeError):
        names = set()
    if names != {NAME}:
        raise PlaneError(
            f"{path} is not a plane's kubeconfig file, and is left as it is; set {VARIABLE} to a file of its own"
        )


def read(path: Path) -> Access:
    """The access that the file's current context gives. Raises PlaneError where there is none."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise PlaneError(f"no plane is running ({path} is not there); start one with: plane up -f PATH") from None
    except OSError as error:
        raise PlaneError(f"cannot read the kubeconfig file {path}: {error.strerror}") from error
    try:
        return _access(_parsed(text))
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise PlaneError(f"{path} is no kubeconfig file of a plane; start one with: plane up -f PATH") from error


def remove(path: Path, token: str) -> None:
    """Removes the file if it still holds this token, and not the one of a plane that was started later."""
    with contextlib.suppress(PlaneError, FileNotFoundError):
        if read(path).token == token:
            path.unlink()


def _document(server: str, token: str, ca_pem: str) -> dict[str, Any]:
    authority = base64.b64encode(ca_pem.encode()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": NAME, "user": {"token": token}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME}}],
        "current-context": NAME,
    }


def _parsed(text: str) -> Any:
    if text.lstrip().startswith("{"):
        return json.loads(text)
    import yaml  # only for a file that was rewritten: it would be a good part of a command's start

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _access(document: Any) -> Access:
    def named(rows: str, row: str, name: str) -> dict[str, Any]:
        return next(entry[row] for entry in document[rows] if entry["name"] == name)

    context = named("contexts", "context", document["current-context"])
    cluster = named("clusters", "cluster", context["cluster"])
    return Access(
        server=cluster["server"],
        token=named("users", "user", context["user"])["token"],
        ca_pem=base64.b64decode(cluster["certificate-authority-data"]).decode(),
        namespace=context.get("namespace") or "default",
    )
