"""Start and shutdown of the proxy, start errors, and clusters and relays that do not answer."""

from __future__ import annotations

import signal
import socket
import threading

import pytest

import arke
from support.backends import GET, OK, Backend, Script, respond_ok
from support.connection import Connection
from support.ports import free_port
from support.processes import start_process
from support.programs import program
from support.proxy_harness import harness_for
from support.proxy_process import start_cluster_proxy
from support.relays import Relays
from support.waiting import LIMIT, wait_until


def respond_when_allowed(request_received: threading.Event, may_respond: threading.Event) -> Script:
    def script(connection: Connection) -> None:
        while connection.read_head():
            request_received.set()
            assert may_respond.wait(LIMIT)
            connection.send(OK)

    return script


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), LIMIT).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_running_requests_are_answered_before_exit(
    relays: Relays, stop_signal: signal.Signals
) -> None:
    request_received, may_respond = threading.Event(), threading.Event()
    with harness_for(relays.start(), "web") as harness:
        harness.start_backends(respond_when_allowed(request_received, may_respond))
        connection, idle = harness.connect(), harness.connect()
        idle.send(GET.replace(b"GET", b"HEAD"))
        may_respond.set()
        idle.read_head()
        may_respond.clear()
        request_received.clear()
        connection.send(GET)
        assert request_received.wait(LIMIT)
        harness.process.signal(stop_signal)
        wait_until(lambda: refuses_connections(harness.port))
        may_respond.set()
        response, body = connection.read_response()
        assert (response.getheader("connection"), body) == ("close", b"ok")
        assert connection.read_to_end() == b""
        assert idle.read_to_end() == b""
        assert harness.process.wait(LIMIT) == 0


def test_connection_closes_after_response_during_shutdown(relays: Relays) -> None:
    """Its response's head, sent before the shutdown, has announced keep-alive."""
    may_respond = threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        assert may_respond.wait(LIMIT)
        connection.send(b"half")
        connection.read_to_end()

    with harness_for(relays.start(), "web") as harness:
        harness.start_backends(script)
        connection, idle = harness.connect(), harness.connect()
        connection.send(GET)
        connection.read_until(b"half")
        harness.process.terminate()
        assert idle.read_to_end() == b""  # idle connections have been closed
        may_respond.set()
        assert connection.read_to_end() == b"half"
        assert harness.process.wait(LIMIT) == 0
        assert "still open" not in harness.process.log


def test_request_in_flight_at_shutdown_is_answered(relays: Relays) -> None:
    with harness_for(relays.start(), "web") as harness:
        harness.start_backends(respond_ok)
        connection = harness.connect()
        connection.send(GET)
        connection.read_response()
        harness.process.terminate()
        harness.process.wait_for_line("worker stopping", LIMIT)
        connection.send(GET)
        response, body = connection.read_response()
        assert (response.getheader("connection"), body) == ("close", b"ok")
        assert harness.process.wait(LIMIT) == 0


def test_connections_are_reset_after_grace_period(relays: Relays) -> None:
    request_received, may_respond = threading.Event(), threading.Event()
    with harness_for(relays.start(), "web", "-grace", "2s") as harness:
        harness.start_backends(respond_when_allowed(request_received, may_respond))
        connection = harness.connect()
        connection.send(GET)
        assert request_received.wait(LIMIT)
        harness.process.terminate()
        assert harness.process.wait(LIMIT) == 0
        with pytest.raises(ConnectionResetError):
            connection.read_to_end()
        may_respond.set()
        assert "that are still open connections=1 seconds=2" in harness.process.log


def test_cluster_without_members_is_503(relays: Relays) -> None:
    process, port = start_cluster_proxy(relays.start(), "empty")
    connection = Connection(socket.create_connection(("127.0.0.1", port), LIMIT))
    connection.send(GET)
    response, body = connection.read_response()
    assert (response.status, response.getheader("retry-after")) == (503, "1")
    assert body == b"Cluster empty has no members.\n"
    connection.close()
    process.terminate()
    assert process.wait(LIMIT) == 0
    assert process.log.count("Cluster empty has no members.") == 1
    process.close()


def test_overloaded_cluster_is_503(relays: Relays) -> None:
    # The member runs one request and queues one. It refuses further ones as overloaded.
    limits = arke.Limits(requests=1, request_bytes=1)
    with harness_for(relays.start(), "web", limits=limits) as harness:
        harness.cluster.answers = [""]
        for connection in (harness.connect(), harness.connect()):
            connection.send(GET)
        message = b"Cluster web did not name a backend: it is overloaded.\n"
        wait_until(lambda: harness.get()[1] == message)


def test_silent_cluster_is_503(relays: Relays) -> None:
    with harness_for(relays.start(), "web") as harness:
        harness.cluster.answers = [""]
        response, body = harness.get()
        assert response.status == 503
        assert body == b"Cluster web did not name a backend: no answer within 1 s.\n"


def test_relay_disconnects_and_reconnects(relays: Relays) -> None:
    relay = relays.start()
    with harness_for(relay, "web") as harness:
        harness.start_backends(respond_ok)
        assert harness.get()[1] == b"ok"
        relay.process.terminate()
        relay.process.wait(LIMIT)
        response, body = harness.get()
        assert response.status == 503
        assert body == b"The proxy is not connected to its relay.\n"
        relays.start(port=relay.port)
        wait_until(lambda: harness.get()[1] == b"ok")


def test_listen_port_in_use_is_a_one_line_error(relays: Relays) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        process = start_process(
            "proxy", [*program("proxy"), "-cluster", "a", "-listen", f"127.0.0.1:{port}"]
        )
        assert process.wait(LIMIT) == 2
    assert process.log == (
        f"proxy: -listen 127.0.0.1:{port}: the port is in use; "
        "stop the program that uses it, or change -listen\n"
    )
    process.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_same_port_in_two_flags_is_a_one_line_error(workers: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    flags = ["-choose", "static", "-backend", "127.0.0.1:9", "-workers", workers]
    process = start_process(
        "proxy", [*program("proxy"), *flags, "-listen", address, "-admin", address]
    )
    assert process.wait(LIMIT) == 2
    assert process.log.startswith(f"proxy: -admin {address}: the port is in use; ")
    process.close()


def test_missing_relay_stops_start_with_fix() -> None:
    port = free_port()
    flags = ["-cluster", "a", "-listen", "127.0.0.1:0", "-port", str(port)]
    process = start_process("proxy", [*program("proxy"), *flags])
    assert process.wait(LIMIT) == 1
    last = process.log.splitlines()[-1]  # the SDK logs its attempts before
    assert last.startswith("proxy: ")
    assert f":{port}" in last
    assert "relay -net NAME -rsa KEYFILE" in last
    process.close()


def test_port_of_another_program_stops_start_with_error() -> None:
    ssh_server = Backend(lambda connection: connection.send(b"SSH-2.0-OpenSSH_9.2p1\r\n"))
    port = ssh_server.address.rpartition(":")[2]
    flags = ["-cluster", "a", "-listen", "127.0.0.1:0", "-port", port]
    process = start_process("proxy", [*program("proxy"), *flags])
    assert process.wait(LIMIT) == 1
    ssh_server.stop()
    assert process.log.splitlines()[-1].startswith(f"proxy: -port {port}: ")
    assert "Traceback" not in process.log
    process.close()


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_proxy_waiting_for_relay_can_be_stopped(stop_signal: signal.Signals) -> None:
    flags = ["-cluster", "a", "-listen", "127.0.0.1:0", "-port", str(free_port())]
    process = start_process("proxy", [*program("proxy"), *flags])
    process.wait_for_line("no relay at", LIMIT)
    process.signal(stop_signal)
    assert process.wait(LIMIT) == 0
    process.close()


@pytest.mark.parametrize(
    ("flags", "named_flag"),
    [
        ([], "-cluster"),
        (["-cluster", "x" * 300], "-cluster"),
        (["-cluster", "a", "-listen", "8080"], "-listen"),
        (["-cluster", "a", "-backend-port", "0"], "-backend-port"),
        (["-cluster", "a", "-timeout", "never"], "-timeout"),
        (["-cluster", "a", "-grace", "never"], "-grace"),
        (["-cluster", "a", "-listen", "192.0.2.1:0"], "-listen"),
        (["-cluster", "a", "-workers", "0"], "-workers"),
        (["-cluster", "a", "-linger", "never"], "-linger"),
        (["-cluster", "a", "-listen", "127.0.0.1:0", "-admin", "192.0.2.1:0"], "-admin"),
        (["-cluster", "a", "-access-format", "xml"], "-access-format"),
    ],
)
def test_invalid_flag_is_a_one_line_error(flags: list[str], named_flag: str) -> None:
    process = start_process("proxy", [*program("proxy"), *flags])
    assert process.wait(LIMIT) == 2
    assert process.log.startswith("proxy: ")
    assert named_flag in process.log
    assert process.log.count("\n") == 1
    process.close()
