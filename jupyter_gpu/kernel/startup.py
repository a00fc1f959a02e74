"""The file that IPython runs when a kernel starts, in the user's namespace, where it leaves no name behind.

It gets here as `PYTHONSTARTUP` (see `injection.py`). It needs the standard library only, runs on every Python from 3.7,
and works from wherever it lies: its siblings are loaded from its own directory, under a private name, whether or not
the package is installed for this Python. Whatever goes wrong here, the kernel starts, and its first cell says so.
"""

# An import outside a function would leave a name behind, and pathlib costs time:
# ruff: noqa: BLE001, PLC0415, PTH100, PTH120, PTH123

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional


def _jupyter_gpu_startup(here: "str") -> "Optional[str]":
    """Set `%gpu` up; returns the startup file that the user has set, if any."""
    import os
    import sys

    def say_once(shell: "Any", error: "Exception") -> None:
        sentence = (
            f"jupyter_gpu could not be set up in this kernel, which works without it: {type(error).__name__}: {error}"
        )

        def say(*_: "Any") -> None:
            shell.events.unregister("pre_run_cell", say)
            print(sentence, file=sys.stderr)

        shell.events.register("pre_run_cell", say)

    # Programs that this kernel starts are to find the variable as the user had it.
    of_user = os.environ.pop("JUPYTER_GPU_PYTHONSTARTUP", None)
    if of_user:
        os.environ["PYTHONSTARTUP"] = of_user
    else:
        os.environ.pop("PYTHONSTARTUP", None)

    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    try:
        if shell is not None:
            import importlib
            import types

            if "_jupyter_gpu" not in sys.modules:
                package = types.ModuleType("_jupyter_gpu", "jupyter_gpu, as it was handed to this kernel.")
                package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(here)))]
                sys.modules["_jupyter_gpu"] = package
            importlib.import_module("_jupyter_gpu.kernel.entrance").enter(shell)
    except Exception as error:
        try:
            say_once(shell, error)
        except Exception as second:
            print(f"jupyter_gpu could not be set up in this kernel: {error}; {second}", file=sys.stderr)
    return of_user


def _jupyter_gpu_chain(path: "str", names: "Dict[str, Any]") -> None:
    """Run the user's own startup file as IPython would have run it: with argv, `__file__`, and its traceback."""
    import sys

    application = getattr(sys.modules.get("traitlets.config"), "Application", None)
    running = application.instance() if application is not None and application.initialized() else None
    run = getattr(running, "_exec_file", None)
    if run is not None:
        run(path)
        return
    with open(path, "rb") as file:
        exec(compile(file.read(), path, "exec"), names)  # noqa: S102 - Python itself does so


try:
    __chained = _jupyter_gpu_startup(__file__)
finally:
    # Before the user's file runs: what it defines is to stay.
    del _jupyter_gpu_startup, TYPE_CHECKING
try:
    if __chained:
        _jupyter_gpu_chain(__chained, globals())
finally:
    del __chained, _jupyter_gpu_chain
