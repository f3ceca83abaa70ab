"""A Store behind its real API on 127.0.0.1, served by a thread, and commands run against it as a person would."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from ssl import create_default_context
from typing import Any, NamedTuple, TypeVar

from plane import kubeconfig
from plane.addresses import AddressPlan
from plane.advice import advise
from plane.api import Api
from plane.client import Client
from plane.model import Key, Object
from plane.store import Store

TIMEOUT_S = 60
PLANE = str(Path(sys.executable).with_name("plane"))
Result = TypeVar("Result")


class Answer(NamedTuple):
    code: int
    body: Any
    headers: Mapping[str, str]


class Served:
    """The store may be touched in its own loop only: by ``call``."""

    def __init__(self, plan: AddressPlan, folder: Path):
        self.token = secrets.token_urlsafe(32)
        self.kubeconfig = folder / "config"
        self.folder = folder
        self.acknowledged: dict[int, bool] = {}
        self.waited: list[int] = []
        self.free = threading.Event()  # while it is not set, nothing is acknowledged
        self.free.set()
        self.loop = asyncio.new_event_loop()
        self._plan = plan

    async def start(self) -> None:
        self.store = Store(self._plan)
        self.api = Api(
            self.store,
            token=self.token,
            wait=self._wait,
            advise=advise,
            connections=self._connections,
        )
        await self.api.start()
        kubeconfig.write(self.kubeconfig, self.api.url, self.token, self.api.ca_pem)

    async def _connections(self) -> list[Object]:
        return [
            {
                "node": "node-1",
                "client": "127.0.0.1:40000",
                "service": "default/web:80",
                "frontend": "127.96.1.1:80/TCP",
                "backend": "127.244.1.2:8080",
                "pod": "default/web-1",
                "state": "OPEN",
                "because": "random",
                "bytesToBackend": 78,
                "bytesToClient": 5_000_000,
                "ageSeconds": 1.5,
            }
        ]

    async def _wait(self, generation: int) -> None:
        self.waited.append(generation)
        await asyncio.to_thread(self.free.wait, TIMEOUT_S)

    def call(self, function: Callable[[Store], Result]) -> Result:
        """Runs a function of the store in the store's loop."""

        async def run() -> Result:
            return function(self.store)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(TIMEOUT_S)

    def get(self, *key: str) -> Object:
        return self.call(lambda store: store.get(Key(*key)))

    def client(self) -> Client:
        return Client(kubeconfig.read(self.kubeconfig))

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Answer:
        """One HTTPS request with nothing of ours on the way; ``token`` empty sends none."""
        token = self.token if token is None else token
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type, "Accept": accept}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(self.api.url + path, raw, headers, method=method)
        context = create_default_context(cadata=self.api.ca_pem)
        try:
            with urllib.request.urlopen(request, context=context, timeout=TIMEOUT_S) as response:
                return Answer(response.status, _decoded(response.read()), response.headers)
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, _decoded(error.read()), error.headers)

    def environment(self) -> dict[str, str]:
        """Where ``plane`` and ``kubectl`` find this plane and nothing of the machine's own."""
        own = {"HOME": str(self.folder), "KUBECONFIG": str(self.kubeconfig), kubeconfig.VARIABLE: str(self.kubeconfig)}
        return {**os.environ, **own}

    def run(self, *command: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, env=self.environment(), check=False
        )

    def plane(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """The command as installed."""
        return self.run(PLANE, *arguments, stdin=stdin)


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode()


@contextmanager
def serving(plan: AddressPlan, folder: Path) -> Iterator[Served]:
    served = Served(plan, folder)
    thread = threading.Thread(target=served.loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(served.start(), served.loop).result(TIMEOUT_S)
        try:
            yield served
        finally:
            served.free.set()
            asyncio.run_coroutine_threadsafe(served.api.stop(), served.loop).result(TIMEOUT_S)
    finally:
        served.loop.call_soon_threadsafe(served.loop.stop)
        thread.join(TIMEOUT_S)
        served.loop.close()


def service(name: str = "web", **spec: object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}], **spec},
    }


def deployment(name: str = "web", **spec: object) -> Object:
    container = {"name": "web", "image": "nginx:1", "ports": [{"containerPort": 8080}]}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template, **spec},
    }


def ingress(name: str = "web", host: str = "example.com") -> Object:
    backend = {"service": {"name": name, "port": {"number": 80}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"rules": [{"host": host, "http": {"paths": paths}}]},
    }
