"""``plane check``: requests and connections, and what manifests must do with them, judged offline. Pure.

Law: a case is judged by what ``plane explain`` says of it, which comes from the tables and kernels that carry traffic;
what a case does not mention is not judged.
"""

from plane.check.cases import Case, Check, parse
from plane.check.judge import Difference, Result, judge, judge_all

__all__ = ["Case", "Check", "Difference", "Result", "judge", "judge_all", "parse"]
