"""Ten thousand idle HTTP clients: `python -m benchmarks.web_idle_clients PORT PATH`.

Each sends one request. Prints `ready` when all have an answer, and keeps the connections open.
"""

from __future__ import annotations

import resource
import signal
import socket
import sys

COUNT = 10_000
LIMIT = 30.0  # seconds for an answer


def main(port: int, path: str) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    clients = []
    for _ in range(COUNT):
        client = socket.create_connection(("127.0.0.1", port), LIMIT)
        client.sendall(request)
        if not client.recv(4096).startswith(b"HTTP/1.1 200 "):
            sys.exit("not every client was answered")
        clients.append(client)
    print("ready", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
