"""What `%gpu` and its subcommands do. Each answers with a `Report`; errors are `CommandError`s of one sentence."""

from __future__ import annotations

from ..devices.amount import readable_amount
from . import cuda
from .arguments import CommandError
from .channel import ChannelError
from .frameworks.framework import Outcome
from .lease import DeviceName
from .report import Lines, Report, Table
from .views import framework_blocks, list_blocks, state_blocks
from .wishes import Wish

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from .arguments import Language
    from .frameworks.framework import Framework
    from .lease import KernelDevice
    from .session import Session

_SELF = "kernels/self"


class Commands:
    """Everything that `%gpu` can do but for measuring.

    Args:
        session: this kernel.
        language: to read the frameworks' options with.
    """

    def __init__(self, session: Session, language: Language) -> None:
        self.session = session
        self.language = language

    # Seeing.

    def show(self, *, as_json: bool = False) -> Report:
        """This kernel: devices, cap, use, peak, layers, frameworks."""
        model, reason = self._ask(_SELF)
        if model is not None:
            self._ask_names()
        devices = [self._device_content(device, model) for device in self.session.lease.devices()]
        frameworks = [self._framework_content(each) for each in self.session.frameworks() if each.imported]
        notices = [*((model or {}).get("notices") or []), *self.session.notices]
        content = {
            "lease_id": self.session.lease.lease_id or None,
            "kernel_id": (model or {}).get("kernel_id") or self.session.kernel_id or None,
            "request": (model or {}).get("request"),
            "pending_request": (model or {}).get("pending_request"),
            "state": (model or {}).get("state"),
            "cuda": cuda.driver_state(),
            "layers": self._layers(model, devices),
            "devices": devices,
            "frameworks": frameworks,
            "notices": notices,
            "server": {"reachable": model is not None, "reason": reason},
        }
        return Report(content, state_blocks(content), as_json=as_json)

    def list_devices(self, *, as_json: bool = False) -> Report:
        """All devices and who is on them."""
        model, reason = self._ask("devices")
        if model is None:
            seen = self.session.lease.all_devices()
            devices = [
                {"uuid": uuid, "index": name.index, "name": name.name, "memory_bytes": name.memory_bytes}
                for uuid, name in seen
            ]
            content = {"devices": devices, "server": {"reachable": False, "reason": reason}}
            rows = [[name.index or "", name.name or uuid, readable_amount(name.memory_bytes)] for uuid, name in seen]
            blocks: list[Any] = [Table(("GPU", "name", "memory"), rows)] if rows else [Lines(("No GPU is seen here.",))]
            blocks.append(Lines((f"Who is on them only the server knows: {reason}.",), "note"))
            return Report(content, blocks, as_json=as_json)
        content = {**model, "server": {"reachable": True, "reason": None}}
        return Report(content, list_blocks(model, set(self.session.lease.uuids())), as_json=as_json)

    # Changing.

    def use(self, request: str, *, restart: bool, as_json: bool = False) -> Report:
        """Give this kernel what the request asks for, in place where CUDA is not up."""
        reasons = self.session.cuda_reasons()
        body = {"request": request, "restart": restart, "in_place": not reasons}
        if restart:
            self.session.keeper.keep(self.session.wishes)
        try:
            answer = self.session.channel.patch(_SELF, body)
        except ChannelError as error:
            self.session.keeper.take()
            raise CommandError(f"The GPU of this kernel stays as it is: {_unpointed(str(error))}.") from None
        applied, message = answer.get("applied"), str(answer.get("message") or "")
        done, remaining = [message] if message else [], []
        if applied == "now":
            variables = answer.get("environment")
            if isinstance(variables, dict):
                done.extend(self.session.adopt(variables))
            else:
                done.extend(self._limit_again())
        elif applied == "on-restart":
            why = " ".join(reasons) or "The server changes devices only with a restart."
            remaining.append(f"{why} Say %gpu use {request} --restart, or restart the kernel, to have it.")
        return self._outcome_report(Outcome(tuple(done), tuple(remaining)), {"applied": applied}, as_json=as_json)

    def memory(self, amount: str, *, restart: bool, as_json: bool = False) -> Report:
        """Other memory on the devices that this kernel holds."""
        devices = self.session.lease.devices()
        if not devices:
            raise CommandError(f"This kernel has no GPU to have memory on; ask for both with %gpu use auto:{amount}.")
        self._ask_names()
        names = [device.index or device.uuid for device in self.session.lease.devices()]
        return self.use(",".join(names) + ":" + amount, restart=restart, as_json=as_json)

    def framework(self, framework: Framework, arguments: argparse.Namespace, *, as_json: bool = False) -> Report:
        """Show a framework, or hold it to what the options ask for."""
        # Devices are named by the index that people know.
        if getattr(arguments, "memory", None):
            self._ask_names()
        wish = self.language.wish(framework, arguments, self.session.lease.devices())
        try:
            outcome = framework.run(arguments)
        except ValueError as error:
            raise CommandError(str(error)) from None
        if wish != Wish():
            sentence = framework.unsupported()
            if sentence:
                raise CommandError(sentence)
            limit = self.session.wish(framework.name, wish)
            limited = framework.limit(limit)
            outcome = (
                limited
                if outcome is None
                else Outcome(outcome.done + limited.done, outcome.remaining + limited.remaining)
            )
        if arguments.restart:
            return self._restart(as_json=as_json)
        if outcome is None:
            return self._show_framework(framework, as_json=as_json)
        return self._outcome_report(outcome, {"framework": self._framework_content(framework)}, as_json=as_json)

    def free(self, names: list[str], *, as_json: bool = False) -> Report:
        """Give back what frameworks cache, and say how much that was."""
        frameworks = []
        for name in names:
            framework = self.session.known_as(name)
            if framework is None:
                known = ", ".join(each.name for each in self.session.frameworks())
                raise CommandError(f"{name!r} is no framework that %gpu knows; there are {known}.")
            frameworks.append(framework)
        before = {device.uuid: device.own for device in self.session.lease.devices()}
        done: list[str] = []
        remaining: list[str] = []
        for framework in frameworks or self.session.frameworks():
            if framework.imported:
                outcome = framework.free()
                done.extend(outcome.done)
                remaining.extend(outcome.remaining)
            elif names:
                done.append(f"{framework.title} is not imported in this kernel, so it holds nothing.")
        freed = {}
        for device in self.session.lease.devices():
            earlier = before.get(device.uuid)
            if earlier is not None and device.own is not None:
                freed[device.uuid] = earlier - device.own
                left = f"; this process still holds {readable_amount(device.own)} there" if device.own else ""
                if earlier or device.own:
                    done.append(f"{readable_amount(max(0, earlier - device.own))} came back on {device.label}{left}.")
        if not done and not remaining:
            done.append("No framework in this kernel caches anything.")
        return self._outcome_report(Outcome(tuple(done), tuple(remaining)), {"freed_bytes": freed}, as_json=as_json)

    # Parts.

    def _restart(self, *, as_json: bool) -> Report:
        kept = self.session.keeper.keep(self.session.wishes)
        lost = "" if kept else " What was asked for cannot be kept over a restart here: say it again after it."
        try:
            answer = self.session.channel.post(_SELF + "/restart")
        except ChannelError as error:
            raise CommandError(
                f"The kernel cannot be restarted from here ({_unpointed(str(error))}); restart it yourself, and what "
                f"was asked for holds from its start.{lost}"
            ) from None
        done = (str(answer.get("message") or "The kernel restarts."),)
        return self._outcome_report(
            Outcome(done, (lost.strip(),) if lost else ()), {"applied": "restarted"}, as_json=as_json
        )

    def _limit_again(self) -> list[str]:
        """Hold frameworks with a live limit to a cap that has just changed."""
        said: list[str] = []
        for framework in self.session.frameworks():
            if framework.imported and framework.cuda_up() and framework.name not in self.session.wishes:
                limit = self.session.limit_for(framework.name)
                if limit.limits_something:
                    outcome = framework.limit(limit)
                    said.extend(outcome.done + outcome.remaining)
        return said

    def _ask(self, path: str) -> tuple[dict[str, Any] | None, str | None]:
        try:
            answer = self.session.channel.get(path)
        except ChannelError as error:
            return None, _unpointed(str(error))
        return (answer, None) if isinstance(answer, dict) else (None, "the server's answer is not what it should be")

    def _ask_names(self) -> None:
        """Learn from the server what people call the devices."""
        model, _ = self._ask("devices")
        for device in (model or {}).get("devices") or []:
            name = DeviceName(device.get("index"), device.get("name"), device.get("memory_bytes"))
            self.session.lease.learn(str(device.get("uuid")), name)

    def _device_content(self, device: KernelDevice, model: dict[str, Any] | None) -> dict[str, Any]:
        known: list[dict[str, Any]] = (model or {}).get("devices") or []
        told: dict[str, Any] = next((each for each in known if each.get("uuid") == device.uuid), {})
        reasons = dict(told.get("reasons") or {})
        used = device.used if device.used is not None else told.get("used_bytes")
        # An account that nobody counts into stays at 0; the driver's figure, which the server has, is the better one.
        if not device.used and told.get("used_bytes"):
            used = told["used_bytes"]
        peak = max(device.peak or 0, told.get("peak_bytes") or 0) or None
        if used is None:
            reasons["used_bytes"] = device.reason
        if peak is None:
            reasons.setdefault("peak_bytes", "nothing has been counted")
        return {
            "uuid": device.uuid,
            "index": device.index or told.get("index"),
            "name": device.name,
            "ordinal": device.ordinal,
            "kind": told.get("kind"),
            "memory_bytes": device.total,
            "cap_bytes": device.cap if device.cap is not None else told.get("cap_bytes"),
            "used_bytes": used,
            "own_bytes": device.own,
            "peak_bytes": peak,
            "overhead_bytes": device.overhead,
            "utilization_percent": told.get("utilization_percent"),
            "refusals": device.refusals,
            "reasons": reasons,
        }

    def _framework_content(self, framework: Framework) -> dict[str, Any]:
        try:
            cuda_up = framework.cuda_up()
            holds = framework.holds()
            settings = framework.settings()
        except Exception as error:  # noqa: BLE001 - a framework that changed must not hide the others
            self.session.note(f"{framework.title} could not be asked: {type(error).__name__}: {error}.")
            cuda_up, holds, settings = None, [], []
        return {
            "name": framework.name,
            "title": framework.title,
            "version": framework.version,
            "imported": framework.imported,
            "cuda": cuda_up,
            "holds": [
                {
                    "ordinal": each.ordinal,
                    "device": self.session.label(each.ordinal),
                    "used_bytes": each.used,
                    "cached_bytes": each.cached,
                    "peak_bytes": each.peak,
                    "reason": each.reason or None,
                }
                for each in holds
            ],
            "settings": [{"name": each.name, "value": each.value, "origin": each.origin} for each in settings],
            "notes": framework.notes(),
        }

    def _layers(self, model: dict[str, Any] | None, devices: list[dict[str, Any]]) -> list[str]:
        layers = list((model or {}).get("layers") or [])
        if self.session.lease.is_simulated:
            layers.append("simulation")
        if self.session.lease.is_interposed and "interposer" not in layers:
            layers.insert(0, "interposer")
        limited = any(
            self.session.limit_for(each.name).limits_something
            for each in self.session.frameworks()
            if each.imported and each.limits_memory and each.keeps_to_limit
        )
        if limited and "framework" not in layers:
            layers.append("framework")
        if devices and all(device["uuid"].startswith("MIG-") for device in devices) and "mig" not in layers:
            layers.append("mig")
        return layers

    def _show_framework(self, framework: Framework, *, as_json: bool) -> Report:
        content = self._framework_content(framework)
        blocks: list[Any] = []
        if not framework.imported:
            blocks.append(Lines((framework.not_imported(f"What %gpu {framework.name} sets holds"),)))
            limit = self.session.limit_for(framework.name)
            if limit.amounts:
                said = ", ".join(
                    f"{readable_amount(amount)} on {self.session.label(ordinal)}"
                    for ordinal, amount in sorted(limit.amounts.items())
                    if ordinal < max(1, len(self.session.lease.devices()))
                )
                blocks.append(Lines((f"It will get {said}.",)))
        else:
            blocks.extend(framework_blocks(content))
        return Report(content, blocks, as_json=as_json)

    def _outcome_report(self, outcome: Outcome, content: dict[str, Any], *, as_json: bool) -> Report:
        data = {**content, "done": list(outcome.done), "remaining": list(outcome.remaining)}
        blocks = [Lines(outcome.done, "ok"), Lines(outcome.remaining, "note")]
        return Report(data, [block for block in blocks if block.sentences], as_json=as_json)


def _unpointed(sentence: str) -> str:
    """A sentence to go on from: without its full stop, and beginning as a clause does."""
    text = sentence.rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
