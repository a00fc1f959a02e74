#define _GNU_SOURCE
#include "call.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* nvmlDeviceGetPcieThroughput measures for this long, as its reference says. */
#define PCIE_MEASUREMENT_US 20000

/* A handle is three numbers: which initialisation gave it out, the GPU counted from 1, and the instance's slot
 * counted from 1 (0 for the GPU itself). So a handle that outlived its initialisation is noticed. */
#define HANDLE(generation, gpu, slot) ((nvmlDevice_t)(((uintptr_t)(generation) << 16) | ((gpu) << 8) | (slot)))
#define GENERATION_OF(handle) ((unsigned int)((uintptr_t)(handle) >> 16))
#define GPU_OF(handle) ((size_t)((uintptr_t)(handle) >> 8 & 0xFF))
#define SLOT_OF(handle) ((size_t)((uintptr_t)(handle) & 0xFF))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* The state as it was read last; reading it again in the middle of a call would pull the device from under it. */
static const struct state *shown;
static unsigned int references;
static unsigned int generation;
/* The initialisation during which a GPU was lost for good, by index. */
static unsigned int lost_in[MOST_GPUS];

static void wait_us(long duration_us, bool spin) {
    struct timespec duration = {duration_us / 1000000, duration_us % 1000000 * 1000}, start, now;
    if (duration_us <= 0)
        return;
    if (!spin) {
        while (nanosleep(&duration, &duration) != 0)
            continue;
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - start.tv_sec) * 1000000 + (now.tv_nsec - start.tv_nsec) / 1000 < duration_us);
}

static const struct device *find_device(const struct state *state, nvmlDevice_t handle) {
    size_t gpu = GPU_OF(handle), slot = SLOT_OF(handle);
    if (GENERATION_OF(handle) != generation || gpu == 0 || gpu > state->gpu_count)
        return NULL;
    const struct device *device = &state->gpus[gpu - 1];
    if (slot == 0)
        return device;
    for (size_t i = 0; device->mig_enabled && i < device->instance_count; i++)
        if (device->instances[i].slot == slot - 1)
            return &device->instances[i];
    return NULL;
}

static void log_call(const struct state *state, const char *function, const struct device *device) {
    char line[2 * TEXT];
    if (state->log < 0)
        return;
    int length = snprintf(line, sizeof line, "%s %s\n", function, device == NULL ? "-" : device->uuid);
    ssize_t written = write(state->log, line, (size_t)length);
    (void)written;
}

static bool is_lost(const struct state *state, size_t index) {
    if (state->gpus[index].loss == LOST_UNTIL_INIT)
        lost_in[index] = generation;
    return state->gpus[index].loss != PRESENT || lost_in[index] == generation;
}

/* Waits as long as the call is set to take and locks the state again. */
static const struct state *enter(const char *function, nvmlDevice_t handle) {
    pthread_mutex_lock(&lock);
    const struct state *state = shown = current_state();
    const struct device *device = handle == NULL ? NULL : find_device(state, handle);
    long latency_us = device == NULL ? -1 : latency_of(&device->behaviours, function);
    if (latency_us < 0)
        latency_us = latency_of(&state->behaviours, function);
    if (latency_us < 0)
        latency_us = strcmp(function, "nvmlDeviceGetPcieThroughput") == 0 ? PCIE_MEASUREMENT_US : state->latency_us;
    bool spin = state->spin;
    log_call(state, function, device);
    pthread_mutex_unlock(&lock);
    wait_us(latency_us, spin);
    pthread_mutex_lock(&lock);
    return state;
}

static nvmlReturn_t leave(nvmlReturn_t result) {
    if (result != NVML_SUCCESS)
        pthread_mutex_unlock(&lock);
    return result;
}

static nvmlReturn_t host_failure(const struct state *state, const char *function) {
    if (references == 0)
        return NVML_ERROR_UNINITIALIZED;
    return state->broken != 0 ? state->broken : failure_of(&state->behaviours, function);
}

static nvmlReturn_t device_failure(const struct state *state, const char *function, size_t index,
                                   const struct device *device) {
    if (is_lost(state, index))
        return NVML_ERROR_GPU_IS_LOST;
    return failure_of(&device->behaviours, function);
}

nvmlReturn_t begin_call(const char *function, const struct state **state) {
    *state = enter(function, NULL);
    return leave(host_failure(*state, function));
}

nvmlReturn_t begin_device_call(const char *function, nvmlDevice_t handle, const struct device **device) {
    const struct state *state = enter(function, handle);
    nvmlReturn_t result = host_failure(state, function);
    *device = find_device(state, handle);
    if (result == NVML_SUCCESS && *device == NULL)
        result = NVML_ERROR_INVALID_ARGUMENT;
    if (result == NVML_SUCCESS)
        result = device_failure(state, function, GPU_OF(handle) - 1, *device);
    return leave(result);
}

void end_call(void) {
    pthread_mutex_unlock(&lock);
}

nvmlReturn_t end_call_with(nvmlReturn_t result) {
    end_call();
    return result;
}

const struct device *gpu_of(nvmlDevice_t handle) {
    return SLOT_OF(handle) == 0 ? NULL : &shown->gpus[GPU_OF(handle) - 1];
}

nvmlReturn_t open_gpu(const char *function, const struct state *state, size_t index, nvmlDevice_t *handle) {
    nvmlReturn_t result = device_failure(state, function, index, &state->gpus[index]);
    if (result == NVML_SUCCESS)
        *handle = HANDLE(generation, index + 1, 0);
    return result;
}

nvmlDevice_t instance_handle(nvmlDevice_t gpu, const struct device *instance) {
    return HANDLE(generation, GPU_OF(gpu), (size_t)instance->slot + 1);
}

nvmlDevice_t gpu_handle_of(nvmlDevice_t handle) {
    return HANDLE(generation, GPU_OF(handle), 0);
}

unsigned int gpu_index_of(nvmlDevice_t handle) {
    return (unsigned int)GPU_OF(handle) - 1;
}

nvmlReturn_t start_library(const char *function) {
    const struct state *state = enter(function, NULL);
    nvmlReturn_t result = state->broken != 0 ? state->broken : failure_of(&state->behaviours, function);
    if (result == NVML_SUCCESS && references++ == 0)
        generation++;
    pthread_mutex_unlock(&lock);
    return result;
}

/* Letting go works without a driver too: its reference names no error for that. */
nvmlReturn_t stop_library(void) {
    const struct state *state = enter("nvmlShutdown", NULL);
    nvmlReturn_t result = references == 0 ? NVML_ERROR_UNINITIALIZED : failure_of(&state->behaviours, "nvmlShutdown");
    if (result == NVML_SUCCESS)
        references--;
    return end_call_with(result);
}
