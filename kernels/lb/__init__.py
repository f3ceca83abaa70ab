"""Arithmetic on arrays: which backend a flow gets. ``forward`` is the page to read first."""
