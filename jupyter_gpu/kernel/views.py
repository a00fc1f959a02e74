"""How the contents of `%gpu`'s answers are laid out for people: from data to blocks of a report."""

from __future__ import annotations

from ..devices.amount import readable_amount
from .frameworks.framework import BY_US
from .report import Heading, Lines, Meter, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def state_blocks(content: dict[str, Any]) -> list[Any]:
    """A kernel: its devices, what holds it, its frameworks, and what there is to know."""
    blocks: list[Any] = [_device_meter(device) for device in content["devices"]]
    if not content["devices"]:
        blocks.append(Lines(("This kernel has no GPU. Get one with %gpu use auto.",)))
    if content["pending_request"]:
        blocks.append(Lines((f"After the next restart it has {content['pending_request']}.",), "note"))
    if content["devices"]:
        layers = ", ".join(content["layers"])
        blocks.append(Lines((f"Held to its cap by: {layers}." if layers else "Nothing holds it to its cap.",)))
    for framework in content["frameworks"]:
        blocks.extend(framework_blocks(framework))
    if content["notices"]:
        blocks.append(Lines(content["notices"], "note"))
    if not content["server"]["reachable"]:
        blocks.append(Lines((f"This is what the kernel itself knows, because {content['server']['reason']}.",), "note"))
    return blocks


def _device_meter(device: dict[str, Any]) -> Meter:
    words = [f"{device['kind']}" if device["kind"] else "", "" if device["cap_bytes"] else "no cap"]
    if device["utilization_percent"] is not None:
        words.append(f"{device['utilization_percent']:.0f} % busy")
    if device["overhead_bytes"]:
        words.append(f"{readable_amount(device['overhead_bytes'])} more the driver's own")
    if device["refusals"]:
        words.append(f"{device['refusals']} allocation{'s' * (device['refusals'] > 1)} refused at the cap")
    title = f"GPU {device['index']}" if device["index"] else device["uuid"][:12]
    return Meter(
        f"{title} · {device['name']}" if device["name"] else title,
        device["used_bytes"],
        device["cap_bytes"] or device["memory_bytes"],
        device["peak_bytes"],
        ", ".join(word for word in words if word),
    )


def framework_blocks(framework: dict[str, Any]) -> list[Any]:
    """One framework that is imported."""
    state = {True: "CUDA is up", False: "CUDA is not up", None: "it does not tell whether CUDA is up"}
    title = " ".join(word for word in (framework["title"], framework["version"]) if word)
    blocks: list[Any] = [Heading(f"{title}: {state[framework['cuda']]}")]
    lines = []
    for held in framework["holds"]:
        words = []
        if held["used_bytes"] is not None:
            words.append(f"{readable_amount(held['used_bytes'])} in use")
        if held["cached_bytes"] is not None:
            words.append(f"{readable_amount(held['cached_bytes'])} cached")
        if held["peak_bytes"]:
            words.append(f"peak {readable_amount(held['peak_bytes'])}")
        if held["reason"]:
            words.append(held["reason"])
        lines.append(f"{held['device']}: {', '.join(words)}")
    for setting in framework["settings"]:
        by = "" if setting["origin"] == BY_US else ", set by you"
        lines.append(f"{setting['name']} = {setting['value']}{by}")
    lines.extend(framework["notes"])
    if lines:
        blocks.append(Lines(lines))
    return blocks


def list_blocks(model: dict[str, Any], own: set[str]) -> list[Any]:
    """All devices, those with a UUID in `own` marked as this kernel's."""
    rows = []
    for device in model.get("devices") or []:
        on_it = [
            f"{lease['owner'].get('label') or lease['owner'].get('kind')} ({_lease_words(lease)})"
            for lease in device.get("leases") or []
        ]
        on_it += [_process_words(process) for process in device.get("foreign") or []]
        here = " (this kernel)" if device.get("uuid") in own else ""
        rows.append(
            [
                f"{device.get('index')}{here}",
                str(device.get("name")),
                f"{readable_amount(device.get('memory_used_bytes'))} of {readable_amount(device.get('memory_bytes'))}",
                readable_amount(device.get("available_bytes")),
                "?" if device.get("utilization_percent") is None else f"{device['utilization_percent']:.0f} %",
                "; ".join(on_it),
            ]
        )
    problems = [f"{each.get('message')} {each.get('advice')}" for each in model.get("problems") or []]
    blocks: list[Any] = []
    if rows:
        blocks.append(Table(("GPU", "name", "memory in use", "can be reserved", "busy", "on it"), rows))
    else:
        blocks.append(Lines(("There is no GPU on this host.",)))
    if model.get("simulated"):
        blocks.append(Lines(("These GPUs are simulated.",), "note"))
    if problems:
        blocks.append(Lines(problems, "note"))
    return blocks


def _lease_words(lease: dict[str, Any]) -> str:
    words = [str(lease.get("kind"))]
    if lease.get("cap_bytes") is not None and lease.get("kind") != "shared":
        words.append(readable_amount(lease["cap_bytes"]))
    if lease.get("used_bytes") is not None:
        words.append(f"{readable_amount(lease['used_bytes'])} in use")
    return ", ".join(words)


def _process_words(process: dict[str, Any]) -> str:
    name = process.get("name") or "another user"
    return f"{name} [{process.get('pid')}] ({readable_amount(process.get('memory_bytes'))})"
