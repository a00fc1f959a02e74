"""The file that IPython runs when a kernel starts, in the user's namespace, where it leaves no name behind.

It gets here as `PYTHONSTARTUP` (see `injection.py`). It needs the standard library only, runs on every Python from 3.7,
and works from wherever it lies: its siblings are loaded from its own directory, under a private name, whether or not
the package is installed for this Python. Whatever goes wrong here, the kernel starts, and its first cell says so.
"""


def _jupyter_gpu_startup(here, chained="JUPYTER_GPU_PYTHONSTARTUP"):  # type: ignore[no-untyped-def]
    import os
    import sys

    def say_once(shell, error):  # type: ignore[no-untyped-def]
        sentence = "jupyter_gpu could not be set up in this kernel, which works without it: %s: %s" % (
            type(error).__name__,
            error,
        )

        def say(*_):  # type: ignore[no-untyped-def]
            shell.events.unregister("pre_run_cell", say)
            print(sentence, file=sys.stderr)

        shell.events.register("pre_run_cell", say)

    # Programs that this kernel starts are to find the variable as the user had it.
    of_user = os.environ.pop(chained, None)
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
            print("jupyter_gpu could not be set up in this kernel: %s; %s" % (error, second), file=sys.stderr)
    return of_user


def _jupyter_gpu_chain(path, names):  # type: ignore[no-untyped-def]
    import sys

    # The application runs a startup file as the user knows it: argv, `__file__`, and a traceback where it fails.
    application = getattr(sys.modules.get("traitlets.config"), "Application", None)
    running = application.instance() if application is not None and application.initialized() else None
    if hasattr(running, "_exec_file"):
        running._exec_file(path)
    else:
        with open(path, "rb") as file:
            exec(compile(file.read(), path, "exec"), names)


try:
    __chained = _jupyter_gpu_startup(__file__)
    if __chained:
        _jupyter_gpu_chain(__chained, globals())
finally:
    globals().pop("__chained", None)
    del _jupyter_gpu_startup, _jupyter_gpu_chain
