"""Flows without a plane: columns of connections through the Fib and the kernels that carry live traffic."""
