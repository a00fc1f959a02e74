/* What a device is said to have: no more than the cap, so that whoever sizes itself by it fits. */
#include "pools.h"
#include "state.h"

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

JGPU_EXPORT CUresult CUDAAPI cuMemGetInfo_v2(size_t *free, size_t *total) {
    __typeof__(&cuMemGetInfo_v2) real = JGPU_REAL(cuMemGetInfo_v2);
    struct jgpu_place place;
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = real(free, total);
    if (result != CUDA_SUCCESS || !jgpu_current_place(&place))
        return result;
    jgpu_look_at_pools();
    uint64_t cap, left;
    jgpu_cap(place.device, &cap, &left);
    if (free != NULL)
        *free = least(*free, left);
    if (total != NULL)
        *total = least(*total, cap);
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    __typeof__(&cuDeviceTotalMem_v2) real = JGPU_REAL(cuDeviceTotalMem_v2);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = real(bytes, device);
    int counted = result == CUDA_SUCCESS && bytes != NULL && jgpu_inside == 0 ? jgpu_device(device) : -1;
    if (counted >= 0) {
        uint64_t cap, left;
        jgpu_cap(counted, &cap, &left);
        *bytes = least(*bytes, cap);
    }
    return result;
}

/* NVML numbers devices in another way than CUDA does, so it is asked for the UUID. */
static bool cap_by_nvml(nvmlDevice_t device, uint64_t *cap, uint64_t *left) {
    char uuid[96];
    __typeof__(&nvmlDeviceGetUUID) get_uuid = JGPU_REAL(nvmlDeviceGetUUID);
    if (get_uuid == NULL || get_uuid(device, uuid, sizeof uuid) != NVML_SUCCESS)
        return false;
    int counted = jgpu_device_named(uuid);
    if (counted >= 0)
        jgpu_cap(counted, cap, left);
    return counted >= 0 && *cap != JGPU_NO_CAP;
}

JGPU_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    __typeof__(&nvmlDeviceGetMemoryInfo) real = JGPU_REAL(nvmlDeviceGetMemoryInfo);
    if (real == NULL)
        return NVML_ERROR_FUNCTION_NOT_FOUND;
    nvmlReturn_t result = real(device, memory);
    uint64_t cap, left;
    if (result == NVML_SUCCESS && memory != NULL && cap_by_nvml(device, &cap, &left)) {
        memory->total = least(memory->total, cap);
        memory->free = least(least(memory->free, left), memory->total);
        memory->used = memory->total - memory->free;
    }
    return result;
}

JGPU_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    __typeof__(&nvmlDeviceGetMemoryInfo_v2) real = JGPU_REAL(nvmlDeviceGetMemoryInfo_v2);
    if (real == NULL)
        return NVML_ERROR_FUNCTION_NOT_FOUND;
    nvmlReturn_t result = real(device, memory);
    uint64_t cap, left;
    if (result == NVML_SUCCESS && memory != NULL && cap_by_nvml(device, &cap, &left)) {
        memory->total = least(memory->total, cap);
        memory->free = least(least(memory->free, left), memory->total);
        memory->reserved = least(memory->reserved, memory->total - memory->free);
        memory->used = memory->total - memory->free - memory->reserved;
    }
    return result;
}
