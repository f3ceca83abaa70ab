"""Drivers put a load on a subject, ours or a peer: the same driver, so that the numbers can be compared."""
