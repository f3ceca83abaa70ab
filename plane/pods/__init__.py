"""Pods: in-process servers, each on its own pod address, that answer as the image of their container would.

``pod`` runs the containers of one Pod object and ends them gracefully; ``container`` starts one, again and again if it
must, and asks its readiness probe. ``images`` says which workload stands in for an image; ``server`` and ``apps`` are
how workloads listen and drain.
"""
