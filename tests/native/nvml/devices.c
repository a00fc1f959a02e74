/* What does not change while a device runs: its names, its place, and its division into MIG instances. */
#include "call.h"

#include <stdio.h>
#include <string.h>

static nvmlReturn_t end_with_text(char *target, unsigned int size, const char *text) {
    size_t needed = strlen(text) + 1;
    if (needed <= size)
        memcpy(target, text, needed);
    return end_call_with(needed > size ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS);
}

static nvmlReturn_t end_with_number(unsigned int *target, unsigned int value) {
    *target = value;
    return end_call_with(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t handle, unsigned int *index) {
    BEGIN(handle, device);
    return end_with_number(index, gpu_of(handle) == NULL ? gpu_index_of(handle) : device->slot);
}

EXPORT nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t handle, unsigned int *minor) {
    BEGIN(handle, device);
    (void)device;
    return end_with_number(minor, gpu_index_of(handle));
}

EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t handle, char *uuid, unsigned int size) {
    BEGIN(handle, device);
    return end_with_text(uuid, size, device->uuid);
}

EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t handle, char *name, unsigned int size) {
    BEGIN(handle, device);
    return end_with_text(name, size, device->name);
}

EXPORT nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t handle, char *serial, unsigned int size) {
    BEGIN(handle, device);
    (void)serial, (void)size, (void)device;
    return end_call_with(NVML_ERROR_NOT_SUPPORTED);
}

EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t handle, int *major, int *minor) {
    BEGIN(handle, device);
    const struct device *gpu = gpu_of(handle) == NULL ? device : gpu_of(handle);
    *major = (int)gpu->capability_major;
    *minor = (int)gpu->capability_minor;
    return end_call_with(NVML_SUCCESS);
}

static void write_pci_info(const struct device *gpu, nvmlPciInfo_t *info) {
    memset(info, 0, sizeof *info);
    sscanf(gpu->pci, "%x:%x:%x", &info->domain, &info->bus, &info->device);
    snprintf(info->bus_id, sizeof info->bus_id, "%.31s", gpu->pci);
    snprintf(info->bus_id_legacy, sizeof info->bus_id_legacy, "%04X:%02X:%02X.0", info->domain & 0xFFFF,
             info->bus & 0xFF, info->device & 0xFF);
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t handle, nvmlPciInfo_t *info) {
    BEGIN(handle, device);
    write_pci_info(gpu_of(handle) == NULL ? device : gpu_of(handle), info);
    return end_call_with(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t handle, nvmlPciInfo_t *info) {
    BEGIN(handle, device);
    write_pci_info(gpu_of(handle) == NULL ? device : gpu_of(handle), info);
    return end_call_with(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t handle, nvmlPciInfo_t *info) {
    BEGIN(handle, device);
    write_pci_info(gpu_of(handle) == NULL ? device : gpu_of(handle), info);
    return end_call_with(NVML_SUCCESS);
}

#if NVML_SERIES >= 450

EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t handle, unsigned int *current, unsigned int *pending) {
    BEGIN(handle, device);
    if (!device->mig_capable)
        return end_call_with(NVML_ERROR_NOT_SUPPORTED);
    *current = *pending = device->mig_enabled;
    return end_call_with(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t handle, unsigned int *count) {
    BEGIN(handle, device);
    return end_with_number(count, device->mig_capable ? 7 : 0);
}

EXPORT nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t handle, unsigned int index, nvmlDevice_t *mig) {
    BEGIN(handle, device);
    for (size_t i = 0; device->mig_enabled && i < device->instance_count; i++)
        if (device->instances[i].slot == index) {
            *mig = instance_handle(handle, &device->instances[i]);
            return end_call_with(NVML_SUCCESS);
        }
    return end_call_with(device->mig_enabled ? NVML_ERROR_NOT_FOUND : NVML_ERROR_NOT_SUPPORTED);
}

EXPORT nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *handle) {
    BEGIN(mig, device);
    (void)device;
    if (gpu_of(mig) == NULL)
        return end_call_with(NVML_ERROR_INVALID_ARGUMENT);
    *handle = gpu_handle_of(mig);
    return end_call_with(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t handle, unsigned int *is_mig) {
    BEGIN(handle, device);
    (void)device;
    return end_with_number(is_mig, gpu_of(handle) != NULL);
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t handle, unsigned int *id) {
    BEGIN(handle, device);
    if (gpu_of(handle) == NULL)
        return end_call_with(NVML_ERROR_NOT_SUPPORTED);
    return end_with_number(id, device->gpu_instance);
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t handle, unsigned int *id) {
    BEGIN(handle, device);
    if (gpu_of(handle) == NULL)
        return end_call_with(NVML_ERROR_NOT_SUPPORTED);
    return end_with_number(id, device->compute_instance);
}

EXPORT nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t handle, nvmlDeviceAttributes_t *attributes) {
    BEGIN(handle, device);
    if (gpu_of(handle) == NULL)
        return end_call_with(NVML_ERROR_NOT_SUPPORTED);
    memset(attributes, 0, sizeof *attributes);
    attributes->gpu_instance_slices = device->gpu_slices;
    attributes->compute_instance_slices = device->compute_slices;
    attributes->memory_mib = device->memory_total >> 20;
    return end_call_with(NVML_SUCCESS);
}

#endif
