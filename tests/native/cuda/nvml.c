/* An NVML that knows the stand-in's devices: same sizes, same UUIDs, in the opposite order, as NVML's order is its
 * own. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../jupyter_gpu/limits/interposer/driver.h"

#define API __attribute__((visibility("default")))

enum { MOST_DEVICES = 8 };

struct nvmlDevice_st {
    int number; /* CUDA's */
    unsigned long long bytes;
};

static struct nvmlDevice_st devices[MOST_DEVICES];
static int device_count;

API nvmlReturn_t nvmlInit_v2(void) {
    const char *text = getenv("STANDIN_CUDA_DEVICES");
    char *end = NULL;
    text = text == NULL ? "8589934592" : text;
    for (device_count = 0; device_count < MOST_DEVICES && *text != '\0'; text = *end == ',' ? end + 1 : end) {
        devices[device_count].number = device_count;
        devices[device_count++].bytes = strtoull(text, &end, 10);
    }
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlShutdown(void) { return NVML_SUCCESS; }

API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = (unsigned)device_count;
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    if (index >= (unsigned)device_count)
        return 2;
    *device = &devices[device_count - 1 - (int)index];
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length) {
    snprintf(uuid, length, "GPU-5d5d5d5d-5d5d-5d5d-5d5d-5d5d5d5d5d%02x", (unsigned)device->number);
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    memory->total = device->bytes;
    memory->used = device->bytes / 4;
    memory->free = memory->total - memory->used;
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    memory->total = device->bytes;
    memory->reserved = device->bytes / 64;
    memory->used = device->bytes / 4;
    memory->free = memory->total - memory->used - memory->reserved;
    return NVML_SUCCESS;
}
