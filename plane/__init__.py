"""Kubernetes Services and Ingress on real sockets, without a cluster."""

__version__ = "0.1.0"
