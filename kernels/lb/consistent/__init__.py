"""Consistent hashing that the plane does not use, to be compared with what it does."""
