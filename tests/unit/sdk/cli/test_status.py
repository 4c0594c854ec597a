from __future__ import annotations

from arke.cli.status import tables

KNOWN = {
    "node": {
        "id": "6c1f0a",
        "address": "192.168.56.101",
        "network": "cluster",
        "version": "0.1.0",
        "uptime_s": 93784.2,
    },
    "peers": [
        {
            "id": "77aa01",
            "address": "192.168.56.102",
            "state": "linked",
            "heard_ms": 312,
            "members": 2,
        }
    ],
    "clusters": {
        "web": {"here": 0, "elsewhere": 2, "requests": 12345, "rate": 1234.56},
        "echo": {"here": 1, "elsewhere": 0, "requests": 0, "rate": 0.0},
    },
    "topics": {},
    "programs": 3,
}


def test_status_prints_four_tables() -> None:
    assert tables(KNOWN) == (
        "node      6c1f0a\n"
        "address   192.168.56.101\n"
        "network   cluster\n"
        "version   0.1.0\n"
        "up        1 d 2 h\n"
        "programs  3\n"
        "\n"
        "PEER    ADDRESS         STATE   HEARD      MEMBERS\n"
        "77aa01  192.168.56.102  linked  0.3 s ago  2\n"
        "\n"
        "CLUSTER  HERE  ELSEWHERE  REQUESTS/S  REQUESTS\n"
        "echo     1     0          0.0         0\n"
        "web      0     2          1,234.6     12,345\n"
        "\n"
        "TOPIC  HERE  ELSEWHERE\n"
        "none"
    )


def test_control_characters_in_names_are_replaced() -> None:
    hostile = {"\x1b[2Jx\n": {"here": 1, "elsewhere": 0}}
    page = tables({**KNOWN, "topics": hostile})
    assert "\x1b" not in page
    assert page.endswith("?[2Jx?  1     0")
