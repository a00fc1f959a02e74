"""The server extension: wires the parts into a Jupyter server."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING

from jupyter_server.extension.application import ExtensionApp
from traitlets import Bool, Type

from .host import GPUHost
from .kernelspecs import PROVISIONER, GPUKernelSpecManager
from .server.enforcement import GPUWatchdog
from .server.handlers import handlers
from .server.idle_policy import GPUIdlePolicy
from .server.kernel_events import GPUEvents
from .server.manager import GPUManager
from .server.metrics import GPUMetrics
from .server.overhead import GPUOverhead
from .server.socket import KernelSocket
from .usage.sampler import GPUSampler

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

    from .devices.device import Inventory

_INVENTORY_AGE_S = 30.0
"""After so long the kernel picker's devices are looked up again, in the background."""


_FIRST_LOOK_S, _FIRST_COMPILE_S = 0.1, 1.0
"""After the server's start. A launch that comes before does not wait for them: it has both done itself."""
_PENDING_STARTS_S = 5.0
"""How long the server's stop waits for starts that were given up to end."""
_DRIVER_CLOSES_S = 2.0
"""How long it waits for the driver to be let go of."""


class GPUExtension(ExtensionApp):
    """Every kernel with its own GPU.

    Loading it changes nothing on disk, blocks for no driver, and never keeps the server from starting.
    """

    name = "jupyter_gpu"
    app_name = "Jupyter GPU"
    description = "Launch every kernel with its own GPU and memory cap, and see who uses what."
    extension_url = "/lab"
    load_other_extensions = True
    handlers = handlers

    provision_all_kernels = Bool(
        True,
        help="""Start every kernel whose kernelspec names no provisioner of its own through the GPU provisioner. If
        false, only kernelspecs that name `gpu-provisioner` are.""",
    ).tag(config=True)

    kernel_spec_variants = Bool(
        True, help="Offer the GPU choices in the kernel picker, as variants of every kernelspec."
    ).tag(config=True)

    manager_class = Type(GPUManager, klass=GPUManager, help="What answers the REST API.").tag(config=True)

    classes = [  # noqa: RUF012 - traitlets' way
        GPUHost, GPUKernelSpecManager, GPUManager, GPUEvents, GPUIdlePolicy, GPUMetrics, GPUOverhead, GPUSampler,
        GPUWatchdog,
    ]  # fmt: skip

    def initialize_settings(self) -> None:
        """Make the parts and hand them to the server."""
        serverapp = self.serverapp
        assert serverapp is not None
        host = GPUHost.instance(parent=self)
        manager = self.manager_class(serverapp, host=host, parent=self)
        manager.provisioner_reason = self._route_kernels()
        self._manager = manager
        self._kernel_socket = KernelSocket(serverapp, manager=manager, parent=self)
        self._kernel_events = GPUEvents(
            host=host, sampler=manager.sampler, event_logger=serverapp.event_logger, parent=self
        )
        self._overhead = GPUOverhead(host=host, sampler=manager.sampler, parent=self)
        self._watchdog = GPUWatchdog(
            serverapp, overhead=self._overhead, host=host, sampler=manager.sampler, parent=self
        )
        manager.watchdog_reason = self._watchdog.reason
        self._idle_policy = GPUIdlePolicy(
            serverapp, host=host, sampler=manager.sampler, event_logger=serverapp.event_logger, parent=self
        )
        self._metrics = GPUMetrics(host=host, sampler=manager.sampler, parent=self)
        self.settings.update(gpu_manager=manager)
        serverapp.web_app.settings["gpu_manager"] = manager
        if self.kernel_spec_variants and manager.provisioner_reason is None:
            self._wrap_kernel_specs(host)

    async def _start_jupyter_server_extension(self, serverapp: ServerApp) -> None:  # noqa: ARG002 - the server's hook
        """Look at the devices once the server runs. The driver may take seconds to start; nobody waits for it."""
        host = GPUHost.instance()
        # A moment later, since whoever opens the page now should not wait for the driver and the compiler to start.
        loop = asyncio.get_running_loop()
        loop.call_later(_FIRST_LOOK_S, host.look_soon)
        loop.call_later(_FIRST_COMPILE_S, host.limits.prepare)
        self._kernel_socket.start()
        self._kernel_events.start()
        self._overhead.start()
        self._watchdog.start()
        self._idle_policy.start()
        self._metrics.start()

    async def stop_extension(self) -> None:
        """End what waits for a GPU, and let go of the driver. The server shuts its kernels down after this."""
        await self._kernel_socket.stop()
        self._kernel_events.stop()
        self._overhead.stop()
        self._watchdog.stop()
        self._idle_policy.stop()
        self._metrics.stop()
        self._manager.close()
        if not GPUHost.initialized():
            return
        host = GPUHost.instance()
        await host.stop_waiting()
        # A start that waited ends now. Were it still pending, the server's own shutdown would wait for it, or be given
        # a kernel that begins while the others end.
        pending = getattr(self.serverapp and self.serverapp.kernel_manager, "_pending_kernels", {})
        if pending:
            await asyncio.wait(list(pending.values()), timeout=_PENDING_STARTS_S)
        await host.close_within(_DRIVER_CLOSES_S)

    def _route_kernels(self) -> str | None:
        """Make ours the provisioner of every kernelspec that names none. Returns why not, if not."""
        from jupyter_client.provisioning.factory import KernelProvisionerFactory  # noqa: PLC0415

        serverapp = self.serverapp
        assert serverapp is not None
        if not self.provision_all_kernels:
            return "GPUExtension.provision_all_kernels is false; only kernelspecs that name gpu-provisioner use it"
        if serverapp.gateway_config.gateway_enabled:
            return "kernels run on a gateway, whose host has to provide their GPUs"
        factory = KernelProvisionerFactory.instance(parent=serverapp.kernel_manager)
        if factory.default_provisioner_name not in ("local-provisioner", PROVISIONER):
            return f"{factory.default_provisioner_name} is configured as the default kernel provisioner"
        if not factory._check_availability(PROVISIONER):  # noqa: SLF001 - there is no public way to ask
            return "the entry point gpu-provisioner is not installed; install jupyter-gpu again with pip"
        factory.default_provisioner_name = PROVISIONER
        return None

    def _wrap_kernel_specs(self, host: GPUHost) -> None:
        """Put the variants into whatever kernelspec manager the server has, for everybody who asks it."""
        serverapp = self.serverapp
        assert serverapp is not None
        wrapped = serverapp.kernel_spec_manager
        assert wrapped is not None
        if inspect.iscoroutinefunction(wrapped.get_all_specs):
            self.log.warning("%s is asynchronous: GPU choices are not in the kernel picker.", type(wrapped).__name__)
            return

        def inventory() -> Inventory | None:
            host.look_soon(older_than_s=_INVENTORY_AGE_S)
            return host.inventory

        manager = GPUKernelSpecManager(wrapped, inventory, parent=self)
        serverapp.kernel_spec_manager = manager
        serverapp.kernel_manager.kernel_spec_manager = manager
        # Not into the server's settings: these go there when `initialize_settings` has returned, over what is there.
        self.settings["kernel_spec_manager"] = manager
