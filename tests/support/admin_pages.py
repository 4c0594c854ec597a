"""Read the admin pages of a proxy."""

from __future__ import annotations

import socket
from http.client import HTTPResponse

from support.connection import Connection
from support.waiting import LIMIT


def fetch(port: int, path: str, method: str = "GET") -> tuple[HTTPResponse, bytes]:
    connection = Connection(socket.create_connection(("127.0.0.1", port), LIMIT))
    try:
        connection.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return connection.read_response(method)
    finally:
        connection.close()


def metric_value(port: int, metric: str) -> float:
    """Return the sum of all series of a metric whose lines start with `metric`."""
    text = fetch(port, "/-/metrics")[1].decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(metric))
