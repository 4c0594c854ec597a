from __future__ import annotations

import os
import random
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab import Host, Lab, LabError

LIMIT = 20.0  # seconds; an upper limit: every wait ends as soon as its event happens

NAME_SERVER = """
import socket, sys
server = socket.create_server(("0.0.0.0", 7000))
print("listening", flush=True)
while True:
    client, _ = server.accept()
    with client:
        client.sendall(sys.argv[1].encode())
"""

# Retries until the deadline: a reconnected host is reachable only after ARP resolves it again.
NAME_CLIENT = """
import socket, sys, time
deadline = time.monotonic() + float(sys.argv[2])
while True:
    try:
        left = max(0.1, deadline - time.monotonic())
        with socket.create_connection((sys.argv[1], 7000), timeout=left) as server:
            print(server.recv(100).decode())
        break
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.05)
"""

MULTICAST_RECEIVER = """
import socket, sys
group = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
group.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
group.bind(("224.0.0.251", 5353))
membership = socket.inet_aton("224.0.0.251") + socket.inet_aton(sys.argv[1])
group.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
print("listening", flush=True)
while True:
    body, (source, _) = group.recvfrom(100)
    print("received", body.decode(), "from", source, flush=True)
"""

MULTICAST_SENDER = """
import socket, sys
group = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for word, interface in zip(sys.argv[1::2], sys.argv[2::2]):
    group.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
    group.sendto(word.encode(), ("224.0.0.251", 5353))
"""

# A shell and its child shell that both sleep and ignore SIGTERM.
IGNORE_SIGTERM = "trap '' TERM; sh -c \"trap '' TERM; echo ready; sleep 1000\"; sleep 1000"

LAB_TO_BE_KILLED = f"""
import os, sys, time
from lab import Lab
with Lab(hosts=2) as lab:
    processes = [host.start(["sh", "-c", {IGNORE_SIGTERM!r}]) for host in lab.hosts]
    for process in processes:
        process.wait_for_line("ready", 20)
    print(*(process.machine_pid for process in processes), flush=True)
    time.sleep(1000)
"""


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def start_name_servers(lab: Lab) -> None:
    for host in lab.hosts:
        host.start(python(NAME_SERVER, host.address)).wait_for_line("listening", LIMIT)


def name_served_at(address: str, *, client: Host, limit: float = LIMIT) -> str:
    return client.run(python(NAME_CLIENT, address, limit)).stdout.strip()


def namespace_of(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def processes_in(namespaces: set[str]) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if namespace_of(int(process.name)) in namespaces:
                yield int(process.name)
        except OSError:  # it has ended, or belongs to another user
            continue


def wait_for_end(handle: int) -> None:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    assert poll.poll(LIMIT * 1000)
    os.close(handle)


def test_hosts_reach_each_other_through_the_switch(lab: Lab) -> None:
    start_name_servers(lab)
    assert [host.address for host in lab.hosts] == [f"192.168.56.{n}" for n in (101, 102, 103)]
    for host in lab.hosts:
        for other in lab.hosts:
            assert name_served_at(other.address, client=host) == other.address


def test_nat_address_exists_on_every_host_and_routes_nowhere_else(lab: Lab) -> None:
    start_name_servers(lab)
    for host in lab.hosts:
        assert name_served_at("10.0.2.15", client=host) == host.address
        assert "default via 10.0.2.2 dev eth0" in host.run(["ip", "route"]).stdout
        with pytest.raises(LabError, match=r"timed out|No route to host"):
            name_served_at("10.0.2.2", client=host, limit=0.5)


def test_multicast_reaches_the_other_hosts_through_the_switch(lab: Lab) -> None:
    sender, *others = lab.hosts
    receivers = [host.start(python(MULTICAST_RECEIVER, host.address)) for host in others]
    for receiver in receivers:
        receiver.wait_for_line("listening", LIMIT)
    sender.run(python(MULTICAST_SENDER, "hello", sender.address))
    for receiver in receivers:
        receiver.wait_for_line(f"received hello from {sender.address}", LIMIT)


def test_packets_on_the_nat_interface_reach_no_host(lab: Lab) -> None:
    sender, *others = lab.hosts
    with ExitStack() as stack:
        sent = stack.enter_context(sender.capture("eth0"))
        received = [stack.enter_context(host.capture("eth0")) for host in others]
        # Multicast without an explicit interface uses the default route, as on a real VM.
        sender.run(python(MULTICAST_SENDER, "by default", "0.0.0.0", "by nat", "10.0.2.15"))
    assert sent.contains_run(b"by default")
    assert sent.contains_run(b"by nat", 6)
    assert not any(b"by " in frame for capture in received for frame in capture.frames)


def test_disconnected_host_is_unreachable_until_reconnected(lab: Lab) -> None:
    start_name_servers(lab)
    first, second, third = lab.hosts
    lab.cut(third)
    for client, server in (first, third), (third, first):
        with pytest.raises(LabError, match=r"timed out|unreachable|No route to host"):
            name_served_at(server.address, client=client, limit=1.0)
    assert name_served_at(second.address, client=first) == second.address
    assert third.address in third.run(["ip", "address", "show", "dev", "eth1"]).stdout
    lab.heal(third)
    assert name_served_at(third.address, client=first) == third.address


def test_capture_contains_only_the_transmitted_frames(lab: Lab) -> None:
    name, other = (random.Random(seed).randbytes(20).hex() for seed in (1, 2))
    first, second = lab.hosts[:2]
    second.start(python(NAME_SERVER, name)).wait_for_line("listening", LIMIT)
    with first.capture() as capture:
        assert name_served_at(second.address, client=first) == name
    assert capture.lost == 0
    assert capture.contains_run(name.encode())
    assert not capture.contains_run(other.encode())


@pytest.mark.parametrize("lab", [1], indirect=True)
def test_run_passes_streams_and_exit_status(lab: Lab) -> None:
    (host,) = lab.hosts
    done = host.run(["sh", "-c", "cat; echo $WORD >&2"], input="in", env={"WORD": "aside"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "in", "aside\n")
    assert host.run(["sh", "-c", "exit 3"], check=False).returncode == 3
    with pytest.raises(LabError, match=r"exit status 3\nwhy"):
        host.run(["sh", "-c", "echo why; exit 3"])
    with pytest.raises(LabError, match=r"No such file"):
        host.run(["/no/such/program"])
    with pytest.raises(TimeoutError, match=r"sleep 1000 on 192.168.56.101 still runs"):
        host.run(["sleep", "1000"], limit=0.1)


@pytest.mark.parametrize("lab", [1], indirect=True)
def test_arke_environment_variables_are_not_inherited(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARKE_NET", "surprise")
    assert "ARKE_NET" not in lab.hosts[0].run(["env"]).stdout
    assert "ARKE_NET=given" in lab.hosts[0].run(["env"], env={"ARKE_NET": "given"}).stdout


@pytest.mark.parametrize("lab", [1], indirect=True)
def test_wait_for_line_times_out_and_detects_process_exit(lab: Lab) -> None:
    script = "trap 'printf three; exit 4' TERM; echo one; echo two >&2; while :; do sleep 0.1; done"
    program = lab.hosts[0].start(["sh", "-c", script])
    assert program.wait_for_line("^(t.)o$", LIMIT)[1] == "tw"
    with pytest.raises(TimeoutError, match=r"no 'one' in 0.1 s\none\ntwo"):
        program.wait_for_line("one", 0.1, after=program.written)
    program.terminate()
    program.wait_for_line("^three$", LIMIT)
    with pytest.raises(LabError, match=r"ended without 'four'"):
        program.wait_for_line("four", LIMIT)
    assert program.wait(LIMIT) == 4


@pytest.mark.parametrize("lab", [1], indirect=True)
def test_signals_reach_the_process(lab: Lab) -> None:
    clock = lab.hosts[0].start(["sh", "-c", "echo $$; while :; do echo tick; sleep 0.01; done"])
    assert clock.wait_for_line(r"^\d+$", LIMIT)[0] == str(clock.pid)
    status = Path(f"/proc/{clock.machine_pid}/status")
    clock.stop()
    while "(stopped)" not in status.read_text(encoding="utf-8"):
        os.sched_yield()
    stopped_at = clock.written
    with pytest.raises(TimeoutError):
        clock.wait_for_line("tick", 0.1, after=stopped_at)
    clock.cont()
    clock.wait_for_line("tick", LIMIT, after=stopped_at)
    assert clock.running
    clock.kill()
    assert clock.wait(LIMIT) == -signal.SIGKILL
    assert not clock.running
    with pytest.raises(ProcessLookupError):
        clock.terminate()


def test_no_process_remains_after_a_lab_exits(lab: Lab) -> None:
    # The fixture skips the test where no lab is possible; this second lab ends within the test.
    with Lab(hosts=2) as brief:
        processes = [host.start(["sh", "-c", IGNORE_SIGTERM]) for host in brief.hosts]
        for process in processes:
            process.wait_for_line("ready", LIMIT)
        namespaces = {namespace_of(process.machine_pid) for process in processes}
        assert len(namespaces) == 2
        assert len(list(processes_in(namespaces))) >= 4
    assert not list(processes_in(namespaces))


def test_no_process_remains_after_a_test_is_killed(lab: Lab) -> None:
    with subprocess.Popen(
        python(LAB_TO_BE_KILLED), stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as test:
        assert test.stdout is not None
        pids = [int(word) for word in test.stdout.readline().split()]
        namespaces = {namespace_of(pid) for pid in pids}
        inside = list(processes_in(namespaces))
        assert len(inside) >= 4
        handles = [os.pidfd_open(pid) for pid in inside]
        test.kill()
        for handle in handles:
            wait_for_end(handle)
    assert not list(processes_in(namespaces))


@pytest.mark.parametrize(
    ("environment", "status", "words"),
    [({}, 0, "SKIPPED.*install util-linux"), ({"CI": "true"}, 1, "CI needs.*install util-linux")],
)
def test_lab_tests_are_skipped_or_fail_in_ci_without_namespaces(
    environment: dict[str, str], status: int, words: str, tmp_path: Path
) -> None:
    outside = {key: value for key, value in os.environ.items() if key != "CI"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"{__file__}::test_run_passes_streams_and_exit_status"],
        env={**outside, "PATH": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    assert re.search(words, done.stdout)
