"""NVML's error codes: what each means for a person, and what it means for going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_gpu.devices.device import Problem

if TYPE_CHECKING:
    from jupyter_gpu.devices.device import Device

INVALID_ARGUMENT = 2
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
RESET_REQUIRED = 16

DRIVER_IS_GONE = frozenset({1, 9, LIBRARY_NOT_FOUND, 18})
"""Uninitialised (by somebody else in this process), not loaded, no library, versions that do not match: begin anew."""
DEVICE_IS_LOST = frozenset({GPU_IS_LOST, RESET_REQUIRED})
HANDLE_IS_INVALID = frozenset({INVALID_ARGUMENT, NOT_FOUND})
"""The device was opened before a restart of NVML, or is a MIG instance that no longer exists."""
UNSUPPORTED = frozenset({NOT_SUPPORTED, FUNCTION_NOT_FOUND, 25, 26})
"""Not supported, unknown to this driver, another version of the argument expected, or deprecated: ask no more."""


class NVMLFailureError(Exception):
    """A failure that concerns more than the figure that was asked for; `code` is NVML's."""

    def __init__(self, code: int) -> None:
        super().__init__(f"NVML error {code}")
        self.code = code


class DriverGoneError(NVMLFailureError):
    """The driver as a whole does not answer."""


class DeviceLostError(NVMLFailureError):
    """This GPU does not answer."""


class HandleInvalidError(NVMLFailureError):
    """The driver does not know the device by this handle (any more)."""


def failure(code: int) -> NVMLFailureError | None:
    """The failure that a code stands for; `None` if it only concerns the figure that was asked for."""
    if code in DRIVER_IS_GONE:
        return DriverGoneError(code)
    if code in DEVICE_IS_LOST:
        return DeviceLostError(code)
    return None


_DRIVER_PROBLEMS = {
    1: (
        "driver-failed",
        "The NVIDIA driver's library (NVML) could not be initialised.",
        "Run nvidia-smi: if it fails too, restart the machine or reinstall the driver.",
    ),
    NO_PERMISSION: (
        "no-permission",
        "This user may not talk to the NVIDIA driver.",
        "Ask for access to /dev/nvidiactl and /dev/nvidia*, often by membership in the group video or render.",
    ),
    9: (
        "driver-not-loaded",
        "The NVIDIA driver's library is installed, but its kernel module is not loaded.",
        "Load it (sudo modprobe nvidia) or restart the machine; in a container, start it with the GPUs (--gpus all).",
    ),
    LIBRARY_NOT_FOUND: (
        "driver-missing",
        "The NVIDIA driver's library libnvidia-ml.so.1 was not found.",
        "Install the NVIDIA driver, start the container with its GPUs, or set JUPYTER_GPU_SIMULATE to try without one.",
    ),
    FUNCTION_NOT_FOUND: (
        "driver-too-old",
        "The NVIDIA driver is too old: its library lacks a function that every driver of recent years has.",
        "Install a driver of the 450 series or newer.",
    ),
    GPU_IS_LOST: (
        "device-lost",
        "A GPU fell off the bus, and the NVIDIA driver does not start because of it.",
        "Look for Xid messages in the kernel's log (dmesg) and restart the machine.",
    ),
    17: (
        "no-permission",
        "The operating system keeps this process from the NVIDIA devices.",
        "Check the container's or the job's device rules (cgroups) for /dev/nvidia*.",
    ),
    18: (
        "driver-mismatch",
        "The NVIDIA driver's library and its kernel module are of different versions, as after an upgrade.",
        "Restart the machine or reload the nvidia kernel modules, then restart the Jupyter server.",
    ),
}

PYNVML_MISSING = Problem(
    "pynvml-missing",
    "The Python package nvidia-ml-py, which talks to the NVIDIA driver, cannot be imported.",
    "Install it into the Jupyter server's environment: pip install nvidia-ml-py.",
)

NO_DEVICES = Problem(
    "no-devices",
    "The NVIDIA driver works but shows no GPU.",
    "Check nvidia-smi; in a container or job, check that GPUs were assigned to it.",
)


def driver_problem(code: int) -> Problem:
    """What stands in the way when NVML as a whole answers this code."""
    known = _DRIVER_PROBLEMS.get(code)
    if known is not None:
        return Problem(*known)
    return Problem(
        "driver-failed",
        f"The NVIDIA driver failed: {text(code)} (NVML error {code}).",
        "Run nvidia-smi and look for messages of the driver in the kernel's log (dmesg).",
    )


def device_problem(code: int, who: str) -> Problem:
    """What stands in the way of one GPU or several; `who` names them, as in `GPU 3` or `GPUs 3 and 4`."""
    are = "are" if who.startswith("GPUs ") else "is"
    if code == NO_PERMISSION:
        return Problem(
            "no-permission",
            f"{who} {are} there, but this user or job may not use {'them' if are == 'are' else 'it'}.",
            "If that is not intended, check the permissions of /dev/nvidia* and the job's or container's device rules.",
        )
    if code == GPU_IS_LOST:
        return Problem(
            "device-lost",
            f"{who} {are} lost: the driver gets no answer any more.",
            "Look for Xid messages in the kernel's log (dmesg); a reset of the GPU or a restart may bring it back.",
        )
    if code == RESET_REQUIRED:
        return Problem(
            "device-reset-required",
            f"{who} {are} out of order until reset.",
            "End all that use it, the Jupyter server included, and run nvidia-smi --gpu-reset, or restart the machine.",
        )
    return Problem(
        "device-failed",
        f"{who} cannot be read: {text(code)} (NVML error {code}).",
        "Run nvidia-smi and look for messages of the driver in the kernel's log (dmesg).",
    )


def missing_problem(device: Device) -> Problem:
    """What is to be said of a GPU that the driver does not list any more."""
    return Problem(
        "device-lost",
        f"{device.name} ({device.uuid}), which was GPU {device.index}, is not there any more.",
        "If nobody removed it, look for Xid messages in the kernel's log (dmesg) and restart the machine.",
    )


_REASONS = {
    INVALID_ARGUMENT: "the driver does not know this device any more",
    NOT_SUPPORTED: "the driver does not support it for this device",
    NO_PERMISSION: "the driver tells it to administrators only",
    NOT_FOUND: "the driver has nothing to tell about it",
    7: "the driver's answer did not fit",
    8: "the GPU's power cables are not attached properly",
    10: "the driver did not answer in time",
    11: "the GPU's interrupts do not arrive",
    FUNCTION_NOT_FOUND: "this driver has no function for it",
    14: "the GPU's information store is corrupted",
    GPU_IS_LOST: "the GPU is lost",
    RESET_REQUIRED: "the GPU must be reset first",
    17: "the operating system blocks it",
    19: "the GPU is in use by somebody who keeps others out",
    20: "the driver ran out of memory",
    21: "the driver has no data yet",
    25: "this driver expects another form of the question",
    26: "this driver does not answer it any more",
    27: "the GPU is not ready yet",
    999: "the driver gave no reason",
}

_UNSUPPORTED_REASONS = {
    "memory use": "The driver tells no memory figures, as for GPUs that share the host's memory.",
    "utilisation by process": "The driver does not measure utilisation by process on this device.",
}


def text(code: int) -> str:
    """What a code means, as part of a sentence."""
    return _REASONS.get(code, "an error that is not in the driver's documentation")


def reason(metric: str, code: int) -> str:
    """Why a figure is unknown, one sentence."""
    if code == NOT_SUPPORTED and metric in _UNSUPPORTED_REASONS:
        return _UNSUPPORTED_REASONS[metric]
    return f"The {metric} is unknown: {text(code)}."


def silence(code: int) -> str:
    """Why nothing is known of a device, one sentence."""
    return f"The device does not answer: {text(code)}."
