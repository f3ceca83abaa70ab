"""Whether a Snapshot does what a case expects, and where it does otherwise. Pure."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from kernels.layout import RANDOM
from plane.check.cases import FORWARDED, REFUSED, Case, Check
from plane.errors import ManifestError, Problem
from plane.explain import Explanation, FlowExplanation, explain
from plane.explain.request import FORWARDED as FORWARDED_STATUS
from plane.model import Snapshot

# What `plane explain` calls what it is asked, and a case.
_FIELDS = {"URL": "url", "--from-ip": "fromIp", "--from-pod": "fromPod", "--node": "node"}

Found = Explanation | FlowExplanation


@dataclass(frozen=True)
class Difference:
    """A field of what was expected that came out otherwise, both as they are shown."""

    field: str
    expected: Any
    got: Any


@dataclass(frozen=True)
class Result:
    """What became of a case; ``outcome`` says it in a few words, ``reasons`` are those of ``plane explain``."""

    name: str
    outcome: str
    differences: tuple[Difference, ...]
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        """An object of ``name, passed, outcome, differences, reasons``."""
        differences = [asdict(each) for each in self.differences]
        return {**asdict(self), "passed": self.passed, "differences": differences, "reasons": list(self.reasons)}


def judge_all(snapshot: Snapshot, check: Check, algorithm: int = RANDOM, file: str = "") -> list[Result]:
    """The results of a file's cases. Raises ManifestError with every case that asks about what does not exist."""
    results, problems = [], []
    for number, case in enumerate(check.spec.cases):
        try:
            results.append(judge(snapshot, case, algorithm))
        except ManifestError as error:
            named, at = f"Check {check.metadata.name}", f"spec.cases[{number}]"
            problems += [Problem(file, 1, named, f"{at}.{_FIELDS[row.field]}", row.reason) for row in error.problems]
    if problems:
        raise ManifestError(problems)
    return results


def judge(snapshot: Snapshot, case: Case, algorithm: int = RANDOM) -> Result:
    """The result of a case. Raises ManifestError where it asks about a pod or node that does not exist."""
    found = explain(
        snapshot,
        case.url,
        method=case.method,
        headers=list(case.headers.items()),
        from_ip=case.from_ip,
        from_pod=case.from_pod,
        node=case.node,
        algorithm=algorithm,
    )
    asked = case.url if case.is_flow else f"{case.method} {case.url}"
    differences = tuple(
        Difference(field, expected, got)
        for field, expected in case.expect.model_dump(exclude_none=True).items()
        if (got := _GOT[field](found, expected)) != _normal(field, expected)
    )
    return Result(case.name or asked, _outcome(found), differences, found.reasons)


def _normal(field: str, expected: Any) -> Any:
    """An expectation as ``_GOT`` gives what came out: with its namespace, endpoints in order."""
    if field in ("service", "ingress") and "/" not in expected:
        return f"default/{expected}"
    if field == "headers":
        return {name.lower(): value for name, value in expected.items()}
    return sorted(expected) if field == "endpoints" else expected


def _service(found: Found, expected: str) -> str | None:
    """The Service, with its port where the case says one."""
    if not found.service or ":" not in expected:
        return found.service
    if isinstance(found, Explanation):
        return f"{found.service}:{found.port}"
    return f"{found.service}:{(found.frontend or '').partition('/')[0].rpartition(':')[2]}"


def _endpoints(found: Found) -> list[str]:
    if isinstance(found, FlowExplanation):
        return sorted(found.endpoints)
    return sorted(f"{row['ip']}:{row['port']}" for row in found.endpoints if row["used"])


def _headers(found: Found, expected: dict[str, str]) -> dict[str, str | None]:
    """Those that the plane puts into the answer, of the names that the case asks for."""
    there = {name.lower(): value for name, value in getattr(found, "response_headers", {}).items()}
    return {name.lower(): there.get(name.lower()) for name in expected}


def _status(found: Found) -> int | str:
    status = getattr(found, "status", None)
    return FORWARDED if status == FORWARDED_STATUS else status or REFUSED


# Field of Expect → what came out of it; the expectation tells how exactly it is asked.
_GOT: dict[str, Callable[[Found, Any], Any]] = {
    "status": lambda found, _: _status(found),
    "redirect": lambda found, _: getattr(found, "redirect", None),
    "headers": _headers,
    "path": lambda found, _: (getattr(found, "upstream", None) or {}).get("path"),
    "service": _service,
    "ingress": lambda found, _: getattr(found, "ingress", None),
    "endpoints": lambda found, _: _endpoints(found),
    "verdict": lambda found, _: getattr(found, "verdict", None),
    "policy": lambda found, _: getattr(found, "policy", None),
    "masquerade": lambda found, _: getattr(found, "masquerade", None),
}


def _outcome(found: Found) -> str:
    if isinstance(found, FlowExplanation):
        return f"{found.verdict} {found.service}" if found.service else found.verdict
    status = _status(found)
    if found.redirect:
        return f"{status} to {found.redirect}"
    said = f"{found.service}:{found.port}" if status == FORWARDED else str(status)
    return f"{said}, if {found.decided_by} lets it in" if found.decided_by else said
