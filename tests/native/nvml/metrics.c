/* What changes while a device runs, except its processes. An instance has memory of its own; the rest is its GPU's. */
#include "call.h"

#include <string.h>

/* Writes a figure that only whole GPUs have. */
static nvmlReturn_t end_with_gpu_figure(nvmlDevice_t handle, unsigned int *target, unsigned int value) {
    if (gpu_of(handle) != NULL)
        return end_call_with(NVML_ERROR_NOT_SUPPORTED);
    *target = value;
    return end_call_with(NVML_SUCCESS);
}

/* The first version knows no reserved bytes and counts them as used. */
EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t handle, nvmlMemory_t *memory) {
    BEGIN(handle, device);
    memory->total = device->memory_total;
    memory->used = device->memory_used + device->memory_reserved;
    memory->free = memory->total - memory->used;
    return end_call_with(NVML_SUCCESS);
}

#if NVML_SERIES >= 510
EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t handle, nvmlMemory_v2_t *memory) {
    BEGIN(handle, device);
    if (memory->version != STRUCT_VERSION(nvmlMemory_v2_t, 2))
        return end_call_with(NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    memory->total = device->memory_total;
    memory->reserved = device->memory_reserved;
    memory->used = device->memory_used;
    memory->free = memory->total - memory->reserved - memory->used;
    return end_call_with(NVML_SUCCESS);
}
#endif

EXPORT nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t handle, nvmlBAR1Memory_t *memory) {
    BEGIN(handle, device);
    memory->total = device->memory_total;
    memory->used = 1ULL << 20;
    memory->free = memory->total - memory->used;
    return end_call_with(NVML_SUCCESS);
}

#if NVML_SERIES >= 535
EXPORT nvmlReturn_t nvmlDeviceGetConfComputeMemSizeInfo(nvmlDevice_t handle, nvmlConfComputeMemSizeInfo_t *memory) {
    BEGIN(handle, device);
    memory->protected_kib = 0;
    memory->unprotected_kib = device->memory_total >> 10;
    return end_call_with(NVML_SUCCESS);
}
#endif

EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t handle, nvmlUtilization_t *utilization) {
    BEGIN(handle, device);
    if (gpu_of(handle) != NULL || device->mig_enabled)
        return end_call_with(NVML_ERROR_NOT_SUPPORTED);
    utilization->gpu = device->utilization;
    utilization->memory = device->memory_utilization;
    return end_call_with(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t handle, unsigned int *percent, unsigned int *period_us) {
    BEGIN(handle, device);
    (void)device;
    *period_us = 167000;
    return end_with_gpu_figure(handle, percent, 0);
}

EXPORT nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t handle, unsigned int *percent, unsigned int *period_us) {
    BEGIN(handle, device);
    (void)device;
    *period_us = 167000;
    return end_with_gpu_figure(handle, percent, 0);
}

EXPORT nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t handle, unsigned int sensor, unsigned int *celsius) {
    BEGIN(handle, device);
    (void)sensor;
    return end_with_gpu_figure(handle, celsius, device->temperature);
}

#if NVML_SERIES >= 550
EXPORT nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t handle, nvmlTemperature_t *temperature) {
    BEGIN(handle, device);
    if (temperature->version != STRUCT_VERSION(nvmlTemperature_t, 1))
        return end_call_with(NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    temperature->temperature = (int)device->temperature;
    return end_call_with(gpu_of(handle) == NULL ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED);
}
#endif

EXPORT nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t handle, unsigned int *milliwatts) {
    BEGIN(handle, device);
    return end_with_gpu_figure(handle, milliwatts, device->power_mw);
}

EXPORT nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t handle, unsigned int *milliwatts) {
    BEGIN(handle, device);
    return end_with_gpu_figure(handle, milliwatts, device->power_limit_mw);
}

EXPORT nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t handle, unsigned int *milliwatts) {
    BEGIN(handle, device);
    return end_with_gpu_figure(handle, milliwatts, device->power_limit_mw);
}

EXPORT nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t handle, unsigned long long *millijoules) {
    BEGIN(handle, device);
    *millijoules = device->power_mw;
    return end_call_with(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceGetFanSpeed(nvmlDevice_t handle, unsigned int *percent) {
    BEGIN(handle, device);
    (void)device, (void)percent;
    return end_call_with(NVML_ERROR_NOT_SUPPORTED);
}

EXPORT nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t handle, unsigned int type, unsigned int *mhz) {
    BEGIN(handle, device);
    (void)type, (void)device;
    return end_with_gpu_figure(handle, mhz, 1410);
}

EXPORT nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t handle, unsigned int type, unsigned int *mhz) {
    BEGIN(handle, device);
    (void)type, (void)device;
    return end_with_gpu_figure(handle, mhz, 1980);
}

EXPORT nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t handle, unsigned int *state) {
    BEGIN(handle, device);
    (void)device;
    return end_with_gpu_figure(handle, state, 0);
}

EXPORT nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t handle, unsigned int *enabled) {
    BEGIN(handle, device);
    (void)device;
    return end_with_gpu_figure(handle, enabled, 1);
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t handle, unsigned int *mode) {
    BEGIN(handle, device);
    (void)device;
    return end_with_gpu_figure(handle, mode, 0);
}

EXPORT nvmlReturn_t nvmlDeviceGetDisplayMode(nvmlDevice_t handle, unsigned int *enabled) {
    BEGIN(handle, device);
    (void)device;
    return end_with_gpu_figure(handle, enabled, 0);
}

EXPORT nvmlReturn_t nvmlDeviceGetDisplayActive(nvmlDevice_t handle, unsigned int *enabled) {
    BEGIN(handle, device);
    (void)device;
    return end_with_gpu_figure(handle, enabled, 0);
}

/* Windows has driver models. */
EXPORT nvmlReturn_t nvmlDeviceGetDriverModel_v2(nvmlDevice_t handle, unsigned int *current, unsigned int *pending) {
    BEGIN(handle, device);
    (void)device, (void)current, (void)pending;
    return end_call_with(NVML_ERROR_NOT_SUPPORTED);
}

EXPORT nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t handle, unsigned int type, unsigned int counter,
                                                unsigned long long *count) {
    BEGIN(handle, device);
    (void)device, (void)type, (void)counter;
    *count = 0;
    return end_call_with(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t handle, unsigned int counter, unsigned int *kib_per_s) {
    BEGIN(handle, device);
    (void)counter, (void)device;
    return end_with_gpu_figure(handle, kib_per_s, 1000);
}

EXPORT nvmlReturn_t nvmlDeviceGetMaxPcieLinkGeneration(nvmlDevice_t handle, unsigned int *link_generation) {
    BEGIN(handle, device);
    (void)device;
    return end_with_gpu_figure(handle, link_generation, 4);
}

EXPORT nvmlReturn_t nvmlDeviceGetMaxPcieLinkWidth(nvmlDevice_t handle, unsigned int *lanes) {
    BEGIN(handle, device);
    (void)device;
    return end_with_gpu_figure(handle, lanes, 16);
}

/* There are no links between the GPUs here. */
EXPORT nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t handle, unsigned int link, unsigned int *version) {
    BEGIN(handle, device);
    (void)link, (void)version, (void)device;
    return end_call_with(NVML_ERROR_NOT_SUPPORTED);
}

EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t handle, int count, nvmlFieldValue_t *values) {
    BEGIN(handle, device);
    (void)device;
    for (int i = 0; i < count; i++)
        values[i].result = NVML_ERROR_NOT_SUPPORTED;
    return end_call_with(NVML_SUCCESS);
}
