"""The `jupyter gpu` command."""

from __future__ import annotations

from jupyter_core.application import JupyterApp

from .. import __version__
from .base import refuse_subcommand
from .doctor import DoctorApp
from .kernelspec import KernelSpecApp
from .listing import ListApp, StatusApp
from .run import RunApp


class GPUApp(JupyterApp):
    """See and use the GPUs of this host."""

    name = "jupyter gpu"
    version = __version__
    description = """See the GPUs of this host and who holds them, and run commands with a GPU of their own.

    The leases are the same that Jupyter servers with jupyter_gpu give to kernels: what is held here is not given out
    there, and the other way round. A request is one of: cpu, auto, 1, 0,1, 0.2 (MIG), 2x, 2xH100, with memory such as
    1:8GiB, auto:25% or 0:all.
    """
    examples = """
    jupyter gpu list                                 # the devices, and who holds them
    jupyter gpu run --gpu auto:8GiB -- python train.py
    jupyter gpu doctor                               # what works, what does not, what to do
    """
    subcommands = {  # noqa: RUF012 - traitlets' way
        "list": (ListApp, ListApp.description.splitlines()[0]),
        "status": (StatusApp, StatusApp.description.splitlines()[0]),
        "run": (RunApp, RunApp.description.splitlines()[0]),
        "doctor": (DoctorApp, DoctorApp.description.splitlines()[0]),
        "kernelspec": (KernelSpecApp, KernelSpecApp.description.splitlines()[0]),
    }

    def start(self) -> None:
        """Run the subcommand, or say which there are."""
        if self.subapp is not None:
            self.subapp.start()
            return
        if self.extra_args:
            refuse_subcommand(self)
        self.print_help()


main = launch_new_instance = GPUApp.launch_instance
