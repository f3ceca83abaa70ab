"""``python -m harness SCENARIO``: the same as ``plane bench run SCENARIO``, for ``ray job submit``."""

from harness.cli import run

if __name__ == "__main__":
    run(prog_name="python -m harness")
