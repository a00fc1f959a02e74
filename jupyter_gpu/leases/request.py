"""What somebody asks for: the text of a request, parsed, checked and printable again.

The grammar::

    request  = "cpu" | "none" | choice [":" memory] | listed
    choice   = "auto" | count "x" [model]
    listed   = device [":" memory] {"," device [":" memory]}
    device   = index | gpu "." instance | UUID or an unambiguous beginning of one, from "GPU-" or "MIG-" on
    memory   = amount | percent "%" | "all" | "shared"

A memory after the last of several listed devices that have none goes for all of them: `0,1:8GiB`. `shared` is what a
device without memory means and is written only next to devices with one: `0:shared,1:8GiB`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction

from ..devices.amount import exact_amount, parse_amount

_INDEX = re.compile(r"(0|[1-9]\d{0,3})(\.(0|[1-9]\d{0,3}))?\Z", re.ASCII)
_UUID = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]{1,80}\Z", re.ASCII | re.IGNORECASE)
_COUNTED = re.compile(r"(?P<count>\d+)x(?P<model>[0-9A-Za-z][0-9A-Za-z._-]*)?\Z", re.ASCII | re.IGNORECASE)
_PERCENT = re.compile(r"(?P<number>\d{1,3}(\.\d{1,6})?)\s*%\Z", re.ASCII)
_LONGEST_TEXT = 1000
_MOST_DEVICES = 64

EXAMPLES = "cpu, auto, 1, 0,1, 0.2, 2x, 2xH100, 1:8GiB, auto:25%, 0:all"


class RequestError(ValueError):
    """A request that cannot be had. Its message is one sentence for the person who asked."""


class Hold(str, Enum):
    """How a lease holds a device."""

    SHARED = "shared"
    """It may use what nobody has reserved."""
    RESERVED = "reserved"
    """That much is its own, and no more."""
    WHOLE = "whole"
    """Nobody else is placed on the device."""


@dataclass(frozen=True)
class Memory:
    """How much of one device: an amount in bytes, a share of it, all of it, or whatever nobody has reserved."""

    hold: Hold = Hold.SHARED
    bytes: int | None = None
    share: Fraction | None = None
    """Of the device's memory, above 0 and up to 1."""

    def __str__(self) -> str:
        """The word that `parse` reads back to this value."""
        if self.hold is Hold.SHARED:
            return "shared"
        if self.hold is Hold.WHOLE:
            return "all"
        if self.bytes is not None:
            return exact_amount(self.bytes)
        assert self.share is not None
        percent = self.share * 100
        return f"{float(percent):.6f}".rstrip("0").rstrip(".") + "%"

    @classmethod
    def parse(cls, text: str) -> Memory:
        """The memory that `text` means.

        Raises:
            RequestError: it means none.
        """
        word = text.strip()
        if word.lower() == "all":
            return WHOLE
        if word.lower() == "shared":
            return SHARED
        percent = _PERCENT.match(word)
        if percent is not None:
            share = Fraction(percent["number"]) / 100
            if not 0 < share <= 1:
                raise RequestError(f"{word!r} is not a share of a GPU's memory; write a percentage from 1% to 100%")
            return cls(Hold.RESERVED, share=share)
        try:
            return cls(Hold.RESERVED, bytes=parse_amount(word))
        except ValueError as error:
            raise RequestError(f"{error}, or a share such as 25%, or all") from None

    def size_on(self, device_bytes: int | None) -> int | None:
        """The bytes that this is on a device of `device_bytes`; `None` for a shared hold or where that is unknown."""
        if self.hold is Hold.SHARED:
            return None
        if self.bytes is not None:
            return self.bytes
        if device_bytes is None:
            return None
        return device_bytes if self.share is None else int(device_bytes * self.share)


SHARED = Memory()
WHOLE = Memory(Hold.WHOLE)


@dataclass(frozen=True)
class DeviceChoice:
    """One device that was asked for by name, and how much of it."""

    device: str
    """An index such as `1` or `0.2`, or a UUID or the beginning of one."""
    memory: Memory = SHARED


@dataclass(frozen=True)
class GPURequest:
    """What was asked for: either the devices in `listed`, or `count` devices that placement chooses.

    A request for no device (`cpu`) has neither.
    """

    listed: tuple[DeviceChoice, ...] = ()
    count: int = 0
    model: str | None = None
    """A word that the name of each chosen device must contain; case and the kind of separators do not matter."""
    memory: Memory = SHARED
    """On each device that placement chooses."""

    @property
    def in_words(self) -> str:
        """As it stands in a sentence: `GPU 0:8GiB` where the text begins with a number, since `has 0` says nothing."""
        return f"GPU {self}" if self.listed and str(self)[0].isdigit() else str(self)

    @property
    def is_cpu(self) -> bool:
        """Whether it asks for no device."""
        return not self.listed and not self.count

    @property
    def device_count(self) -> int:
        """How many devices it asks for."""
        return len(self.listed) or self.count

    def with_memory(self, memory: Memory) -> GPURequest:
        """The same devices with `memory` on each."""
        listed = tuple(replace(choice, memory=memory) for choice in self.listed)
        return replace(self, listed=listed, memory=memory if self.count else SHARED)

    def __str__(self) -> str:
        """The canonical text, which `parse` reads back to this request."""
        if self.is_cpu:
            return "cpu"
        if self.count:
            choice = "auto" if self.count == 1 and self.model is None else f"{self.count}x{self.model or ''}"
            return choice if self.memory == SHARED else f"{choice}:{self.memory}"
        memories = [choice.memory for choice in self.listed]
        if all(memory == SHARED for memory in memories):
            return ",".join(choice.device for choice in self.listed)
        if all(memory == memories[0] for memory in memories):
            return ",".join(choice.device for choice in self.listed) + f":{memories[0]}"
        return ",".join(f"{choice.device}:{choice.memory}" for choice in self.listed)

    @classmethod
    def parse(cls, text: str) -> GPURequest:
        """The request that `text` means.

        Raises:
            RequestError: it means none; the message says what was wrong and what there is.
        """
        if not isinstance(text, str):
            raise RequestError(f"a GPU request is a text such as {EXAMPLES}, not {type(text).__name__}")
        if len(text) > _LONGEST_TEXT:
            raise RequestError(f"a GPU request has at most {_LONGEST_TEXT} characters, this one has {len(text)}")
        word = text.strip()
        if not word:
            raise RequestError(f"the GPU request is empty; write one of {EXAMPLES}")
        if word.lower() in ("cpu", "none"):
            return CPU
        head, colon, tail = word.partition(":")
        head = head.strip()
        if colon and head.lower() in ("cpu", "none"):
            raise RequestError(f"{word!r} asks for memory of no GPU; write cpu alone, or name a GPU, such as auto:8GiB")
        counted = _COUNTED.match(head)
        if head.lower() == "auto" or counted is not None:
            memory = Memory.parse(tail) if colon else SHARED
            if counted is None:
                return cls(count=1, memory=memory)
            return cls(count=_count(counted["count"]), model=counted["model"], memory=memory)
        return cls(listed=_listed(word))


CPU = GPURequest()


def model_matches(word: str, name: str) -> bool:
    """Whether the product name contains the word, taking case, spaces, hyphens and underscores as the same."""
    return _plain(word) in _plain(name)


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]+", "-", text.strip().lower())


def _count(text: str) -> int:
    count = int(text) if len(text) < 6 else _MOST_DEVICES + 1  # longer is not meant
    if not 1 <= count <= _MOST_DEVICES:
        raise RequestError(f"{text}x asks for {text} GPUs; ask for 1x to {_MOST_DEVICES}x, or for cpu")
    return count


def _listed(text: str) -> tuple[DeviceChoice, ...]:
    parts = text.split(",")
    if len(parts) > _MOST_DEVICES:
        raise RequestError(f"a request lists at most {_MOST_DEVICES} GPUs, this one lists {len(parts)}")
    devices: list[str] = []
    memories: list[Memory | None] = []
    for part in parts:
        name, colon, memory = part.partition(":")
        devices.append(_device(name.strip(), text))
        memories.append(Memory.parse(memory) if colon else None)
    repeated = {device for device in devices if devices.count(device) > 1}
    if repeated:
        raise RequestError(f"{text!r} names GPU {min(repeated)} more than once; name each GPU once")
    if memories[-1] is not None and all(memory is None for memory in memories[:-1]):
        memories = [memories[-1]] * len(memories)
    elif any(memory is None for memory in memories) and any(memory is not None for memory in memories):
        raise RequestError(
            f"{text!r} gives memory for some GPUs only; write it for each, such as 0:4GiB,1:16GiB, "
            "with shared for one without a fixed amount"
        )
    return tuple(DeviceChoice(device, memory or SHARED) for device, memory in zip(devices, memories, strict=True))


def _device(name: str, text: str) -> str:
    if _INDEX.match(name):
        return name
    if _UUID.match(name):
        return name[:4].upper() + name[4:]
    if name.lower() in ("cpu", "none", "auto") or _COUNTED.match(name):
        raise RequestError(f"{name!r} cannot be listed with other GPUs in {text!r}; write it alone, or name each GPU")
    if not name:
        raise RequestError(f"{text!r} has an empty place where a GPU is expected; write one of {EXAMPLES}")
    raise RequestError(f"{name!r} is not a GPU request; write one of {EXAMPLES}")
