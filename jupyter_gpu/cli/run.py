"""`jupyter gpu run`: a lease for the life of a command.

The command takes this process's place once the lease is there. So its exit status and its signals are its own, and
the lease, which lives with the process, goes with it however it ends.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import uuid
from typing import TYPE_CHECKING

from traitlets import Bool, Unicode

from ..leases.lease import Ask, Origin, Owner
from ..leases.ledger import LeaseGone
from ..leases.request import GPURequest
from ..limits.environment import kernel_environment
from ..plain import plain
from ..waiting import NotGranted
from .base import GPUCommand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..leases.lease import Lease

_NOT_GRANTED = 75
"""EX_TEMPFAIL of sysexits(3): try again later."""
_LONGEST_LABEL = 60


class RunApp(GPUCommand):
    """A command with a GPU of its own."""

    name = "jupyter gpu run"
    description = """Run a command with a GPU of its own.

    The command sees the devices of its lease and no others, and no kernel is given what it holds. The lease ends with
    the command, however that ends. If the request cannot be granted now, it waits in the same queue as kernels do,
    unless --no-wait is given (exit status 75 then).
    """
    examples = """
    jupyter gpu run --gpu auto -- python train.py
    jupyter gpu run --gpu 2x:20GiB -- torchrun --nproc-per-node 2 train.py
    jupyter gpu run --gpu 0:all --no-wait -- ./benchmark
    """

    gpu = Unicode("auto", help="The request, such as auto, 1, 2x:20GiB or 0:all.").tag(config=True)
    wait = Bool(True, help="Wait until the request can be granted.").tag(config=True)

    aliases = {**GPUCommand.aliases, "gpu": "RunApp.gpu"}  # noqa: RUF012 - traitlets' way
    flags = {  # noqa: RUF012 - traitlets' way
        "debug": GPUCommand.flags["debug"],
        "no-wait": ({"RunApp": {"wait": False}}, "Fail at once if the request cannot be granted now."),
    }

    command: Sequence[str] = ()

    def parse_command_line(self, argv: Sequence[str] | None = None) -> None:
        """What comes after `--` is the command, whatever it looks like."""
        arguments = list(sys.argv[1:] if argv is None else argv)
        if "--" in arguments:
            at = arguments.index("--")
            arguments, self.command = arguments[:at], arguments[at + 1 :]
        super().parse_command_line(arguments)
        if not self.command:
            self.command = self.extra_args
        elif self.extra_args:
            self.fail(f"{self.extra_args[0]!r} stands before the --; write jupyter gpu run --gpu REQUEST -- COMMAND", 2)

    def _tell(self, waiting: Lease) -> None:
        print(f"{self.name}: {plain(waiting.message)}", file=sys.stderr)

    def run(self) -> None:
        """Become the command."""
        if not self.command:
            self.fail("there is no command; write jupyter gpu run --gpu REQUEST -- COMMAND", 2)
        program = shutil.which(self.command[0])
        if program is None:
            self.fail(f"there is no program {self.command[0]!r} to run", 127)
        host = self.host
        ask = Ask(
            id=str(uuid.uuid4()),
            request=str(GPURequest.parse(self.gpu)),
            origin=Origin.API,
            owner=Owner("command", plain(shlex.join(self.command), _LONGEST_LABEL)),
            asker=host.process,
            wait=self.wait,
        )
        try:
            lease = host.wait_now(ask, self._tell)
        except NotGranted as error:
            self.fail(str(error), _NOT_GRANTED, as_it_is=True)  # it may begin with a command's name
        except KeyboardInterrupt:
            host.ledger.release(ask.id)
            raise SystemExit(130) from None
        try:
            host.ledger.start(lease.id, host.process)
        except LeaseGone as error:
            self.fail(str(error), _NOT_GRANTED)
        environment = kernel_environment(os.environ, host.variables_for(lease), own={}).variables
        environment.update(host.limit_variables_now(lease, environment))
        host.close()
        # Python ignores these two, and what is ignored stays so for the command, which does not expect it.
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored, signal.SIG_DFL)
        try:
            os.execve(program, list(self.command), environment)  # noqa: S606 - no shell is meant
        except OSError as error:
            host.ledger.release(lease.id)
            self.fail(f"{program} cannot be run: {error.strerror}", 126)
