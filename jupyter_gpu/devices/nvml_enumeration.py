"""Which GPUs and MIG instances the driver shows, kept up to date with few calls."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jupyter_gpu.devices.device import Device, Inventory
from jupyter_gpu.devices.nvml_device import NVMLDevice, address_of
from jupyter_gpu.devices.nvml_errors import (
    DEVICE_IS_LOST,
    NO_DEVICES,
    UNSUPPORTED,
    DeviceLostError,
    DriverGoneError,
    HandleInvalidError,
    device_problem,
    failure,
    missing_problem,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jupyter_gpu.devices.nvml_library import NVMLLibrary


class NVMLEnumeration:
    """The devices of one initialisation of the driver.

    What never changes (name, address, capability of a GPU) is asked once and taken over from the enumeration before,
    by UUID.
    """

    def __init__(self, library: NVMLLibrary, former: NVMLEnumeration | None = None) -> None:
        self.devices: dict[str, NVMLDevice] = {}
        """By UUID, in index order, each GPU followed by its instances."""
        self.inventory = Inventory()
        self.library = library
        self._nvml = library.nvml
        self.facts: dict[str, Device] = dict(former.facts) if former else {}
        """What never changes of each GPU, by UUID."""
        self._former: tuple[Device, ...] = former.seen() if former else ()
        self._missing: dict[str, Device] = dict(former._missing) if former else {}  # noqa: SLF001 - the same class
        """GPUs that were there once, by UUID."""
        self._gpus: dict[int, NVMLDevice] = {}
        self._most_instances: dict[str, int] = {}
        """How many instances a GPU can have at most; 0 where it cannot be divided."""

    @property
    def any_lost(self) -> bool:
        """Whether a GPU does not answer, so that only a new initialisation can bring it back."""
        return any(device.lost is not None for device in self.devices.values()) or any(
            problem.code in {"device-lost", "device-reset-required", "device-failed"}
            for problem in self.inventory.problems
        )

    def refresh(self) -> Inventory:
        """Look what is there now.

        Raises:
            DriverGoneError: The driver as a whole does not answer.
        """
        count = self._count()
        devices: dict[str, NVMLDevice] = {}
        gpus: dict[int, NVMLDevice] = {}
        troubles: defaultdict[int, list[str]] = defaultdict(list)
        for index in range(count):
            try:
                gpu = self._gpu(index, count)
            except self.library.Error as error:
                self._raise_if_gone(error)
                troubles[_code(error)].append(str(index))
                continue
            except DeviceLostError as lost:
                troubles[lost.code].append(str(index))
                continue
            gpus[index] = devices[gpu.device.uuid] = gpu
            if gpu.lost is not None:
                troubles[gpu.lost].append(f"{index} ({gpu.device.name}, {gpu.device.uuid})")
                self._keep_instances(gpu, devices)
            else:
                devices.update((instance.device.uuid, instance) for instance in self._instances(gpu))
        self._note_missing(devices, all_read=len(gpus) == count)
        self.devices, self._gpus = devices, gpus
        problems = [missing_problem(device) for device in self._missing.values()]
        problems += [device_problem(code, _named(who)) for code, who in sorted(troubles.items())]
        if count == 0:
            problems.append(NO_DEVICES)
        self.inventory = Inventory(
            devices=tuple(known.device for known in devices.values()),
            problems=tuple(problems),
            driver_version=self.library.driver_version,
            cuda_version=self.library.cuda_version,
        )
        return self.inventory

    def instances_of(self, uuid: str) -> list[NVMLDevice]:
        """The MIG instances of a GPU."""
        return [known for known in self.devices.values() if known.device.parent_uuid == uuid]

    def seen(self) -> tuple[Device, ...]:
        """The devices as they were seen last, in this enumeration or the one before."""
        return tuple(known.device for known in self.devices.values()) or self._former

    def _gpu(self, index: int, count: int) -> NVMLDevice:
        """The GPU of an index: the known one while its handle stays the same and its MIG mode too."""
        known = self._gpus.get(index)
        try:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            if known is None or known.address != address_of(handle):
                known = self._new_gpu(index, handle)
            elif known.lost is not None or known.device.memory_bytes is None:
                self._measured(known)
                known.lost = None
            mig_enabled = self._mig_enabled(known.device.uuid, handle)
        except (self.library.Error, DeviceLostError) as error:
            code = _code(error)
            if code not in DEVICE_IS_LOST:
                raise
            return self._lost_gpu(index, count, code, error)
        if known.device.mig_enabled != mig_enabled:
            # The MIG mode decides what the driver supports, so begin to ask anew.
            return NVMLDevice(self.library, handle, replace(known.device, mig_enabled=mig_enabled))
        return known

    def _note_missing(self, devices: Mapping[str, NVMLDevice], *, all_read: bool) -> None:
        for device in self.seen():
            # While an index cannot be read, the GPU may be behind that.
            if all_read and not device.is_mig and device.uuid not in devices:
                self._missing[device.uuid] = device
        for uuid in self._missing.keys() & devices.keys():
            del self._missing[uuid]

    def _lost_gpu(self, index: int, count: int, code: int, error: Exception) -> NVMLDevice:
        known = self._gpus.get(index)
        if known is None:
            former = [device for device in self._former if not device.is_mig]
            # With another number of GPUs an index may mean another GPU than before.
            if len(former) != count or former[index].index != str(index):
                raise error
            known = NVMLDevice(self.library, None, former[index])
        known.lost = code
        return known

    def _new_gpu(self, index: int, handle: Any) -> NVMLDevice:
        uuid = self._nvml.nvmlDeviceGetUUID(handle)
        if uuid not in self.facts:
            self.facts[uuid] = Device(
                uuid=uuid,
                index=str(index),
                name=self._fact(self._nvml.nvmlDeviceGetName, handle) or "NVIDIA GPU",
                memory_bytes=None,
                pci_address=self._pci_address(handle),
                compute_capability=self._fact(self._nvml.nvmlDeviceGetCudaComputeCapability, handle),
            )
        return self._measured(NVMLDevice(self.library, handle, replace(self.facts[uuid], index=str(index))))

    def _measured(self, known: NVMLDevice) -> NVMLDevice:
        """The device with the size of its memory, or without where the driver does not tell."""
        try:
            memory = known.memory()
        except HandleInvalidError:
            return known
        if memory is not None:
            # What the driver keeps for itself nobody can be given. Drivers that do not tell it apart count it as used.
            usable = memory.total - getattr(memory, "reserved", 0)
            if usable != known.device.memory_bytes:
                known.device = replace(known.device, memory_bytes=usable)
        return known

    def _mig_enabled(self, uuid: str, handle: Any) -> bool:
        if self._most_instances.get(uuid) == 0:
            return False
        try:
            current, _ = self._nvml.nvmlDeviceGetMigMode(handle)
            if uuid not in self._most_instances:
                self._most_instances[uuid] = self._nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
        except self.library.Error as error:
            if _code(error) not in UNSUPPORTED:
                raise
            self._most_instances[uuid] = 0
            return False
        return bool(current)

    def _keep_instances(self, gpu: NVMLDevice, devices: dict[str, NVMLDevice]) -> None:
        instances = self.instances_of(gpu.device.uuid) or [
            NVMLDevice(self.library, None, device) for device in self._former if device.parent_uuid == gpu.device.uuid
        ]
        for instance in instances:
            instance.lost = gpu.lost
            devices[instance.device.uuid] = instance

    def _instances(self, gpu: NVMLDevice) -> Iterator[NVMLDevice]:
        if not gpu.device.mig_enabled:
            return
        for slot in range(self._most_instances[gpu.device.uuid]):
            try:
                handle = self._nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu.handle, slot)
                instance = self._instance(gpu.device, slot, handle)
            except self.library.Error as error:
                self._raise_if_gone(error)
                continue
            except DeviceLostError:
                continue
            yield instance

    def _instance(self, gpu: Device, slot: int, handle: Any) -> NVMLDevice:
        uuid = self._nvml.nvmlDeviceGetUUID(handle)
        index = f"{gpu.index}.{slot}"
        known = self.devices.get(uuid)
        if known is not None and known.address == address_of(handle) and known.device.index == index:
            memory_bytes = known.device.memory_bytes
            # A GPU that is divided anew may have another instance under the same handle and UUID.
            if self._measured(known).device.memory_bytes == memory_bytes:
                known.lost = None
                return known
        device = Device(
            uuid=uuid,
            index=index,
            name=self._instance_name(gpu, handle),
            memory_bytes=None,
            pci_address=gpu.pci_address,
            compute_capability=gpu.compute_capability,
            parent_uuid=gpu.uuid,
        )
        return self._measured(NVMLDevice(self.library, handle, device))

    def _instance_name(self, gpu: Device, handle: Any) -> str:
        """As newer drivers name it, `NVIDIA A100-SXM4-40GB MIG 1g.5gb`; put together for those that do not."""
        name = self._fact(self._nvml.nvmlDeviceGetName, handle)
        if name and " MIG " in name:
            return str(name)
        sizes = self._fact(self._nvml.nvmlDeviceGetAttributes_v2, handle)
        if sizes is None:
            return f"{gpu.name} MIG"
        compute, slices = sizes.computeInstanceSliceCount, sizes.gpuInstanceSliceCount
        part = "" if compute == slices else f"{compute}c."
        return f"{gpu.name} MIG {part}{slices}g.{round(sizes.memorySizeMB / 1024)}gb"

    def _pci_address(self, handle: Any) -> str | None:
        info = self._fact(self._nvml.nvmlDeviceGetPciInfo_v3, handle)
        if info is None:
            return None
        # pynvml decodes it or not, by its version.
        return info.busId if isinstance(info.busId, str) else info.busId.decode("ascii", "replace")

    def _fact(self, call: Any, handle: Any) -> Any:
        """The driver's answer, or `None` where it has none or one that is no text."""
        try:
            return call(handle)
        except UnicodeDecodeError:
            return None
        except self.library.Error as error:
            if _code(error) in DEVICE_IS_LOST:
                raise
            self._raise_if_gone(error)
            return None

    def _count(self) -> int:
        try:
            return int(self._nvml.nvmlDeviceGetCount())
        except self.library.Error as error:
            raise DriverGoneError(_code(error)) from error

    def _raise_if_gone(self, error: Exception) -> None:
        severe = failure(_code(error))
        if severe is not None and not isinstance(severe, DeviceLostError):
            raise severe from error


def _code(error: Exception) -> int:
    code: int = getattr(error, "code", 0) or getattr(error, "value", 0)
    return code


def _named(who: list[str]) -> str:
    if len(who) == 1:
        return f"GPU {who[0]}"
    return f"GPUs {', '.join(who[:-1])} and {who[-1]}"
