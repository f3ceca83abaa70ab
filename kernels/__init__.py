"""What decides and what moves: the data path, as Python source that Numba compiles to machine code.

Importing the package compiles nothing and imports no Numba; it only says where compiled code is kept (``cache``).
"""

from kernels import cache

cache.use()
