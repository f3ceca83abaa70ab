"""When Python looks for garbage in a process that runs for long.

Law: what is there when the process has begun stays, so it is not looked at again. What comes later is freed as its last
reference goes; only cycles need looking for, which a change leaves hardly any of. Each look holds up all threads of the
process, also one that carries requests and wants Python's lock for a moment, and it goes by what tables hold now,
however little of it is new. So it is worth many changes.
"""

import gc

YOUNG = 10_000  # objects more than have gone before there is a look, 700 as Python has it: some hundred changes


def settle() -> None:
    """To be called once the process has begun. Looks at all that is there, for the last time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
