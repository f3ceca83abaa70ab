"""Cluster DNS: the names of a Snapshot, the server that answers for them on each node, and who asks it."""
