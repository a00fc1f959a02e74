"""TensorFlow: logical devices before its runtime starts, the ConfigProto of sessions in graph mode, and growth.

TensorFlow reads its devices' memory limits once, when the runtime starts, and keeps one allocator per GPU for the life
of the process (`tensorflow/python/eager/context.py`, `common_runtime/gpu/gpu_device.cc`). So the limit is set at the
last moment before that: until then the user's own `tf.config` calls go first. The user's setting always stands, except
that a limit is put beside the user's memory growth: `TF_FORCE_GPU_ALLOW_GROWTH` lets both hold, which `tf.config` by
itself does not.
"""

from __future__ import annotations

import functools
import gc
import sys
import weakref

from ...devices.amount import readable_amount
from .framework import BY_US, BY_YOU, Framework, Holding, Outcome, Setting, sentence_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from .framework import Limit

_MIB = 1 << 20
_GROWTH = "TF_FORCE_GPU_ALLOW_GROWTH"
_KEEPS = "TensorFlow keeps one allocator per GPU for the life of the process"


class TensorFlow(Framework):
    """TensorFlow 2, and graph mode through `tf.compat.v1`."""

    name = "tensorflow"
    title = "TensorFlow"
    aliases = ("tf",)
    oldest = "2.4"

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self.sessions: weakref.WeakSet[Any] = weakref.WeakSet()
        """Graph-mode sessions that were opened since the import, closed ones too."""
        self._ours: dict[str, int] = {}
        self._of_user: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    # What it is.

    @property
    def _context(self) -> Any:
        """TensorFlow's global context, or `None` where it has not made one."""
        return getattr(sys.modules.get("tensorflow.python.eager.context"), "_context", None)

    @property
    def started(self) -> bool:
        """Whether its runtime has started, on whatever devices."""
        context = self._context
        return getattr(context, "_context_handle", None) is not None or len(self.sessions) > 0

    def cuda_up(self) -> bool | None:
        """Whether the runtime has started with a GPU."""
        if not self.imported:
            return False
        return self.started and self._gpu_count() > 0

    def _gpus(self) -> list[Any]:
        """The GPUs that it has found, without making it look."""
        found = getattr(self._context, "_physical_devices", None) or []
        return [device for device in found if device.device_type == "GPU"]

    def _gpu_count(self) -> int:
        return len(self._gpus())

    # What it takes.

    def before_import(self, limit: Limit) -> None:
        """Let it grow, unless the user decided otherwise."""
        if limit.growth is not False:
            self.session.environment.put_default(_GROWTH, "true")

    def after_import(self, limit: Limit) -> None:  # noqa: ARG002 - the limit is read when the runtime starts
        """Watch for the start of its runtime, eager or by a session."""
        context_class = sys.modules["tensorflow.python.eager.context"].Context
        session_class = sys.modules["tensorflow.python.client.session"].BaseSession
        if not hasattr(context_class.ensure_initialized, "_jupyter_gpu"):
            context_class.ensure_initialized = _before_runtime(context_class.ensure_initialized, self)
        if not hasattr(session_class.__init__, "_jupyter_gpu"):
            session_class.__init__ = _with_limits(session_class.__init__, self)

    def settle(self, context: Any) -> None:
        """Set what is to hold, right before the runtime starts."""
        if getattr(context, "_context_handle", None) is not None:
            return
        try:
            self._set_devices(context, self.session.limit_for(self.name))
        except Exception as error:  # noqa: BLE001 - the user's computation goes on without the limit
            self.session.note(f"TensorFlow could not be limited when it started: {type(error).__name__}: {error}.")

    def _set_devices(self, context: Any, limit: Limit) -> None:
        if limit.cpu:
            context.set_visible_devices([], "GPU")
            return
        if limit.growth is not None:
            self.session.environment.put(_GROWTH, "true" if limit.growth else "false")
        for gpu in context.get_visible_devices("GPU"):
            growth = context.get_memory_growth(gpu)
            if growth is not None and limit.growth is None:
                # The variable would overrule what the user said in the program.
                self.session.environment.put(_GROWTH, "true" if growth else "false")
            amount = self._amount(gpu, limit)
            before = context.get_logical_device_configuration(gpu)
            if amount is None or (before is not None and self._ours.get(gpu.name) != _total(before)):
                continue
            context.set_logical_device_configuration(gpu, [self._logical_device(amount)])
            self._ours[gpu.name] = amount // _MIB

    def _logical_device(self, amount: int) -> Any:
        config = self.module.config
        kind = getattr(config, "LogicalDeviceConfiguration", None) or config.experimental.VirtualDeviceConfiguration
        return kind(memory_limit=max(1, amount // _MIB))

    def _amount(self, gpu: Any, limit: Limit) -> int | None:
        ordinal = _ordinal(gpu)
        if limit.fraction is not None:
            total = self.session.visible_total(ordinal)
            return None if total is None else int(total * limit.fraction)
        return limit.amounts.get(ordinal)

    def limit(self, limit: Limit) -> Outcome:
        """Set the limits, in the way that is still possible."""
        if limit.growth is not None:
            self.session.environment.put(_GROWTH, "true" if limit.growth else "false")
        what = self._said(limit)
        if not self.imported:
            return Outcome((self.not_imported(f"TensorFlow gets {what}"),))
        self.after_import(limit)
        if self.cuda_up():
            return self._cannot(what)
        if not self._executes_eagerly() or self._current_session() is not None:
            return self._reopen(limit, what)
        if self.started:
            return Outcome(
                (), (f"TensorFlow runs on the CPU in this process and sees no GPU, so {what} has no effect.",)
            )
        context = self._context
        if context is not None and getattr(context, "_physical_devices", None) is not None:
            # What the user configured until now gives way to what the user asks for now.
            for gpu in self._gpus():
                before = context.get_logical_device_configuration(gpu)
                if before is not None:
                    self._ours[gpu.name] = _total(before)
        return Outcome((f"TensorFlow gets {what} when its runtime starts, with the first operation.",))

    def _cannot(self, what: str) -> Outcome:
        return Outcome(
            (),
            (
                f"{_KEEPS}, and it has started: {what} can hold only after a restart (add --restart).",
                (
                    "What can still change now is the cap of the whole kernel (%gpu memory), beyond which an "
                    "allocation fails, and in graph mode the options of a new session that do not concern memory."
                ),
            ),
        )

    def _said(self, limit: Limit) -> str:
        if limit.cpu:
            return "no GPU"
        parts = []
        if limit.fraction is not None:
            parts.append(f"{limit.fraction:.0%} of each GPU")
        if limit.amounts:
            count = max(len(self.session.lease.devices()), 1)
            parts.append(
                sentence_list(
                    f"{readable_amount(amount)} on {self.session.label(ordinal)}"
                    for ordinal, amount in sorted(limit.amounts.items())
                    if ordinal < count
                )
            )
        if limit.growth is not None:
            parts.append("memory as it needs it" if limit.growth else "all of its memory at once")
        return ", ".join(parts) or "no limit of its own"

    # Graph mode.

    def _executes_eagerly(self) -> bool:
        executes = getattr(self.module, "executing_eagerly", None)
        return executes is None or bool(executes())

    def _current_session(self) -> Any:
        """The open session that the user works with: the default one, else the last that was opened and not closed."""
        default = self.module.compat.v1.get_default_session()
        if default is not None:
            return default
        alive = [each for each in self.sessions if not getattr(each, "_closed", True)]
        return alive[-1] if alive else None

    def _reopen(self, limit: Limit, what: str) -> Outcome:
        """Close the current session, and open one with the limit as the default and Keras session."""
        v1 = self.module.compat.v1
        old = self._current_session()
        config = v1.ConfigProto()
        graph = None
        if old is not None:
            config.CopyFrom(old._config)  # noqa: SLF001 - there is no public way to read it back
            graph = old.graph if old.graph is not v1.get_default_graph() else None
        options = config.gpu_options
        options.per_process_gpu_memory_fraction = 0
        options.ClearField("allow_growth")
        options.experimental.ClearField("virtual_devices")
        self.fill(config, limit)
        if old is not None:
            old.close()
        new = v1.InteractiveSession(graph=graph, config=config)
        # The options in it are ours by now, whoever wrote those before them.
        self._of_user.pop(new, None)
        done = [f"A new session is open and is the default; it gives TensorFlow {what}."]
        if old is not None:
            done.append("The session before it is closed: initialise its variables again.")
            renamed = self._rebind(old, new)
            if renamed:
                done.append(f"{sentence_list(renamed)} now {'names' if len(renamed) == 1 else 'name'} the new session.")
        if self._set_keras_session(new):
            done.append("It is Keras's session, too.")
        return Outcome(tuple(done))

    def _rebind(self, old: Any, new: Any) -> list[str]:
        names = getattr(self.session.shell, "user_ns", {})
        renamed = [
            name for name, value in names.items() if value is old and not name.startswith("_") and name.isidentifier()
        ]
        for name in renamed:
            names[name] = new
        return renamed

    def _set_keras_session(self, session: Any) -> bool:
        if not any(name in sys.modules for name in ("keras", "tf_keras", "tensorflow.python.keras")):
            return False
        try:
            self.module.compat.v1.keras.backend.set_session(session)
        except (AttributeError, ImportError):
            # Keras 3 has no sessions.
            return False
        return True

    def fill(self, config: Any, limit: Limit) -> None:
        """Write the limit into a ConfigProto where its author has said nothing of memory."""
        options = config.gpu_options
        if options.per_process_gpu_memory_fraction or any(
            virtual.memory_limit_mb for virtual in options.experimental.virtual_devices
        ):
            return
        if limit.cpu:
            config.device_count["GPU"] = 0
            return
        growth = self.session.environment.value(_GROWTH)
        if limit.growth or (limit.growth is None and growth is not None and growth.lower() == "true"):
            options.allow_growth = True
        if limit.fraction is not None:
            options.per_process_gpu_memory_fraction = limit.fraction
            return
        visible = [int(word) for word in options.visible_device_list.split(",") if word.strip().isdigit()]
        count = self._gpu_count() or len(self.session.lease.devices()) or (1 if limit.amounts else 0)
        ordinals = visible or list(range(count))
        if not any(ordinal in limit.amounts for ordinal in ordinals):
            return
        options.experimental.ClearField("virtual_devices")
        for ordinal in ordinals:
            entry = options.experimental.virtual_devices.add()
            if ordinal in limit.amounts:
                entry.memory_limit_mb.append(float(max(1, limit.amounts[ordinal] // _MIB)))

    # What it says.

    def holds(self) -> list[Holding]:
        """What eager execution holds. TensorFlow does not tell how much its pools have taken beyond that."""
        if not self.cuda_up():
            return []
        found = []
        for gpu in self._gpus():
            ordinal = _ordinal(gpu)
            try:
                info = self.module.config.experimental.get_memory_info(f"GPU:{ordinal}")
                found.append(
                    Holding(ordinal, info["current"], None, info["peak"], "TensorFlow does not tell what its pool took")
                )
            except Exception as error:  # noqa: BLE001 - a hidden GPU, or graph mode
                found.append(Holding(ordinal, None, None, None, f"TensorFlow does not tell: {error}"))
        return found

    def settings(self) -> list[Setting]:
        """The growth variable, the logical devices, and the live sessions' GPU options, as they stand."""
        found = self.setting_from_environment(_GROWTH, "TF_GPU_ALLOCATOR")
        context = self._context
        for gpu in self._gpus():
            configured = context.get_logical_device_configuration(gpu)
            if configured is not None:
                total = _total(configured)
                origin = BY_US if self._ours.get(gpu.name) == total else BY_YOU
                found.append(Setting(f"logical device GPU:{_ordinal(gpu)}", f"{total} MiB", origin))
            growth = context.get_memory_growth(gpu)
            if growth is not None:
                found.append(Setting(f"memory growth GPU:{_ordinal(gpu)}", "on" if growth else "off", BY_YOU))
        for each in self.sessions:
            if not getattr(each, "_closed", True):
                found.extend(_session_settings(each, self._of_user.get(each)))
        return found

    def free(self) -> Outcome:
        """Collect what nothing refers to. Its pools go back to the driver only with the process."""
        gc.collect()
        clear = getattr(self._context, "clear_kernel_cache", None)
        if clear is not None and self.started:
            clear()
        if not self.cuda_up():
            return Outcome()
        return Outcome((), (f"{_KEEPS}: what its pools took stays until the kernel restarts.",))

    def devices_changed(self) -> Outcome:
        """Count the devices again where the runtime has not started."""
        if self.started:
            return Outcome((), ("TensorFlow has started on the CPU and stays there until the kernel restarts.",))
        again = getattr(self._context, "reinitialize_physical_devices", None)
        if again is not None and getattr(self._context, "_physical_devices", None) is not None:
            again()
        return Outcome(("TensorFlow will see the new devices.",))

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """`--growth on|off`."""
        parser.add_argument(
            "--growth",
            choices=("on", "off"),
            help="take memory as it is needed (on), or all of the limit at once (off)",
        )

    def opened(self, session: Any, config: Any) -> None:
        """Note a session that has just been opened, and the ConfigProto that its author gave it."""
        self.sessions.add(session)
        if config is not None:
            self._of_user[session] = config


def _before_runtime(original: Any, framework: TensorFlow) -> Any:
    @functools.wraps(original)
    def ensure_initialized(self: Any) -> Any:
        if not self._initialized:
            framework.settle(self)
        return original(self)

    ensure_initialized._jupyter_gpu = True  # type: ignore[attr-defined]  # noqa: SLF001
    return ensure_initialized


def _with_limits(original: Any, framework: TensorFlow) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, target: Any = "", graph: Any = None, config: Any = None) -> None:  # noqa: N807
        original(self, target, graph, _limited(framework, config))
        framework.opened(self, config)

    __init__._jupyter_gpu = True  # type: ignore[attr-defined]  # noqa: SLF001
    return __init__


def _limited(framework: TensorFlow, config: Any) -> Any:
    """The ConfigProto for a new session: the caller's with the limit filled in, or TensorFlow's own with it."""
    try:
        v1 = framework.module.compat.v1
        context = sys.modules["tensorflow.python.eager.context"].context()
        # The session is about to count the devices in any case.
        context.list_physical_devices("GPU")
        if config is None:
            framework.settle(context)
            limited = context.config
        elif isinstance(config, v1.ConfigProto):
            limited = v1.ConfigProto()
            limited.CopyFrom(config)
        else:
            return config
        framework.fill(limited, framework.session.limit_for(framework.name))
    except Exception as error:  # noqa: BLE001 - the session opens as the user wrote it
        framework.session.note(f"A TensorFlow session could not be limited: {type(error).__name__}: {error}.")
        return config
    return limited


def _session_settings(session: Any, of_user: Any) -> list[Setting]:
    options = session._config.gpu_options  # noqa: SLF001 - there is no public way to read it back
    theirs = None if of_user is None else of_user.gpu_options
    found = []
    limits = [f"{limit:g} MiB" for each in options.experimental.virtual_devices for limit in each.memory_limit_mb]
    if limits:
        by_user = theirs is not None and any(each.memory_limit_mb for each in theirs.experimental.virtual_devices)
        found.append(Setting("session memory limit", sentence_list(limits), BY_YOU if by_user else BY_US))
    if options.per_process_gpu_memory_fraction:
        by_user = theirs is not None and bool(theirs.per_process_gpu_memory_fraction)
        value = f"{options.per_process_gpu_memory_fraction:g}"
        found.append(Setting("session memory fraction", value, BY_YOU if by_user else BY_US))
    if options.allow_growth:
        by_user = theirs is not None and theirs.allow_growth
        found.append(Setting("session growth", "on", BY_YOU if by_user else BY_US))
    return found


def _ordinal(gpu: Any) -> int:
    return int(gpu.name.rsplit(":", 1)[1])


def _total(configured: Any) -> int:
    """The MiB that a list of logical devices may take together."""
    return int(sum(device.memory_limit or 0 for device in configured))


FRAMEWORK = TensorFlow
