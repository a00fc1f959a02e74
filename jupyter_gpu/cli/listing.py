"""`jupyter gpu list` and `jupyter gpu status`: the devices, who holds them, and who waits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..devices.amount import readable_amount
from ..server.models import devices_model, problems_model, queue_model, take_snapshot
from .base import GPUCommand, table

if TYPE_CHECKING:
    from ..server.models import JSON


class ListApp(GPUCommand):
    """The devices."""

    name = "jupyter gpu list"
    description = """List the devices of this host and who holds them.

    Memory is what is used of what there is, by whomever; free is the largest reservation that could be had now.
    """
    examples = """
    jupyter gpu list
    jupyter gpu list --json
    """

    def run(self) -> None:
        """Print the devices."""
        model = devices_model(take_snapshot(self.host, self.host.look_now()), simulated=self.host.simulated)
        if self.json:
            self.print_json(model)
            return
        for problem in model["problems"]:
            print(f"{problem['message']} {problem['advice']}")
        if not model["devices"]:
            print("There is no GPU here.")
            return
        if model["simulated"]:
            print("Simulated GPUs: there is no hardware behind them.")
        header = ("GPU", "NAME", "MEMORY", "FREE", "UTIL", "TEMP", "POWER", "HELD BY")
        print(table(header, [_device_row(device) for device in model["devices"]], right=(2, 3, 4, 5, 6)))


class StatusApp(GPUCommand):
    """The leases and the queue."""

    name = "jupyter gpu status"
    description = """Show the leases and the queue of this user on this host.

    Kernels of all Jupyter servers and commands under `jupyter gpu run` are listed alike.
    """
    examples = """
    jupyter gpu status
    jupyter gpu status --json
    """

    def run(self) -> None:
        """Print the status."""
        host = self.host
        survey = host.look_now()
        snapshot = take_snapshot(host, survey)
        by_uuid = survey.inventory.by_uuid()
        leases: list[JSON] = [
            {
                "lease_id": lease.id,
                "owner_kind": lease.owner.kind,
                "label": lease.owner.label,
                "request": lease.request,
                "pid": lease.process.pid if lease.process else None,
                "since": lease.granted,
                "devices": [
                    {
                        "uuid": hold.uuid,
                        "index": by_uuid[hold.uuid].index if hold.uuid in by_uuid else None,
                        "kind": hold.hold.value,
                        "cap_bytes": snapshot.caps.get((lease.id, hold.uuid)),
                    }
                    for hold in lease.holds
                ],
            }
            for lease in snapshot.held
        ]
        model: dict[str, Any] = {
            "time": snapshot.time,
            "simulated": host.simulated,
            "device_count": len(survey.inventory.leasable),
            "problems": problems_model(survey.inventory),
            "default_request": host.default_request,
            "ledger": str(host.ledger.store.path),
            "leases": leases,
            "queue": queue_model(snapshot)["entries"],
        }
        if self.json:
            self.print_json(model)
            return
        kind = f"{'simulated ' if host.simulated else ''}GPU{'' if model['device_count'] == 1 else 's'}"
        print(f"{model['device_count']} {kind}; the default request is {host.default_request}.")
        for problem in model["problems"]:
            print(f"{problem['message']} {problem['advice']}")
        if leases:
            rows = [(_since(lease["since"]), lease["label"], lease["request"], _holds(lease)) for lease in leases]
            print(table(("SINCE", "HELD BY", "REQUEST", "DEVICES AND CAPS"), rows))
        else:
            print("Nobody holds a lease.")
        for entry in model["queue"]:
            print(table(("", "", ""), [(f"{entry['position']}.", entry["label"], entry["message"])]).strip())


def _device_row(device: JSON) -> tuple[str, ...]:
    used, total = device["memory_used_bytes"], device["memory_bytes"]
    holders = [f"{lease['owner']['label']} ({_kind(lease)})" for lease in device["leases"]]
    holders += [f"pid {process['pid']}" for process in device["foreign"]]
    return (
        device["index"],
        device["name"],
        f"{readable_amount(used)} / {readable_amount(total)}",
        readable_amount(device["available_bytes"]) if device["leasable"] else "MIG",
        _number(device["utilization_percent"], "%"),
        _number(device["temperature_celsius"], "°C"),
        _number(device["power_watts"], "W"),
        "LOST" if device["lost"] else ", ".join(holders) or "-",
    )


def _kind(lease: JSON) -> str:
    return readable_amount(lease["memory_bytes"]) if lease["kind"] == "reserved" else str(lease["kind"])


def _holds(lease: JSON) -> str:
    return (
        ", ".join(
            f"GPU {device['index'] or device['uuid']} {device['kind']} up to {readable_amount(device['cap_bytes'])}"
            for device in lease["devices"]
        )
        or "CPU"
    )


def _number(value: float | None, unit: str) -> str:
    return "?" if value is None else f"{value:.0f} {unit}"


def _since(granted: float | None) -> str:
    return "?" if granted is None else time.strftime("%H:%M:%S", time.localtime(granted))
