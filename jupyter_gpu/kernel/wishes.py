"""What frameworks were asked to keep to: by `%gpu`, and by the shares that the configuration gives.

A wish names devices by UUID, so that it survives a change of devices, and can be kept over a restart of the kernel.
"""

from __future__ import annotations

import json
import os
import sys
from typing import NamedTuple

from ..devices.amount import parse_amount
from ..paths import private_directory, runtime_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


class Wish(NamedTuple):
    """What one framework was asked to keep to. `None` is not asked."""

    every_device: int | None = None
    """Bytes on each device."""
    devices: tuple[tuple[str, int], ...] = ()
    """Bytes on named devices, by UUID."""
    fraction: float | None = None
    growth: bool | None = None
    cpu: bool | None = None
    """`True` is to stay off the devices, `False` to go on them."""

    def merged(self, later: Wish) -> Wish:
        """This wish with what `later` asks for in its place: a new memory limit replaces the old one as a whole."""
        limits = later.every_device is not None or later.devices or later.fraction is not None
        return Wish(
            later.every_device if limits else self.every_device,
            later.devices if limits else self.devices,
            later.fraction if limits else self.fraction,
            self.growth if later.growth is None else later.growth,
            self.cpu if later.cpu is None else later.cpu,
        )


class Share(NamedTuple):
    """The part of the kernel's devices that the configuration gives a framework."""

    cpu: bool = False
    fraction: float | None = None
    """Of the cap."""
    amount: int | None = None
    """Bytes on each device."""

    def of(self, cap: int) -> int:
        """The bytes that this is of a cap."""
        if self.amount is not None:
            return min(self.amount, cap)
        return int(cap * self.fraction) if self.fraction is not None else 0


def parse_shares(text: str) -> tuple[dict[str, Share], list[str]]:
    """The shares in a text such as `theano=cpu,tensorflow=75%`, and a sentence for each entry that is none."""
    shares, problems = {}, []
    for entry in text.split(","):
        name, equals, value = (part.strip() for part in entry.partition("="))
        if not name and not value:
            continue
        try:
            shares[name.lower()] = _share(value)
        except ValueError:
            problems.append(
                f"{entry.strip()!r} in JUPYTER_GPU_SHARES is not a share; write a framework and cpu, a percentage or "
                "an amount, such as theano=cpu or tensorflow=75%."
            )
            continue
        if not equals:
            del shares[name.lower()]
    return shares, problems


def _share(value: str) -> Share:
    if value.lower() == "cpu":
        return Share(cpu=True)
    if value.endswith("%"):
        fraction = float(value[:-1]) / 100
        if not 0 < fraction <= 1:
            raise ValueError(value)
        return Share(fraction=fraction)
    return Share(amount=parse_amount(value))


class WishKeeper:
    """Keeps wishes over one restart of the kernel, in the runtime directory, which dies with the boot.

    Args:
        kernel_id: what stays the same over a restart; empty where the kernel does not know it, and nothing is kept.
    """

    def __init__(self, kernel_id: str) -> None:
        self._kernel_id = kernel_id

    def keep(self, wishes: dict[str, Wish]) -> bool:
        """Write them for the next start; returns whether they are kept."""
        if not self._kernel_id:
            return False
        try:
            path = self._path()
            private_directory(path.parent.parent)
            private_directory(path.parent)
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            text = json.dumps({name: wish._asdict() for name, wish in wishes.items()})
            file = os.open(str(draft), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(file, "w") as stream:
                stream.write(text)
            os.replace(str(draft), str(path))  # noqa: PTH105
        except Exception:  # noqa: BLE001 - the caller says that they are lost
            return False
        return True

    def take(self) -> dict[str, Wish]:
        """The wishes that were kept; from now on they are not."""
        if not self._kernel_id:
            return {}
        try:
            path = self._path()
            text = path.read_text()
            path.unlink()
            return {
                str(name): Wish(**{**fields, "devices": tuple((str(u), int(b)) for u, b in fields["devices"])})
                for name, fields in json.loads(text).items()
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}

    def _path(self) -> Path:
        return runtime_directory() / "restarts" / f"{self._kernel_id}.json"


def kernel_id() -> str:
    """This kernel's id, from the name of its connection file; empty outside a kernel."""
    application = getattr(sys.modules.get("traitlets.config"), "Application", None)
    if application is None or not application.initialized():
        return ""
    name = os.path.basename(getattr(application.instance(), "connection_file", "") or "")  # noqa: PTH119
    if not name.endswith(".json"):
        return ""
    stem = name[: -len(".json")]
    return stem[len("kernel-") :] if stem.startswith("kernel-") else stem
