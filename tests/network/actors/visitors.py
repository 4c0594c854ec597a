"""Visitors who refresh a page without end, each with a name of its own every time.

usage: visitors.py VISITORS URL SECONDS

Prints a line for each page: who answered, or `wrong` and why, and the visitor's name; a page that
takes longer than SECONDS is wrong. SIGTERM ends it after the pages under way.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import sys
import threading
from urllib.parse import urlsplit


def visit(visitor: int, url: str, seconds: float, leaving: threading.Event) -> None:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc, timeout=seconds)
    count = 0
    while not leaving.is_set():
        count += 1
        name = f"visitor{visitor}-{count}"
        try:
            connection.request("GET", f"{place.path}/{name}")
            answer = connection.getresponse()
            page = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            page = repr(error)
        who = re.fullmatch(rf"hello, {name}!\nhello, ([\d.]+)!\n", page)
        verdict = who[1] if who else f"wrong {page!r}"
        os.write(sys.stdout.fileno(), f"{verdict} {name}\n".encode())


def main(count: int, url: str, seconds: float) -> None:
    leaving = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    visitors = [
        threading.Thread(target=visit, args=(number, url, seconds, leaving))
        for number in range(count)
    ]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()


main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
