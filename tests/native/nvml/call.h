/* What every call goes through: the wait, the log, the failures that are set, and the handle it was given. */
#ifndef NVML_CALL_H
#define NVML_CALL_H

#include "abi.h"
#include "state.h"

/* Begins a call that needs no device. On success the state is locked until end_call(); on failure it is not. */
nvmlReturn_t begin_call(const char *function, const struct state **state);

/* Begins a call about a device, the same way. */
nvmlReturn_t begin_device_call(const char *function, nvmlDevice_t handle, const struct device **device);

void end_call(void);

/* Ends a call that has begun, and returns the result. */
nvmlReturn_t end_call_with(nvmlReturn_t result);

/* Begins the calling function's call about a device, or returns from it with what went wrong. */
#define BEGIN(handle, device)                                                                                          \
    const struct device *device;                                                                                       \
    nvmlReturn_t begun = begin_device_call(__func__, handle, &device);                                                 \
    if (begun != NVML_SUCCESS)                                                                                         \
    return begun

/* The same for an instance's GPU; NULL for a GPU. */
const struct device *gpu_of(nvmlDevice_t handle);

/* The handles of a GPU and of its instance in a slot, good until the library is shut down; between begin and end. */
nvmlReturn_t open_gpu(const char *function, const struct state *state, size_t index, nvmlDevice_t *handle);
nvmlDevice_t instance_handle(nvmlDevice_t gpu, const struct device *instance);
nvmlDevice_t gpu_handle_of(nvmlDevice_t handle);
unsigned int gpu_index_of(nvmlDevice_t handle);

nvmlReturn_t start_library(const char *function);
nvmlReturn_t stop_library(void);

#endif
