"""The kernel's side of everything: its lease, its frameworks, and what each of them has been asked to keep to."""

from __future__ import annotations

import importlib

from . import cuda
from .channel import Channel
from .environment import Environment
from .frameworks.framework import BY_US, BY_YOU, Limit
from .lease import LeaseView
from .wishes import Wish, WishKeeper, kernel_id, parse_shares

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .frameworks.framework import Framework
    from .lease import DeviceCap

_MIB = 1 << 20
_LEAST_HEADROOM, _MOST_HEADROOM = 256 * _MIB, 1024 * _MIB
SHARES_VARIABLE = "JUPYTER_GPU_SHARES"


def headroom(cap: int) -> int:
    """The bytes below its cap that a framework stays, so that it meets its own limit first.

    CUDA's context and modules take a few hundred MiB outside every framework's allocator (300 to 600 MiB on an A100
    or H100): 6 % of the cap, 256 MiB at least and 1 GiB at most, and never more than a quarter of a small cap.
    """
    return min(cap // 4, max(_LEAST_HEADROOM, min(_MOST_HEADROOM, cap * 6 // 100)))


class Session:
    """One kernel. Made when it is first needed, which is after the kernel has started.

    Args:
        shell: the IPython shell.
        names: the frameworks there are files for.
        environment: the process's environment.
    """

    def __init__(self, shell: Any, names: Sequence[str], environment: Environment | None = None) -> None:
        self.shell = shell
        self.names = tuple(names)
        self.environment = environment or Environment()
        self.lease = LeaseView(self.environment)
        self.kernel_id = kernel_id()
        self.keeper = WishKeeper(self.kernel_id)
        self.wishes: dict[str, Wish] = self.keeper.take()
        self.shares, self.notices = parse_shares(self.environment.value(SHARES_VARIABLE) or "")
        self._frameworks: dict[str, Framework] = {}
        self._prepared: set[str] = set()

    @property
    def channel(self) -> Channel:
        """The way to the server, as the environment names it now."""
        return Channel(self.lease.socket_path, self.lease.lease_id, self.kernel_id)

    def framework(self, name: str) -> Framework:
        """The framework whose file has this name."""
        if name not in self._frameworks:
            file = importlib.import_module("." + name, __package__ + ".frameworks")
            self._frameworks[name] = file.FRAMEWORK(self)
        return self._frameworks[name]

    def frameworks(self) -> list[Framework]:
        """All of them, by name."""
        return [self.framework(name) for name in self.names]

    def known_as(self, word: str) -> Framework | None:
        """The framework that has this name or alias."""
        word = word.lower()
        return next((each for each in self.frameworks() if word == each.name or word in each.aliases), None)

    def note(self, sentence: str) -> None:
        """Keep something that the user should know, for the next `%gpu`. Said once each."""
        if sentence not in self.notices:
            self.notices.append(sentence)

    def concerns(self, name: str) -> bool:
        """Whether anybody wants the framework held to anything: a lease, a share, or the user."""
        return bool(self.lease.lease_id) or name in self.shares or name in self.wishes

    # Called around imports.

    def before_import(self, name: str) -> None:
        """Prepare a framework that is about to be imported."""
        self._prepared.add(name)
        if self.concerns(name):
            self.framework(name).before_import(self.limit_for(name))

    def after_import(self, name: str) -> None:
        """Limit a framework that has just been imported."""
        framework = self.framework(name)
        framework.late = name not in self._prepared
        if not self.concerns(name):
            return
        sentence = framework.unsupported()
        if sentence:
            self.note(sentence)
            return
        try:
            framework.after_import(self.limit_for(name))
        except Exception as error:  # noqa: BLE001 - a framework may change in any way, and the import stands
            self.note(
                f"{framework.title} {framework.version or ''} could not be limited after its import "
                f"({type(error).__name__}: {error}); the cap of this kernel holds where a cap layer is active."
            )

    # What each may take.

    def limit_for(self, name: str) -> Limit:
        """What the framework is to keep to now: what the user asked for, else its share, else the lease's cap."""
        wish = self.wishes.get(name, Wish())
        devices = self.lease.caps()
        asked = self._asked(wish, devices)
        if asked or wish.fraction is not None:
            return Limit(asked, wish.fraction, wish.growth, wish.cpu, BY_YOU)
        share = self.shares.get(name)
        cpu = wish.cpu if wish.cpu is not None else (True if share is not None and share.cpu else None)
        amounts = {}
        for device in devices:
            if device.cap is None or (share is None and not self._is_below_device(device) and not self.shares):
                continue
            usable = device.cap - headroom(device.cap)
            if share is not None and not share.cpu:
                usable = min(usable, share.of(device.cap))
            else:
                others = [each for other, each in self.shares.items() if other != name]
                usable -= min(usable, sum(each.of(device.cap) for each in others))
            if usable > 0:
                amounts[device.ordinal] = usable
        return Limit(amounts, None, wish.growth, cpu, BY_US)

    def wish(self, name: str, wish: Wish) -> Limit:
        """Note what the user asks of a framework, and return what it is to keep to from now on."""
        self.wishes[name] = self.wishes.get(name, Wish()).merged(wish)
        return self.limit_for(name)

    def label(self, ordinal: int) -> str:
        """How people know the device that CUDA counts as `ordinal` in this process."""
        devices = self.lease.devices()
        return devices[ordinal].label if ordinal < len(devices) else f"CUDA device {ordinal}"

    def visible_total(self, ordinal: int) -> int | None:
        """The memory of a device as a framework sees it, in bytes: the cap where the interposer answers for it.

        A fraction that a framework is given applies to this figure, not to the whole device.
        """
        devices = self.lease.caps()
        if ordinal >= len(devices):
            return None
        device = devices[ordinal]
        if device.cap is not None and self.lease.is_interposed:
            return device.cap
        return device.total or self.lease.named(device.uuid).memory_bytes

    # Whether CUDA is up.

    def cuda_reasons(self) -> list[str]:
        """Why the devices of this process can no longer be changed in place, one sentence each; empty if they can."""
        reasons = [
            f"{framework.title} has started CUDA in this kernel."
            for framework in self.frameworks()
            # One that computes through another would only say the same again.
            if framework.imported and framework.limits_memory and framework.cuda_up()
        ]
        if not reasons and cuda.environment_is_read():
            reasons.append("CUDA is initialised in this process, which has fixed the devices that it sees.")
        held = [device.label for device in self.lease.devices() if device.own]
        return reasons + [f"This process holds memory on {label}." for label in held]

    def adopt(self, variables: dict[str, str | None]) -> list[str]:
        """Take on a new lease's environment; returns what each imported framework makes of it, one sentence each."""
        for name, value in variables.items():
            if value is None:
                self.environment.variables.pop(name, None)
            else:
                self.environment.variables[name] = value
        said: list[str] = []
        for framework in self.frameworks():
            if not framework.imported:
                continue
            try:
                outcome = framework.devices_changed()
                framework.after_import(self.limit_for(framework.name))
            except Exception as error:  # noqa: BLE001 - the kernel has its new devices, whatever a framework makes of it
                said.append(f"{framework.title} may not see the new devices: {type(error).__name__}: {error}.")
                continue
            said.extend(outcome.done + outcome.remaining)
        return said

    @staticmethod
    def _asked(wish: Wish, devices: Sequence[DeviceCap]) -> dict[int, int]:
        named = dict(wish.devices)
        amounts = {}
        for device in devices:
            amount = named.get(device.uuid, wish.every_device)
            if amount is not None:
                amounts[device.ordinal] = amount
        if not devices and wish.every_device is not None:
            # A process outside any lease: the framework's devices are as many as it finds.
            amounts = dict.fromkeys(range(_DEVICES_OUTSIDE_A_LEASE), wish.every_device)
        return amounts

    @staticmethod
    def _is_below_device(device: DeviceCap) -> bool:
        return device.cap is not None and (device.total is None or device.cap < device.total)


_DEVICES_OUTSIDE_A_LEASE = 16
