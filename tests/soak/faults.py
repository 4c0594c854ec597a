"""Start and end faults on the testbed."""

from __future__ import annotations

from lab import Lab
from soak.schedule import Fault, Kind
from soak.testbed import Testbed


class Faults:
    """Call `begin` and `end` once for each fault, in the order of the schedule."""

    def __init__(self, lab: Lab, testbed: Testbed) -> None:
        self._lab = lab
        self._testbed = testbed

    def begin(self, fault: Fault) -> None:
        testbed, host = self._testbed, fault.host
        match fault.kind:
            case Kind.RELAY_KILLED:
                testbed.kill(testbed.relays, host)
            case Kind.RELAY_PAUSED:
                testbed.process(testbed.relays, host).stop()
            case Kind.RELAY_RESTARTED:
                # Before it has started, the signal ends it with a non-zero exit status.
                testbed.wait_until_started(host)
                testbed.terminate(testbed.relays, host)
            case Kind.CABLE_CUT:
                self._lab.cut(testbed.hosts[host])
            case Kind.MEMBER_KILLED:
                testbed.kill(testbed.members, host)
            case Kind.MEMBER_PAUSED:
                testbed.process(testbed.members, host).stop()
            case Kind.CLOCK_JUMPED:
                testbed.clocks[host].jump(fault.jump)

    def end(self, fault: Fault) -> None:
        testbed, host = self._testbed, fault.host
        match fault.kind:
            case Kind.RELAY_KILLED:
                testbed.start_relay(host)
            case Kind.RELAY_PAUSED:
                testbed.process(testbed.relays, host).cont()
            case Kind.RELAY_RESTARTED:
                testbed.wait(testbed.relays, host)
                testbed.start_relay(host)
            case Kind.CABLE_CUT:
                self._lab.heal(testbed.hosts[host])
            case Kind.MEMBER_KILLED:
                testbed.start_member(host)
            case Kind.MEMBER_PAUSED:
                testbed.process(testbed.members, host).cont()
            case Kind.CLOCK_JUMPED:
                testbed.clocks[host].jump(0)
