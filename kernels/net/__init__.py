"""The compiled socket runtime: loops of system calls that Numba compiles and one Python thread drives."""
