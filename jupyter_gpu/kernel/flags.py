"""The flags of Theano and its descendants: `name=value`, separated by commas, the last of a name standing."""

from __future__ import annotations

import shlex
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_RENAMED = {"ldflags": "blas.ldflags", "lib.cnmem": "gpuarray.preallocate"}
"""Names of the time, or written as in a section of `.theanorc`, and what Theano 1.0 calls them."""
_GONE = {
    "fastmath": "it was an option of nvcc, for GPU code",
    "nvcc.fastmath": "it was an option of nvcc, for GPU code",
    "nvcc.flags": "it was an option of nvcc, for GPU code",
}


class Flags(NamedTuple):
    """Flags in the order in which they were written."""

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Flags:
        """The flags in `text`, split as Theano splits it. What has no value is left out, as Theano does."""
        splitter = shlex.shlex(text, posix=True)
        splitter.whitespace = ","
        splitter.whitespace_split = True
        try:
            words = [word.strip() for word in splitter]
        except ValueError:
            # An open quotation mark: Theano would refuse it, too; take it literally.
            words = [word.strip() for word in text.split(",")]
        pairs = (word.partition("=") for word in words)
        return cls(tuple((name.strip(), value.strip()) for name, equals, value in pairs if equals and name.strip()))

    def __str__(self) -> str:
        """The text that `parse` reads back to these flags."""
        return ",".join(f"{name}={_quoted(value)}" for name, value in self.pairs)

    @property
    def names(self) -> list[str]:
        """The flags that are set."""
        return [name for name, _ in self.pairs]

    def value(self, name: str) -> str | None:
        """The flag's value, or `None`."""
        return dict(self.pairs).get(name)

    def with_value(self, name: str, value: str) -> Flags:
        """These flags with one more, or with another value for it."""
        return Flags((*self.without(name).pairs, (name, value)))

    def without(self, *names: str) -> Flags:
        """These flags less some."""
        return Flags(tuple(pair for pair in self.pairs if pair[0] not in names))

    def merged(self, later: Flags) -> Flags:
        """These flags with `later` over them."""
        return Flags((*self.without(*later.names).pairs, *later.pairs))

    def modernised(self, links: Callable[[str], bool]) -> tuple[Flags, list[str]]:
        """The flags as Theano 1.0 understands them, and a sentence for each that changed in more than its name.

        Args:
            links: whether the compiler links with some options.
        """
        flags, said = Flags(), []
        written = set(self.names)
        for name, value in self.pairs:
            new_name = name
            if name in _GONE:
                said.append(f"Theano 1.0 has no flag {name} any more ({_GONE[name]}); it is left out.")
                continue
            if name in _RENAMED:
                new_name = _RENAMED[name]
                if new_name in written:
                    continue
            new_value = value
            if name == "device" and value.startswith("gpu"):
                # gpu and gpu0 were the back end before libgpuarray, which 1.0 refuses by name.
                new_value = "cuda" + value[len("gpu") :]
            if name == "ldflags" and value and not links(value):
                said.append(
                    f"The linker finds nothing for ldflags={value}, so Theano multiplies matrices with NumPy; "
                    "install that library and import Theano again for more speed."
                )
                new_value = ""
            flags = flags.with_value(new_name, new_value)
        return flags, said


def _quoted(value: str) -> str:
    return "'" + value + "'" if "," in value and "'" not in value else value
