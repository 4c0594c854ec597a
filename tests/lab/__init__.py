"""A network lab: hosts on one switch, in namespaces that die with the test.

    with Lab(hosts=3) as lab:
        relay = lab.hosts[0].start(["relay", "-net", "cluster", "-rsa", "id_rsa"])
        relay.wait_for_line("peer admitted", limit=10)
        lab.cut(lab.hosts[0])

Host n resembles the n-th VirtualBox machine with a host-only network: 192.168.56.(100+n) on eth1.
On eth0 it has the NAT address 10.0.2.15, as every such machine has, with a default route that leads
nowhere. The namespaces have no connection to the machine or its network.
"""

from __future__ import annotations

from lab.capture import Capture
from lab.errors import LabError, LabUnavailable
from lab.host import Host
from lab.lab import Lab
from lab.process import Process

__all__ = ["Capture", "Host", "Lab", "LabError", "LabUnavailable", "Process"]
