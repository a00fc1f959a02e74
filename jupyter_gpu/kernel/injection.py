"""How `%gpu` gets into a kernel that knows nothing of this package: what the provisioner adds to its environment.

IPython runs the file that `PYTHONSTARTUP` names before the startup files of the profile, `exec_lines` and
`exec_files`. Of all the ways in it is the one that takes nothing from the user: options on the command line replace
the lists of the user's configuration, and need the arguments of a kernel that may be wrapped by a shell, by `conda run`
or by a script, while an environment reaches the kernel through all of them; a file in the profile is the user's; and
`sitecustomize` or a `.pth` file would touch every Python that the kernel starts. The user's own `PYTHONSTARTUP` is kept
in a variable of ours, put back before anything else happens, and run as IPython would have run it.

A user who turned `InteractiveShellApp.exec_PYTHONSTARTUP` off has turned this off, too, as meant.
"""

from __future__ import annotations

import os
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

STARTUP_FILE = Path(os.path.abspath(__file__)).with_name("startup.py")  # noqa: PTH100 - a link may be what kernels see
STARTUP_VARIABLE = "PYTHONSTARTUP"
CHAINED_VARIABLE = "JUPYTER_GPU_PYTHONSTARTUP"
SHARES_VARIABLE = "JUPYTER_GPU_SHARES"


def magic_variables(language: str, environment: Mapping[str, str], shares: str = "") -> dict[str, str]:
    """The variables to set in the environment that a kernel is started with, so that it has `%gpu`.

    Args:
        language: `language` of the kernel's spec; only Python kernels are changed.
        environment: the kernel's environment as it would be without this.
        shares: what each framework may take of the kernel's GPUs, such as `theano=cpu` or
            `theano=25%,tensorflow=75%`; empty for whatever there is. What the user has set stands.

    Returns:
        Names and values to set; nothing is ever to be removed. Calling it again on its own result changes nothing.
    """
    if language.strip().lower() != "python":
        return {}
    changes = {}
    if shares and not environment.get(SHARES_VARIABLE):
        changes[SHARES_VARIABLE] = shares
    before = environment.get(STARTUP_VARIABLE, "")
    ours = str(STARTUP_FILE)
    if before == ours:
        return changes
    changes[STARTUP_VARIABLE] = ours
    if before:
        changes[CHAINED_VARIABLE] = before
    elif environment.get(CHAINED_VARIABLE):
        # Left over from a kernel that started this server: it would be run for a user who has set nothing.
        changes[CHAINED_VARIABLE] = ""
    return changes
