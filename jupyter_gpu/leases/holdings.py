"""What leases hold of the devices, and what that leaves of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .placement import DeviceState
from .request import Hold
from .survey import Taken

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..devices.device import Device, DeviceUsage
    from .lease import Lease
    from .placement import LeaseHold
    from .survey import Survey


def device_states(held: Sequence[Lease], survey: Survey, in_use: Mapping[str, Taken]) -> list[DeviceState]:
    """The devices of a survey with what `held` leases hold of them, and with what is in use, by UUID."""
    holdings = Holdings.of(held)
    return [
        holdings.get(device.uuid, NOTHING_HELD).state(
            device, survey.usage.get(device.uuid), in_use.get(device.uuid, NOTHING_TAKEN)
        )
        for device in survey.inventory.devices
    ]


@dataclass(frozen=True, slots=True)
class Holdings:
    """What leases hold of one device."""

    reserved_bytes: int = 0
    whole: bool = False
    by_lease: tuple[tuple[str, int], ...] = ()
    """Each lease's id and what it has reserved, in bytes."""
    holders: tuple[str, ...] = ()
    """Their names, for people."""

    @classmethod
    def of(cls, held: Sequence[Lease]) -> dict[str, Holdings]:
        """What `held` leases hold of each device, by UUID."""
        on_device: dict[str, list[tuple[Lease, LeaseHold]]] = {}
        for lease in held:
            for hold in lease.holds:
                on_device.setdefault(hold.uuid, []).append((lease, hold))
        return {
            uuid: cls(
                reserved_bytes=sum(hold.bytes or 0 for _, hold in holds),
                whole=any(hold.hold is Hold.WHOLE for _, hold in holds),
                by_lease=tuple((lease.id, hold.bytes or 0) for lease, hold in holds),
                holders=tuple(lease.owner.label for lease, _ in holds),
            )
            for uuid, holds in on_device.items()
        }

    def state(self, device: Device, usage: DeviceUsage | None, use: Taken) -> DeviceState:
        """The device with this and with what is in use."""
        unreserved_use = 0
        for lease_id, reserved in self.by_lease:
            size = use.by_lease.get(lease_id, 0)
            if size > reserved:
                unreserved_use += size - reserved
        return DeviceState(
            device,
            reserved_bytes=self.reserved_bytes,
            foreign_bytes=use.foreign_bytes,
            unreserved_use_bytes=unreserved_use,
            lease_count=len(self.by_lease),
            whole=self.whole,
            utilization_percent=usage.utilization_percent if usage is not None else None,
            holders=self.holders,
            lost=usage is not None and usage.lost,
        )


NOTHING_HELD = Holdings()
NOTHING_TAKEN = Taken()
