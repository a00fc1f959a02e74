"""Theano: its flags before the import, and its GPU optimisations after it.

`device` is fixed when Theano is imported. What `theano.gpuarray.use` switches on besides is not: the optimisations
`gpuarray_opt` and `gpua_scanOp_make_inplace` under the tags of the default mode, and the constructor that puts shared
variables on the GPU (`theano/gpuarray/__init__.py` in 1.0.5). Taken out again, functions compiled from then on run on
the CPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

from ..flags import Flags
from .framework import BY_US, BY_YOU, Framework, Holding, Outcome, Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from .framework import Limit

_GPU_TAGS = (("gpuarray_opt", ("fast_run", "fast_compile")), ("gpua_scanOp_make_inplace", ("fast_run",)))
"""What `theano.gpuarray.use` adds, by name and tags."""
_GPU_WORDS = ("cuda", "opencl", "gpu")
_LINK_CHECK_TIMEOUT_S = 20
_MIB = 1 << 20


class Theano(Framework):
    """Theano 1.0, and what its descendants have in common with it."""

    name = "theano"
    title = "Theano"
    oldest = "0.9"
    flags_variable = "THEANO_FLAGS"
    keeps_to_limit = False
    has_gpu = True
    """Whether it has a GPU back end of its own."""

    # What it is.

    @property
    def _gpuarray(self) -> Any:
        """Its GPU back end's module, where it is imported."""
        return sys.modules.get(self.name + ".gpuarray")

    def _contexts(self) -> dict[str, Any]:
        """The devices that it has opened, by name."""
        return dict(getattr(getattr(self._gpuarray, "init_dev", None), "devmap", {}))

    def cuda_up(self) -> bool | None:
        """Whether it has opened a device."""
        return any(name.startswith("cuda") for name in self._contexts())

    @property
    def on_gpu(self) -> bool:
        """Whether what is compiled now goes to the GPU."""
        if not self.imported or self._gpuarray is None:
            return False
        constructors = self._constructors()
        return self._gpuarray.gpuarray_shared_constructor in constructors or any(
            self._tagged(name, tag) for name, tags in _GPU_TAGS for tag in tags
        )

    # Its flags.

    def flags(self) -> Flags:
        """The flags as the environment has them."""
        return Flags.parse(self.session.environment.value(self.flags_variable) or "")

    def before_import(self, limit: Limit) -> None:
        """Hold its flags to the limit; bring those of older versions up to date."""
        flags = self.flags()
        flags, said = flags.modernised(self._links)
        asked = flags.value("device")
        if limit.cpu:
            if asked is not None and asked.startswith(_GPU_WORDS):
                said.append(f"{self.title} was asked for device={asked} and goes to the CPU, as configured.")
            flags = flags.without("device", "init_gpu_device", "contexts").with_value("device", "cpu")
        elif limit.cpu is False:
            flags = flags.with_value("device", asked if asked and asked.startswith(_GPU_WORDS) else "cuda")
        elif self.session.lease.is_cpu and asked is not None and asked.startswith(_GPU_WORDS):
            said.append(f"{self.title} goes to the CPU, because this kernel has no GPU.")
            flags = flags.with_value("device", "cpu")
        chosen = flags.value("device") or ""
        preallocate = self._preallocate(limit)
        if chosen.startswith(_GPU_WORDS) and flags.value("gpuarray.preallocate") is None and preallocate:
            flags = flags.with_value("gpuarray.preallocate", f"{preallocate:g}")
        for sentence in said:
            self.session.note(sentence)
        if str(flags) != str(self.flags()):
            self.session.environment.put(self.flags_variable, str(flags))

    def _preallocate(self, limit: Limit) -> float | None:
        """What `gpuarray.preallocate` is to be: a fraction up to 1, or MiB; `None` where it was given no share."""
        if limit.fraction is not None:
            return limit.fraction
        if limit.amounts and (limit.origin == BY_YOU or self.name in self.session.shares):
            return max(2, min(limit.amounts.values()) // _MIB)
        return None

    @staticmethod
    def _links(options: str) -> bool:
        """Whether the C++ compiler links with these options, which is what Theano tries with its own defaults."""
        compiler = shutil.which("g++") or shutil.which("c++")
        if compiler is None:
            return False
        with tempfile.TemporaryDirectory() as directory:
            command = [compiler, "-shared", "-x", "c++", os.devnull, "-o", os.path.join(directory, "probe.so")]  # noqa: PTH118
            try:
                done = subprocess.run(
                    command + options.split(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=_LINK_CHECK_TIMEOUT_S,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired):
                return False
        return done.returncode == 0

    # What it takes.

    def after_import(self, limit: Limit) -> None:
        """Take the GPU out where it was imported before its flags could be set."""
        if self.late and limit.cpu and self.on_gpu:
            self._take_out()

    def limit(self, limit: Limit) -> Outcome:
        """Send it to the CPU or to the GPU, or set how much it takes at once."""
        if limit.cpu is not None:
            return self._to_cpu() if limit.cpu else self._to_gpu(limit)
        if not self.has_gpu:
            return self._no_gpu()
        preallocate = self._preallocate(limit)
        if preallocate is not None:
            if self.imported:
                what = f"{self.title} takes its memory when it opens the GPU"
                return Outcome((), (f"{what}; another amount can hold only after a restart (add --restart).",))
            flags = self.flags().with_value("gpuarray.preallocate", f"{preallocate:g}")
            self.session.environment.put(self.flags_variable, str(flags))
            return Outcome((self.not_imported(f"{self.title} sets gpuarray.preallocate={preallocate:g}"),))
        said = (
            f"{self.title} has no limit of its own: its pool grows with what it computes, and the cap of this kernel "
            "holds where a cap layer is active. "
        )
        return Outcome((), (said + f"%gpu {self.name} cpu keeps it off the GPU.",))

    def _to_cpu(self) -> Outcome:
        if not self.imported:
            self._set_device("cpu")
            flags = f"{self.flags_variable}={self.flags()}"
            return Outcome((self.not_imported(f"{self.title} runs on the CPU ({flags})"),))
        if not self.on_gpu:
            return Outcome((f"{self.title} compiles for the CPU.",))
        self._take_out()
        stays = (
            "Functions that were compiled before still run where they were compiled for, and shared variables that "
            "were made on the GPU stay there; make them again to have them on the CPU."
        )
        return Outcome((f"{self.title} compiles for the CPU from now on.",), (stays,))

    def _to_gpu(self, limit: Limit) -> Outcome:
        if not self.has_gpu:
            return self._no_gpu()
        if self.session.lease.is_cpu:
            return Outcome((), (f"This kernel has no GPU for {self.title}; get one with %gpu use auto.",))
        if not self.imported:
            self._set_device("cuda")
            flags = f"{self.flags_variable}={self.flags()}"
            return Outcome((self.not_imported(f"{self.title} runs on the GPU ({flags})"),))
        gpuarray = self._gpuarray
        if gpuarray is None or getattr(gpuarray, "pygpu", None) is None:
            why = f"{self.title} needs the package pygpu (0.7) for its GPU back end, and it is not installed here."
            return Outcome((), (why,))
        if self.on_gpu:
            return Outcome((f"{self.title} compiles for the GPU.",))
        if self._contexts():
            gpuarray.use("")
            return Outcome((f"{self.title} compiles for the GPU again, from now on.",))
        try:
            gpuarray.use("cuda", preallocate=self._preallocate(limit))
        except Exception as error:  # noqa: BLE001 - whatever the driver says is what the user needs to know
            return Outcome((), (f"{self.title} cannot open the GPU: {error}.",))
        return Outcome((f"{self.title} compiles for the GPU from now on.",))

    def _no_gpu(self) -> Outcome:
        return Outcome((), (f"{self.title} has no GPU back end of its own.",))

    def _set_device(self, device: str) -> None:
        flags, _ = self.flags().modernised(self._links)
        before = flags.value("device") or ""
        if device == "cpu":
            flags = flags.without("init_gpu_device", "contexts")
        if not (device == "cuda" and before.startswith(("cuda", "opencl"))):
            flags = flags.with_value("device", device)
        self.session.environment.put(self.flags_variable, str(flags))

    def _take_out(self) -> None:
        database = self.module.compile.optdb
        for name, tags in _GPU_TAGS:
            present = [tag for tag in tags if self._tagged(name, tag)]
            if present:
                database.remove_tags(name, *present)
        constructor = self._gpuarray.gpuarray_shared_constructor
        while constructor in self._constructors():
            self.module.compile.shared_constructor(constructor, remove=True)

    def _constructors(self) -> list[Any]:
        return list(self.module.compile.sharedvalue.shared.constructors)

    def _tagged(self, name: str, tag: str) -> bool:
        # Asking for a name that is not there would make it, and keep Theano from registering it later.
        entries = self.module.compile.optdb.__db__
        return any(optimiser in entries.get(tag, ()) for optimiser in entries.get(name, ()))

    # What it says.

    def holds(self) -> list[Holding]:
        """What its contexts have taken from each device, as the device tells it."""
        found = []
        for name, context in self._contexts().items():
            digits = "".join(character for character in name if character.isdigit())
            try:
                taken = int(context.total_gmem) - int(context.free_gmem)
                why = "of all processes: libgpuarray does not tell its own part"
                found.append(Holding(int(digits or 0), None, taken, None, why))
            except Exception as error:  # noqa: BLE001
                found.append(Holding(int(digits or 0), None, None, None, f"libgpuarray does not tell: {error}"))
        return found

    def settings(self) -> list[Setting]:
        """The flags, and where it compiles for."""
        found = self.setting_from_environment(self.flags_variable)
        if self.imported:
            device = str(getattr(getattr(self.module, "config", None), "device", "cpu"))
            asked = device.startswith(_GPU_WORDS)
            found.append(Setting("compiles for", "the GPU" if self.on_gpu else "the CPU", BY_YOU if asked else BY_US))
        return found

    def free(self) -> Outcome:
        """Collect what nothing refers to; libgpuarray keeps its pool."""
        import gc  # noqa: PLC0415

        gc.collect()
        if not self._contexts():
            return Outcome()
        return Outcome((), (f"{self.title}'s pool and context stay until the kernel restarts.",))

    def devices_changed(self) -> Outcome:
        """Its device is fixed with its import."""
        if not self.has_gpu:
            return Outcome()
        chosen = str(getattr(getattr(self.module, "config", None), "device", "cpu"))
        return Outcome((f"{self.title} goes on with device={chosen}, which its import fixed.",))

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """`cpu`, `gpu`, or flags as they were written."""
        parser.add_argument(
            "place",
            nargs="?",
            metavar="cpu|gpu|FLAGS",
            help="where it compiles for, or its flags as they were written, such as floatX=float32,device=cpu",
        )

    def run(self, arguments: argparse.Namespace) -> Outcome | None:
        """Take flags up. `cpu` and `gpu` have become part of the limit before this is called."""
        text = arguments.place
        if text is None or text in ("cpu", "gpu"):
            return None
        if "=" not in text:
            raise ValueError(f"{text!r} is neither cpu nor gpu nor flags such as floatX=float32,device=cpu.")
        flags, said = self.flags().merged(Flags.parse(text)).modernised(self._links)
        self.session.environment.put(self.flags_variable, str(flags))
        if not self.imported:
            return Outcome((self.not_imported(f"{self.title} gets {self.flags_variable}={flags}"), *said))
        device = Flags.parse(text).modernised(self._links)[0].value("device")
        outcome = Outcome()
        if device is not None:
            outcome = self._to_cpu() if device == "cpu" else self._to_gpu(self.session.limit_for(self.name))
        others = [name for name in Flags.parse(text).names if name != "device"]
        if others:
            what = f"{self.title} is imported, so {', '.join(others)} can hold only after a restart."
            return Outcome(outcome.done + tuple(said), (*outcome.remaining, what))
        return Outcome(outcome.done + tuple(said), outcome.remaining)


FRAMEWORK = Theano
