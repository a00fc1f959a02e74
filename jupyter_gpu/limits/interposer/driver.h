/* The functions of the real driver, and which of them are hooked. */
#ifndef JUPYTER_GPU_DRIVER_H
#define JUPYTER_GPU_DRIVER_H

#include <stdatomic.h>
#include <stdbool.h>

#include "driver_types.h"

/* HOOK(symbol, name, version, per-thread stream): what is substituted. `name` at `version` is how cuGetProcAddress
 * knows the symbol (cudaTypedefs.h: PFN_<name>_v<version>). NVML's functions and those of the C library have no such
 * name. */
#define JGPU_CUDA_HOOKS(HOOK)                                                                                          \
    HOOK(cuGetProcAddress, cuGetProcAddress, 11030, 0)                                                                 \
    HOOK(cuGetProcAddress_v2, cuGetProcAddress, 12000, 0)                                                              \
    HOOK(cuMemAlloc_v2, cuMemAlloc, 3020, 0)                                                                           \
    HOOK(cuMemAllocPitch_v2, cuMemAllocPitch, 3020, 0)                                                                 \
    HOOK(cuMemAllocManaged, cuMemAllocManaged, 6000, 0)                                                                \
    HOOK(cuMemFree_v2, cuMemFree, 3020, 0)                                                                             \
    HOOK(cuMemAllocAsync, cuMemAllocAsync, 11020, 0)                                                                   \
    HOOK(cuMemAllocAsync_ptsz, cuMemAllocAsync, 11020, 1)                                                              \
    HOOK(cuMemAllocFromPoolAsync, cuMemAllocFromPoolAsync, 11020, 0)                                                   \
    HOOK(cuMemAllocFromPoolAsync_ptsz, cuMemAllocFromPoolAsync, 11020, 1)                                              \
    HOOK(cuMemFreeAsync, cuMemFreeAsync, 11020, 0)                                                                     \
    HOOK(cuMemFreeAsync_ptsz, cuMemFreeAsync, 11020, 1)                                                                \
    HOOK(cuMemPoolCreate, cuMemPoolCreate, 11020, 0)                                                                   \
    HOOK(cuMemPoolDestroy, cuMemPoolDestroy, 11020, 0)                                                                 \
    HOOK(cuMemPoolTrimTo, cuMemPoolTrimTo, 11020, 0)                                                                   \
    HOOK(cuStreamSynchronize, cuStreamSynchronize, 2000, 0)                                                            \
    HOOK(cuStreamSynchronize_ptsz, cuStreamSynchronize, 7000, 1)                                                       \
    HOOK(cuEventSynchronize, cuEventSynchronize, 2000, 0)                                                              \
    HOOK(cuCtxSynchronize, cuCtxSynchronize, 2000, 0)                                                                  \
    HOOK(cuCtxSynchronize_v2, cuCtxSynchronize, 13000, 0)                                                              \
    HOOK(cuMemCreate, cuMemCreate, 10020, 0)                                                                           \
    HOOK(cuMemRelease, cuMemRelease, 10020, 0)                                                                         \
    HOOK(cuMemMap, cuMemMap, 10020, 0)                                                                                 \
    HOOK(cuMemUnmap, cuMemUnmap, 10020, 0)                                                                             \
    HOOK(cuMemRetainAllocationHandle, cuMemRetainAllocationHandle, 11000, 0)                                           \
    HOOK(cuMemImportFromShareableHandle, cuMemImportFromShareableHandle, 10020, 0)                                     \
    HOOK(cuArrayCreate_v2, cuArrayCreate, 3020, 0)                                                                     \
    HOOK(cuArray3DCreate_v2, cuArray3DCreate, 3020, 0)                                                                 \
    HOOK(cuArrayDestroy, cuArrayDestroy, 2000, 0)                                                                      \
    HOOK(cuMipmappedArrayCreate, cuMipmappedArrayCreate, 5000, 0)                                                      \
    HOOK(cuMipmappedArrayDestroy, cuMipmappedArrayDestroy, 5000, 0)                                                    \
    HOOK(cuGraphInstantiate, cuGraphInstantiate, 10000, 0)                                                             \
    HOOK(cuGraphInstantiate_v2, cuGraphInstantiate, 11000, 0)                                                          \
    HOOK(cuGraphInstantiateWithFlags, cuGraphInstantiateWithFlags, 11040, 0)                                           \
    HOOK(cuGraphInstantiateWithParams, cuGraphInstantiateWithParams, 12000, 0)                                         \
    HOOK(cuGraphInstantiateWithParams_ptsz, cuGraphInstantiateWithParams, 12000, 1)                                    \
    HOOK(cuGraphExecDestroy, cuGraphExecDestroy, 10000, 0)                                                             \
    HOOK(cuGraphUpload, cuGraphUpload, 11010, 0)                                                                       \
    HOOK(cuGraphUpload_ptsz, cuGraphUpload, 11010, 1)                                                                  \
    HOOK(cuGraphLaunch, cuGraphLaunch, 10000, 0)                                                                       \
    HOOK(cuGraphLaunch_ptsz, cuGraphLaunch, 10000, 1)                                                                  \
    HOOK(cuDeviceGraphMemTrim, cuDeviceGraphMemTrim, 11040, 0)                                                         \
    HOOK(cuCtxDestroy, cuCtxDestroy, 2000, 0)                                                                          \
    HOOK(cuCtxDestroy_v2, cuCtxDestroy, 4000, 0)                                                                       \
    HOOK(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, 7000, 0)                                                  \
    HOOK(cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease, 7000, 0)                                                \
    HOOK(cuDevicePrimaryCtxRelease_v2, cuDevicePrimaryCtxRelease, 11000, 0)                                            \
    HOOK(cuDevicePrimaryCtxReset, cuDevicePrimaryCtxReset, 7000, 0)                                                    \
    HOOK(cuDevicePrimaryCtxReset_v2, cuDevicePrimaryCtxReset, 11000, 0)                                                \
    HOOK(cuMemGetInfo_v2, cuMemGetInfo, 3020, 0)                                                                       \
    HOOK(cuDeviceTotalMem_v2, cuDeviceTotalMem, 3020, 0)

#define JGPU_NVML_HOOKS(HOOK)                                                                                          \
    HOOK(nvmlDeviceGetMemoryInfo)                                                                                      \
    HOOK(nvmlDeviceGetMemoryInfo_v2)

/* What the hooks ask of the driver besides. */
#define JGPU_CUDA_HELPERS(HELPER)                                                                                      \
    HELPER(cuCtxGetCurrent)                                                                                            \
    HELPER(cuCtxGetDevice)                                                                                             \
    HELPER(cuCtxPushCurrent_v2)                                                                                        \
    HELPER(cuCtxPopCurrent_v2)                                                                                         \
    HELPER(cuDeviceGetCount)                                                                                           \
    HELPER(cuDeviceGetUuid)                                                                                            \
    HELPER(cuDeviceGetUuid_v2)                                                                                         \
    HELPER(cuDevicePrimaryCtxGetState)                                                                                 \
    HELPER(cuDeviceGetMemPool)                                                                                         \
    HELPER(cuDeviceGetDefaultMemPool)                                                                                  \
    HELPER(cuDeviceGetGraphMemAttribute)                                                                               \
    HELPER(cuMemPoolGetAttribute)                                                                                      \
    HELPER(cuStreamGetCtx)                                                                                             \
    HELPER(cuStreamGetCtx_ptsz)                                                                                        \
    HELPER(cuStreamIsCapturing)                                                                                        \
    HELPER(cuStreamIsCapturing_ptsz)                                                                                   \
    HELPER(cuThreadExchangeStreamCaptureMode)                                                                          \
    HELPER(cuGraphGetNodes)                                                                                            \
    HELPER(cuGraphNodeGetType)                                                                                         \
    HELPER(cuGraphChildGraphNodeGetGraph)                                                                              \
    HELPER(cuGraphMemAllocNodeGetParams)

#define JGPU_NVML_HELPERS(HELPER) HELPER(nvmlDeviceGetUUID)

enum jgpu_function {
#define JGPU_HOOK_NUMBER(symbol, name, version, stream) JGPU_AT_##symbol,
#define JGPU_NUMBER(symbol) JGPU_AT_##symbol,
    JGPU_CUDA_HOOKS(JGPU_HOOK_NUMBER) JGPU_NVML_HOOKS(JGPU_NUMBER) /* hooks first */
    JGPU_HOOKS,
    JGPU_BEFORE_HELPERS = JGPU_HOOKS - 1,
    JGPU_CUDA_HELPERS(JGPU_NUMBER) JGPU_NVML_HELPERS(JGPU_NUMBER) JGPU_FUNCTIONS,
#undef JGPU_HOOK_NUMBER
#undef JGPU_NUMBER
};

typedef void *jgpu_dlsym_t(void *restrict handle, const char *restrict name);
typedef void *jgpu_dlvsym_t(void *restrict handle, const char *restrict name, const char *restrict version);

/* The C library's own, which are not those that this library exports; NULL where there are none. */
jgpu_dlsym_t *jgpu_real_dlsym(void);
jgpu_dlvsym_t *jgpu_real_dlvsym(void);

/* The real functions that are known already. */
extern _Atomic(void *) jgpu_known[JGPU_FUNCTIONS];
/* Look for a real function; NULL where its library is not loaded or lacks it. */
void *jgpu_find_real(enum jgpu_function function);

static inline void *jgpu_real(enum jgpu_function function) {
    void *address = atomic_load_explicit(&jgpu_known[function], memory_order_acquire);
    return address != NULL ? address : jgpu_find_real(function);
}

/* The hook whose real function is at `address`; NULL where there is none. */
void *jgpu_hook_at(const void *address);
void *jgpu_hook(enum jgpu_function function);
/* The hook with this exported name; JGPU_HOOKS where there is none. */
enum jgpu_function jgpu_hook_named(const char *name);

#define JGPU_EXPORT __attribute__((visibility("default")))
#define JGPU_REAL(symbol) ((__typeof__(&symbol))jgpu_real(JGPU_AT_##symbol))

#ifndef JGPU_CUDA_HEADERS
#include "driver_functions.h"
#endif

#endif
