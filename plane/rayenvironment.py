"""How Ray is to behave: what it reads from the environment when it is imported. Import this first.

Law: what the user has set stays. A Ray of our own has a token that only its processes know: without one, who reaches
its port can run code as us. A cluster that is joined says by RAY_AUTH_MODE what it wants.
"""

import os
import secrets

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
# A call after shutdown is an error: without this, Ray would start or join another one behind our back.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
# Ray's own is 15, by which all that carries requests would come behind the control plane, and whoever wants a core.
os.environ.setdefault("RAY_worker_niceness", "0")
# Of a Ray of our own nobody sees the figures that its processes gather all the time: it has no dashboard.
if "RAY_ADDRESS" not in os.environ:
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    os.environ.setdefault("REPORTER_UPDATE_INTERVAL_MS", str(3_600_000))
if not {"RAY_ADDRESS", "RAY_AUTH_MODE"} & os.environ.keys():
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
