"""HTTP clients that request pages in a loop, each time with a new name.

usage: http_clients.py CLIENTS URL SECONDS

Prints one line per page: the backend's address, or `wrong` and the reason, then the name. A page
that takes longer than SECONDS is wrong. On SIGTERM it finishes the current pages and exits.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import sys
import threading
from urllib.parse import urlsplit


def run_client(client: int, url: str, seconds: float, stopping: threading.Event) -> None:
    target = urlsplit(url)
    connection = http.client.HTTPConnection(target.netloc, timeout=seconds)
    count = 0
    while not stopping.is_set():
        count += 1
        name = f"client{client}-{count}"
        try:
            connection.request("GET", f"{target.path}/{name}")
            response = connection.getresponse()
            page = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            page = repr(error)
        match = re.fullmatch(rf"hello, {name}!\nhello, ([\d.]+)!\n", page)
        verdict = match[1] if match else f"wrong {page!r}"
        os.write(sys.stdout.fileno(), f"{verdict} {name}\n".encode())


def main(count: int, url: str, seconds: float) -> None:
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    clients = [
        threading.Thread(target=run_client, args=(number, url, seconds, stopping))
        for number in range(count)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()


main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
