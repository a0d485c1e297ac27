"""Addresses that TensorFlow's channels reach without a proxy."""

from __future__ import annotations

import os


def without_proxy(*hosts: str) -> None:
    """Let TensorFlow's channels to hosts go there, whatever proxy this process is told to use.

    A proxy of `http_proxy` cannot carry them; a server would never become ready, and a client
    would wait for ever.

    Args:
        hosts: names or addresses, as they are dialled.
    """
    # The first of the two that is set is the one that counts.
    before = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy") or ""
    named = [one.strip() for one in before.split(",") if one.strip()]
    os.environ["no_grpc_proxy"] = ",".join(dict.fromkeys([*named, *filter(None, hosts)]))
