/* The hooks that make, trim and destroy pools, and those that take memory from them. */
#include <stddef.h>

#include "memory.h"
#include "pools.h"

JGPU_EXPORT CUresult CUDAAPI cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *props) {
    __typeof__(&cuMemPoolCreate) real = JGPU_REAL(cuMemPoolCreate);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = real(pool, props);
    if (result != CUDA_SUCCESS || jgpu_inside != 0 || props == NULL || !jgpu_is_counted())
        return result;
    CUdevice device = -1;
    if (props->location.type == CU_MEM_LOCATION_TYPE_DEVICE)
        device = props->location.id;
    else if ((int)props->location.type == JGPU_LOCATION_PART_OF_DEVICE)
        device = props->location.id & 0xff;
    if (device >= 0)
        jgpu_put_pool(jgpu_pool_on(device, *pool));
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuMemPoolTrimTo(CUmemoryPool handle, size_t keep) {
    __typeof__(&cuMemPoolTrimTo) real = JGPU_REAL(cuMemPoolTrimTo);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (jgpu_inside != 0 || !jgpu_is_counted())
        return real(handle, keep);
    CUresult result;
    JGPU_CALL(result, real(handle, keep));
    jgpu_look_at_pools();
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuMemPoolDestroy(CUmemoryPool handle) {
    __typeof__(&cuMemPoolDestroy) real = JGPU_REAL(cuMemPoolDestroy);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (jgpu_inside != 0 || !jgpu_is_counted())
        return real(handle);
    struct jgpu_pool *pool = jgpu_begin_destruction(handle);
    CUresult result;
    JGPU_CALL(result, real(handle));
    if (pool != NULL)
        jgpu_end_destruction(pool, result == CUDA_SUCCESS);
    return result;
}

/* The device that a stream is on; -1 where that cannot be told. */
static CUdevice device_of(CUstream stream, bool per_thread) {
    __typeof__(&cuCtxGetDevice) get_device = JGPU_REAL(cuCtxGetDevice);
    CUdevice device = -1;
    if ((uintptr_t)stream <= 2) /* the default streams, which belong to the current context */
        return get_device != NULL && get_device(&device) == CUDA_SUCCESS ? device : -1;
    __typeof__(&cuStreamGetCtx) get_context = per_thread ? JGPU_REAL(cuStreamGetCtx_ptsz) : JGPU_REAL(cuStreamGetCtx);
    __typeof__(&cuCtxGetCurrent) get_current = JGPU_REAL(cuCtxGetCurrent);
    __typeof__(&cuCtxPushCurrent_v2) push = JGPU_REAL(cuCtxPushCurrent_v2);
    __typeof__(&cuCtxPopCurrent_v2) pop = JGPU_REAL(cuCtxPopCurrent_v2);
    CUcontext context, current;
    if (get_context == NULL || get_current == NULL || push == NULL || pop == NULL || get_device == NULL ||
        get_context(stream, &context) != CUDA_SUCCESS)
        return -1;
    if (get_current(&current) == CUDA_SUCCESS && current == context)
        return get_device(&device) == CUDA_SUCCESS ? device : -1;
    if (push(context) != CUDA_SUCCESS)
        return -1;
    if (get_device(&device) != CUDA_SUCCESS)
        device = -1;
    pop(&context);
    return device;
}

/* The record of a pool that memory is taken from, NULL where it is not to be counted. One that nobody made in this
 * process is a device's default, an import, or one in host memory, and only the first is charged here. */
static struct jgpu_pool *pool_of(CUmemoryPool handle) {
    struct jgpu_pool *pool = jgpu_known_pool(handle);
    if (pool != NULL)
        return pool;
    __typeof__(&cuDeviceGetCount) get_count = JGPU_REAL(cuDeviceGetCount);
    __typeof__(&cuDeviceGetDefaultMemPool) get_default = JGPU_REAL(cuDeviceGetDefaultMemPool);
    int count = 0;
    if (get_count == NULL || get_default == NULL || get_count(&count) != CUDA_SUCCESS)
        return NULL;
    for (CUdevice device = 0; device < count; device++) {
        CUmemoryPool of_device;
        if (get_default(&of_device, device) == CUDA_SUCCESS && of_device == handle)
            return jgpu_pool_on(device, handle);
    }
    return NULL;
}

static struct jgpu_pool *current_pool(CUstream stream, bool per_thread) {
    CUdevice device = device_of(stream, per_thread);
    __typeof__(&cuDeviceGetMemPool) get_pool = JGPU_REAL(cuDeviceGetMemPool);
    CUmemoryPool handle;
    if (device < 0 || get_pool == NULL || get_pool(&handle, device) != CUDA_SUCCESS)
        return NULL;
    return pool_of(handle);
}

static bool is_capturing(CUstream stream, bool per_thread) {
    __typeof__(&cuStreamIsCapturing) ask_stream =
        per_thread ? JGPU_REAL(cuStreamIsCapturing_ptsz) : JGPU_REAL(cuStreamIsCapturing);
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    return ask_stream != NULL && ask_stream(stream, &status) == CUDA_SUCCESS &&
           status != CU_STREAM_CAPTURE_STATUS_NONE;
}

/* Let a stream come to its end, so that what was freed in it can leave its pool. */
static void wait_for(CUstream stream, bool per_thread) {
    CUresult ignored;
    __typeof__(&cuStreamSynchronize) wait =
        per_thread ? JGPU_REAL(cuStreamSynchronize_ptsz) : JGPU_REAL(cuStreamSynchronize);
    CUstreamCaptureMode mode = jgpu_relax_capture();
    if (wait != NULL)
        JGPU_CALL(ignored, wait(stream));
    (void)ignored;
    jgpu_resume_capture(mode);
}

static void undo(CUdeviceptr pointer, CUstream stream, bool per_thread) {
    CUresult ignored;
    __typeof__(&cuMemFreeAsync) give_back = per_thread ? JGPU_REAL(cuMemFreeAsync_ptsz) : JGPU_REAL(cuMemFreeAsync);
    if (give_back != NULL)
        JGPU_CALL(ignored, give_back(pointer, stream));
    (void)ignored;
}

enum from { CURRENT_POOL, GIVEN_POOL };

static CUresult allocate(CUdeviceptr *pointer, size_t size, enum from from, CUmemoryPool handle, CUstream stream,
                         bool per_thread) {
    __typeof__(&cuMemAllocAsync) from_current =
        per_thread ? JGPU_REAL(cuMemAllocAsync_ptsz) : JGPU_REAL(cuMemAllocAsync);
    __typeof__(&cuMemAllocFromPoolAsync) from_pool =
        per_thread ? JGPU_REAL(cuMemAllocFromPoolAsync_ptsz) : JGPU_REAL(cuMemAllocFromPoolAsync);
    if (from == CURRENT_POOL ? from_current == NULL : from_pool == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    struct jgpu_pool *pool = NULL;
    if (jgpu_inside == 0 && jgpu_is_counted())
        pool = from == CURRENT_POOL ? current_pool(stream, per_thread) : pool_of(handle);
    /* In a capture it only becomes a node of a graph, whose memory is taken when it is launched. */
    if (pool != NULL && is_capturing(stream, per_thread)) {
        jgpu_put_pool(pool);
        pool = NULL;
    }
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    struct jgpu_growth growth;
    for (int attempt = 0; attempt < 2; attempt++) {
        bool is_last = attempt == 1;
        if (pool != NULL && is_last)
            wait_for(stream, per_thread);
        if (pool != NULL && !(is_last ? jgpu_begin_growth_below_cap(&growth, pool, size)
                                      : jgpu_begin_growth(&growth, pool, size, 0)))
            continue;
        JGPU_CALL(result, from == CURRENT_POOL ? from_current(pointer, size, stream)
                                               : from_pool(pointer, size, handle, stream));
        if (pool == NULL)
            return result;
        if (!jgpu_end_growth(&growth, result == CUDA_SUCCESS))
            break;
        undo(*pointer, stream, per_thread);
        result = CUDA_ERROR_OUT_OF_MEMORY;
        if (is_last)
            jgpu_note_refusal(growth.device, size);
        wait_for(stream, per_thread);
        jgpu_growth_is_undone(&growth);
    }
    if (result == CUDA_SUCCESS)
        jgpu_restore_charge(&(struct jgpu_charge){
            .kind = JGPU_POOLED, .device = growth.device, .key = *pointer, .bytes = size, .owner = pool});
    jgpu_put_pool(pool);
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuMemAllocAsync(CUdeviceptr *pointer, size_t size, CUstream stream) {
    return allocate(pointer, size, CURRENT_POOL, NULL, stream, false);
}

JGPU_EXPORT CUresult CUDAAPI cuMemAllocAsync_ptsz(CUdeviceptr *pointer, size_t size, CUstream stream) {
    return allocate(pointer, size, CURRENT_POOL, NULL, stream, true);
}

JGPU_EXPORT CUresult CUDAAPI cuMemAllocFromPoolAsync(CUdeviceptr *pointer, size_t size, CUmemoryPool pool,
                                                     CUstream stream) {
    return allocate(pointer, size, GIVEN_POOL, pool, stream, false);
}

JGPU_EXPORT CUresult CUDAAPI cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *pointer, size_t size, CUmemoryPool pool,
                                                          CUstream stream) {
    return allocate(pointer, size, GIVEN_POOL, pool, stream, true);
}
