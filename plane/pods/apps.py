"""Python apps as pods: ``trafficplane.dev/app: module:attribute`` names an ASGI app, an aiohttp ``web.Application``
or a function that makes one.

Law: an app runs in a thread and an event loop of its own, so that one that blocks stalls itself only. The module it is
in is run anew for each pod, so that replicas share none of its state; the modules it imports are shared, as is the
process. ``os.environ`` holds the container's variables while the module is run and the app is made; names mean what
they mean to the pod (``plane.pods.resolving``).
"""

import importlib
import importlib.util
import inspect
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from aiohttp import web

from plane.pods import resolving
from plane.pods.asgi import AiohttpServer, AsgiServer
from plane.pods.server import Server, Workload
from plane.pods.spec import ContainerSpec, StartError
from plane.pods.threaded import Threaded

DEFAULT_PORT = 8080
ASGI_ARGUMENTS = 3

# Running a module changes sys.modules and os.environ, which the whole process shares.
_loading = threading.Lock()


def workload(spec: ContainerSpec) -> Workload:
    """The app that the pod's annotation names, on its first declared port or 8080."""
    resolving.attend()
    name, resolver = f"app of pod {spec.namespace}/{spec.pod_name}", resolving.resolver_of(spec)
    return Workload([Threaded(name, lambda: _server(spec), resolver)])


async def _server(spec: ContainerSpec) -> Server:
    """The server of an app, made in the running loop. Raises StartError where the app can't be had."""
    listen = spec.listen(next(iter(spec.ports()), DEFAULT_PORT))
    app = load(spec.app, spec.env())
    if inspect.isawaitable(app):
        app = await app
    if isinstance(app, web.Application):
        return AiohttpServer(listen, app)
    if _arguments(app) == ASGI_ARGUMENTS:
        return AsgiServer(listen, app)
    what = (
        f'app "{spec.app}" is a {type(app).__name__}; it must be an ASGI app, an aiohttp web.Application or a function'
    )
    raise StartError("CrashLoopBackOff", f"{what} without arguments that makes one")


def load(target: str, env: Mapping[str, str]) -> Any:
    """What ``module:attribute`` names, called where it takes no argument. Raises StartError that says what is wrong."""
    name, _, path = target.partition(":")
    with _loading, _Environment(env):
        try:
            found: Any = reduce(getattr, path.split("."), _run_module(name))
            return found() if _arguments(found) == 0 else found
        except BaseException as problem:
            raise StartError("CrashLoopBackOff", f'app "{target}" cannot be loaded: {_told(problem)}') from problem


def _run_module(name: str) -> ModuleType:
    """The module, run anew; the modules it imports are those of the process."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    before = sys.modules.pop(name, None)  # or it would be found there
    try:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"No module named {name!r} in {here} or on the Python path")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        if before is not None:
            sys.modules[name] = before
        raise
    return module


def _arguments(found: Any) -> int | None:
    """How many arguments a callable must at least be given; None for what is no function and no ASGI app."""
    if isinstance(found, web.Application):
        return None
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(row.kind in positional and row.default is inspect.Parameter.empty for row in parameters)


def _told(problem: BaseException) -> str:
    """The error and the line of the app it comes from."""
    frames = traceback.extract_tb(problem.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(problem).__name__}: {problem}{where}"


class _Environment:
    """``os.environ`` with these variables while it is entered. Only under ``_loading``."""

    def __init__(self, env: Mapping[str, str]):
        self._env = env

    def __enter__(self) -> None:
        self._before = {name: os.environ.get(name) for name in self._env}
        os.environ.update(self._env)

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
