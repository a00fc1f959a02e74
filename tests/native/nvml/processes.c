/* Who runs on a device, in each of the layouts that drivers have used. */
#define _GNU_SOURCE
#include "call.h"

#include <string.h>
#include <time.h>

/* The driver's own buffer of utilisation samples; it asks for room for all of it. */
#define SAMPLES_KEPT 100

enum layout { PID_AND_MEMORY, WITH_INSTANCE, WITH_PROTECTED_MEMORY };

static const size_t entry_size[] = {
    [PID_AND_MEMORY] = sizeof(nvmlProcessInfo_v1_t),
    [WITH_INSTANCE] = sizeof(nvmlProcessInfo_v2_t),
    [WITH_PROTECTED_MEMORY] = sizeof(nvmlProcessDetail_t),
};

#if NVML_SERIES == 535
#define LAYOUT_V3 WITH_PROTECTED_MEMORY
#else
#define LAYOUT_V3 WITH_INSTANCE
#endif

static unsigned long long now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000;
}

/* The longest layout begins with the shorter ones, so a prefix of it is right for each. */
static void write_entry(const struct process *process, const struct device *instance, enum layout layout, void *entry) {
    nvmlProcessDetail_t detail = {process->pid, process->memory, NO_INSTANCE, NO_INSTANCE, NOT_AVAILABLE};
    nvmlProcessInfo_v2_t info = {process->pid, process->memory, NO_INSTANCE, NO_INSTANCE};
    if (instance != NULL) {
        info.gpu_instance = detail.gpu_instance = instance->gpu_instance;
        info.compute_instance = detail.compute_instance = instance->compute_instance;
    }
    memcpy(entry, layout == WITH_PROTECTED_MEMORY ? (void *)&detail : (void *)&info, entry_size[layout]);
}

/* Writes the processes of one kind on a device from `written` on, as far as there is room; returns how many there are. */
static unsigned int write_entries(const struct device *device, bool is_instance, enum process_kind kind,
                                  enum layout layout, unsigned int written, unsigned int room, char *entries) {
    for (size_t i = 0; i < device->process_count; i++) {
        if (device->processes[i].kind != kind)
            continue;
        if (entries != NULL && written < room)
            write_entry(&device->processes[i], is_instance ? device : NULL, layout, entries + written * entry_size[layout]);
        written++;
    }
    return written;
}

static nvmlReturn_t list(const char *function, nvmlDevice_t handle, enum process_kind kind, enum layout layout,
                         unsigned int *count, void *entries) {
    const struct device *device;
    nvmlReturn_t result = begin_device_call(function, handle, &device);
    if (result != NVML_SUCCESS)
        return result;
    unsigned int there = write_entries(device, gpu_of(handle) != NULL, kind, layout, 0, *count, entries);
    for (size_t i = 0; i < device->instance_count; i++)
        there = write_entries(&device->instances[i], true, kind, layout, there, *count, entries);
    result = there > (entries == NULL ? 0 : *count) ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
    *count = there;
    return end_call_with(result);
}

#define LIST(function, kind, layout)                                                                                   \
    EXPORT nvmlReturn_t function(nvmlDevice_t handle, unsigned int *count, void *entries) {                            \
        return list(#function, handle, kind, layout, count, entries);                                                  \
    }

LIST(nvmlDeviceGetComputeRunningProcesses, COMPUTE, PID_AND_MEMORY)
LIST(nvmlDeviceGetGraphicsRunningProcesses, GRAPHICS, PID_AND_MEMORY)
LIST(nvmlDeviceGetMPSComputeRunningProcesses, MPS, PID_AND_MEMORY)
#if NVML_SERIES >= 450
LIST(nvmlDeviceGetComputeRunningProcesses_v2, COMPUTE, WITH_INSTANCE)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, GRAPHICS, WITH_INSTANCE)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2, MPS, WITH_INSTANCE)
#endif
#if NVML_SERIES >= 510
LIST(nvmlDeviceGetComputeRunningProcesses_v3, COMPUTE, LAYOUT_V3)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, GRAPHICS, LAYOUT_V3)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, MPS, LAYOUT_V3)
#endif

#if NVML_SERIES >= 550
EXPORT nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t handle, nvmlProcessDetailList_t *details) {
    static const enum process_kind kinds[] = {COMPUTE, GRAPHICS, MPS};
    if (details->version != STRUCT_VERSION(nvmlProcessDetailList_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (details->mode > MPS)
        return NVML_ERROR_INVALID_ARGUMENT;
    return list(__func__, handle, kinds[details->mode], WITH_PROTECTED_MEMORY, &details->count, details->entries);
}
#endif

/* Only processes that did something since then have a sample. */
static bool has_sample(const struct process *process, unsigned long long since_us, unsigned long long *time_us) {
    *time_us = now_us() - process->age_us;
    return process->sampled && process->utilization > 0 && *time_us > since_us;
}

EXPORT nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t handle, nvmlProcessUtilizationSample_t *samples,
                                                    unsigned int *count, unsigned long long since_us) {
    const struct device *device;
    unsigned long long time_us;
    unsigned int written = 0;
    nvmlReturn_t result = begin_device_call(__func__, handle, &device);
    if (result != NVML_SUCCESS)
        return result;
    unsigned int needed = device->process_count > SAMPLES_KEPT ? (unsigned int)device->process_count : SAMPLES_KEPT;
    if (gpu_of(handle) != NULL || device->mig_enabled) {
        result = NVML_ERROR_NOT_SUPPORTED;
    } else if (samples == NULL || *count < needed) {
        *count = needed;
        result = NVML_ERROR_INSUFFICIENT_SIZE;
    } else {
        for (size_t i = 0; i < device->process_count; i++)
            if (has_sample(&device->processes[i], since_us, &time_us))
                samples[written++] = (nvmlProcessUtilizationSample_t){
                    .pid = device->processes[i].pid, .time_us = time_us, .sm = device->processes[i].utilization};
        *count = written;
        result = written == 0 ? NVML_ERROR_NOT_FOUND : NVML_SUCCESS;
    }
    return end_call_with(result);
}

#if NVML_SERIES >= 550
EXPORT nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t handle, nvmlProcessesUtilizationInfo_t *info) {
    const struct device *device;
    unsigned long long time_us;
    unsigned int written = 0;
    nvmlReturn_t result = begin_device_call(__func__, handle, &device);
    if (result != NVML_SUCCESS)
        return result;
    if (gpu_of(handle) != NULL || device->mig_enabled) {
        result = NVML_ERROR_NOT_SUPPORTED;
    } else if (info->entries == NULL || info->count < device->process_count) {
        info->count = (unsigned int)device->process_count;
        result = NVML_ERROR_INSUFFICIENT_SIZE;
    } else {
        for (size_t i = 0; i < device->process_count; i++)
            if (has_sample(&device->processes[i], info->last_seen_us, &time_us))
                info->entries[written++] = (nvmlProcessUtilizationInfo_t){
                    .pid = device->processes[i].pid, .time_us = time_us, .sm = device->processes[i].utilization};
        info->count = written;
        result = written == 0 ? NVML_ERROR_NOT_FOUND : NVML_SUCCESS;
    }
    return end_call_with(result);
}
#endif
