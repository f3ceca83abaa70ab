"""The plane's API: Kubernetes' paths and JSON over the Store, for ``plane``, ``kubectl`` and any Kubernetes client.

``server`` is the only file that knows HTTP; ``resources``, ``watching`` and ``own`` answer, the rest are pure.
"""

from plane.api.server import Api

__all__ = ["Api"]
