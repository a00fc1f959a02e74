/* The host's side of the interface: starting, versions, errors, and finding devices. */
#include "call.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

EXPORT nvmlReturn_t nvmlInit(void) {
    return start_library(__func__);
}

EXPORT nvmlReturn_t nvmlInit_v2(void) {
    return start_library(__func__);
}

EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    return start_library(__func__);
}

EXPORT nvmlReturn_t nvmlShutdown(void) {
    return stop_library();
}

EXPORT const char *nvmlErrorString(nvmlReturn_t result) {
    switch (result) {
    case NVML_SUCCESS:
        return "Success";
    case NVML_ERROR_UNINITIALIZED:
        return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT:
        return "Invalid Argument";
    case NVML_ERROR_NOT_SUPPORTED:
        return "Not Supported";
    case NVML_ERROR_NO_PERMISSION:
        return "Insufficient Permissions";
    case NVML_ERROR_NOT_FOUND:
        return "Not Found";
    case NVML_ERROR_INSUFFICIENT_SIZE:
        return "Insufficient Size";
    case NVML_ERROR_DRIVER_NOT_LOADED:
        return "Driver Not Loaded";
    case NVML_ERROR_GPU_IS_LOST:
        return "GPU is lost";
    default:
        return "Stand-in Error";
    }
}

static nvmlReturn_t write_text(char *target, unsigned int size, const char *text) {
    if (target == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(text) >= size)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(target, text);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int size) {
    const struct state *state;
    nvmlReturn_t result = begin_call(__func__, &state);
    if (result != NVML_SUCCESS)
        return result;
    return end_call_with(write_text(version, size, state->driver));
}

EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int size) {
    const struct state *state;
    nvmlReturn_t result = begin_call(__func__, &state);
    if (result != NVML_SUCCESS)
        return result;
    return end_call_with(write_text(version, size, state->library));
}

static nvmlReturn_t cuda_version(const char *function, int *version) {
    const struct state *state;
    nvmlReturn_t result = begin_call(function, &state);
    if (result != NVML_SUCCESS)
        return result;
    *version = state->cuda;
    return end_call_with(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
    return cuda_version(__func__, version);
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    return cuda_version(__func__, version);
}

EXPORT nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int size) {
    const struct state *state;
    char path[64], text[1024] = "";
    nvmlReturn_t result = begin_call(__func__, &state);
    if (result != NVML_SUCCESS)
        return result;
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    FILE *file = fopen(path, "re");
    size_t length = file == NULL ? 0 : fread(text, 1, sizeof text - 1, file);
    if (file != NULL)
        fclose(file);
    result = length == 0 ? NVML_ERROR_NOT_FOUND : write_text(name, size, text);
    return end_call_with(result);
}

static nvmlReturn_t device_count(const char *function, unsigned int *count) {
    const struct state *state;
    nvmlReturn_t result = begin_call(function, &state);
    if (result != NVML_SUCCESS)
        return result;
    *count = (unsigned int)state->gpu_count;
    return end_call_with(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceGetCount(unsigned int *count) {
    return device_count(__func__, count);
}

EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
    return device_count(__func__, count);
}

static nvmlReturn_t handle_by_index(const char *function, unsigned int index, nvmlDevice_t *handle) {
    const struct state *state;
    nvmlReturn_t result = begin_call(function, &state);
    if (result != NVML_SUCCESS)
        return result;
    result = index < state->gpu_count ? open_gpu(function, state, index, handle) : NVML_ERROR_INVALID_ARGUMENT;
    return end_call_with(result);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *handle) {
    return handle_by_index(__func__, index, handle);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *handle) {
    return handle_by_index(__func__, index, handle);
}

/* Finds a GPU or instance by the text that a UUID or PCI address holds. */
static nvmlReturn_t handle_by_text(const char *function, const char *text, bool pci, nvmlDevice_t *handle) {
    const struct state *state;
    nvmlReturn_t result = begin_call(function, &state);
    if (result != NVML_SUCCESS)
        return result;
    result = NVML_ERROR_NOT_FOUND;
    for (size_t i = 0; i < state->gpu_count && result == NVML_ERROR_NOT_FOUND; i++) {
        const struct device *gpu = &state->gpus[i];
        if (strcasecmp(pci ? gpu->pci : gpu->uuid, text) == 0)
            result = open_gpu(function, state, i, handle);
        for (size_t j = 0; !pci && j < gpu->instance_count && result == NVML_ERROR_NOT_FOUND; j++)
            if (strcmp(gpu->instances[j].uuid, text) == 0) {
                result = open_gpu(function, state, i, handle);
                if (result == NVML_SUCCESS)
                    *handle = instance_handle(*handle, &gpu->instances[j]);
            }
    }
    return end_call_with(result);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *handle) {
    return handle_by_text(__func__, uuid, false, handle);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUIDV(const nvmlUUID_t *uuid, nvmlDevice_t *handle) {
    return handle_by_text(__func__, uuid->text, false, handle);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *address, nvmlDevice_t *handle) {
    return handle_by_text(__func__, address, true, handle);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *address, nvmlDevice_t *handle) {
    return handle_by_text(__func__, address, true, handle);
}
