"""Does to the stage what the schedule says."""

from __future__ import annotations

from lab import Lab
from soak.schedule import Fault, Kind
from soak.stage import Stage


class Faults:
    """`begin` and `end` each fault once, in the order of its schedule."""

    def __init__(self, lab: Lab, stage: Stage) -> None:
        self._lab = lab
        self._stage = stage

    def begin(self, fault: Fault) -> None:
        stage, host = self._stage, fault.host
        match fault.kind:
            case Kind.RELAY_KILLED:
                stage.kill(stage.relays, host)
            case Kind.RELAY_PAUSED:
                stage.process(stage.relays, host).stop()
            case Kind.RELAY_RESTARTED:
                # Before that it dies of the signal, as anything does; it has nothing to drain.
                stage.wait_until_started(host)
                stage.terminate(stage.relays, host)
            case Kind.CABLE_CUT:
                self._lab.cut(stage.hosts[host])
            case Kind.MEMBER_KILLED:
                stage.kill(stage.members, host)
            case Kind.MEMBER_PAUSED:
                stage.process(stage.members, host).stop()
            case Kind.CLOCK_JUMPED:
                stage.clocks[host].jump(fault.jump)

    def end(self, fault: Fault) -> None:
        stage, host = self._stage, fault.host
        match fault.kind:
            case Kind.RELAY_KILLED:
                stage.start_relay(host)
            case Kind.RELAY_PAUSED:
                stage.process(stage.relays, host).cont()
            case Kind.RELAY_RESTARTED:
                stage.wait(stage.relays, host)
                stage.start_relay(host)
            case Kind.CABLE_CUT:
                self._lab.heal(stage.hosts[host])
            case Kind.MEMBER_KILLED:
                stage.start_member(host)
            case Kind.MEMBER_PAUSED:
                stage.process(stage.members, host).cont()
            case Kind.CLOCK_JUMPED:
                stage.clocks[host].jump(0)
