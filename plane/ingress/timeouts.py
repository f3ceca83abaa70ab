"""How long an ingress waits for whom."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Timeouts:
    """In seconds; the defaults are ingress-nginx's, that of ``out_s`` is NGINX's ``fail_timeout``."""

    connect_s: float = 5.0  # for an endpoint to take a connection
    read_s: float = 60.0  # for the next byte of an endpoint
    out_s: float = 10.0  # an endpoint that has failed is left out
    idle_s: float = 60.0  # a connection to an endpoint is kept without a request
    head_s: float = 60.0  # for the whole head of a request, from its first byte or from the start of a connection
    body_s: float = 60.0  # for the next byte of a request's body
    send_s: float = 60.0  # for a client to take something of an answer
    keep_alive_s: float = 75.0  # a client's connection is kept without a request
