/* Memory pools of the stand-in: chunks taken from the device, cut into blocks, kept until a synchronisation or a trim.
 *
 * As documented for the driver: memory freed in a stream can be used again at once in the same stream, elsewhere after
 * a synchronisation; above the release threshold whole idle chunks go back to the device at a synchronisation.
 */
#include "standin.h"

enum state { USED, PENDING, IDLE };

struct block {
    struct block *next; /* in order of address, within the chunk */
    CUdeviceptr address;
    uint64_t bytes;
    enum state state;
    struct CUstream_st *stream; /* that it was freed in */
};

struct chunk {
    struct chunk *next;
    uint64_t bytes;
    struct block *blocks;
};

struct CUmemPoolHandle_st {
    struct CUmemPoolHandle_st *next;
    int device; /* -1: not in device memory */
    bool is_destroyed;
    bool is_default;
    uint64_t threshold, reserved, used;
    struct chunk *chunks;
};

static struct CUmemPoolHandle_st *all, *current[STANDIN_MOST_DEVICES], *default_of[STANDIN_MOST_DEVICES], host_pool;

static CUmemoryPool new_pool(int device) {
    CUmemoryPool pool = calloc(1, sizeof *pool);
    pool->device = device;
    pool->next = all;
    all = pool;
    return pool;
}

static CUmemoryPool default_pool(int device) {
    if (default_of[device] == NULL) {
        default_of[device] = new_pool(device);
        default_of[device]->is_default = true;
    }
    return default_of[device];
}

static bool is_pool(CUmemoryPool pool, const char *where) {
    if (pool == &host_pool)
        return true;
    for (CUmemoryPool one = all; one != NULL; one = one->next)
        if (one == pool && !one->is_destroyed)
            return true;
    standin_violation(INVALID_USE, where);
    return false;
}

static bool is_free_for(const struct block *block, struct CUstream_st *stream) {
    return block->state == IDLE || (block->state == PENDING && block->stream == stream);
}

static void merge(struct chunk *chunk) {
    for (struct block *block = chunk->blocks; block != NULL;) {
        struct block *next = block->next;
        if (next != NULL && block->state != USED && block->state == next->state && block->stream == next->stream) {
            block->bytes += next->bytes;
            block->next = next->next;
            free(next);
        } else {
            block = next;
        }
    }
}

static void release_idle_chunks(CUmemoryPool pool, uint64_t keep) {
    for (struct chunk **at = &pool->chunks; *at != NULL;) {
        struct chunk *chunk = *at;
        merge(chunk);
        if (pool->reserved > keep && chunk->blocks->state == IDLE && chunk->blocks->next == NULL) {
            *at = chunk->next;
            pool->reserved -= chunk->bytes;
            standin_give(pool->device, chunk->bytes);
            free(chunk->blocks);
            free(chunk);
        } else {
            at = &chunk->next;
        }
    }
}

void standin_synchronise(struct CUstream_st *stream) {
    standin_finish_graphs();
    for (CUmemoryPool pool = all; pool != NULL; pool = pool->next) {
        for (struct chunk *chunk = pool->chunks; chunk != NULL; chunk = chunk->next)
            for (struct block *block = chunk->blocks; block != NULL; block = block->next)
                if (block->state == PENDING && (stream == NULL || block->stream == stream)) {
                    block->state = IDLE;
                    block->stream = NULL;
                }
        release_idle_chunks(pool, pool->is_destroyed ? 0 : pool->threshold);
    }
}

static CUresult take(CUmemoryPool pool, CUdeviceptr *pointer, uint64_t bytes, struct CUstream_st *stream) {
    bytes = (bytes + 511) / 512 * 512;
    for (int attempt = 0; attempt < 2; attempt++) {
        for (struct chunk *chunk = pool->chunks; chunk != NULL; chunk = chunk->next) {
            merge(chunk);
            for (struct block *block = chunk->blocks; block != NULL; block = block->next) {
                if (block->bytes < bytes || !is_free_for(block, stream))
                    continue;
                if (block->bytes > bytes) {
                    struct block *rest = malloc(sizeof *rest);
                    *rest = *block;
                    rest->address += bytes;
                    rest->bytes -= bytes;
                    block->next = rest;
                    block->bytes = bytes;
                }
                block->state = USED;
                block->stream = NULL;
                pool->used += bytes;
                *pointer = block->address;
                return 0;
            }
        }
        uint64_t grown = (bytes + STANDIN_POOL_STEP - 1) / STANDIN_POOL_STEP * STANDIN_POOL_STEP;
        if (!standin_take(pool->device, grown))
            return CUDA_ERROR_OUT_OF_MEMORY;
        struct chunk *chunk = malloc(sizeof *chunk);
        *chunk = (struct chunk){.next = pool->chunks, .bytes = grown, .blocks = calloc(1, sizeof *chunk->blocks)};
        *chunk->blocks = (struct block){.address = standin_new_address(grown), .bytes = grown, .state = IDLE};
        pool->chunks = chunk;
        pool->reserved += grown;
    }
    return CUDA_ERROR_OUT_OF_MEMORY;
}

bool standin_free_to_pool(CUdeviceptr pointer, struct CUstream_st *stream, bool at_once) {
    for (CUmemoryPool pool = all; pool != NULL; pool = pool->next)
        for (struct chunk *chunk = pool->chunks; chunk != NULL; chunk = chunk->next)
            for (struct block *block = chunk->blocks; block != NULL; block = block->next)
                if (block->address == pointer && block->state == USED) {
                    block->state = at_once ? IDLE : PENDING;
                    block->stream = at_once ? NULL : stream;
                    pool->used -= block->bytes;
                    if (at_once)
                        standin_synchronise(NULL);
                    return true;
                }
    return false;
}

static CUresult allocate(CUdeviceptr *pointer, size_t size, CUmemoryPool pool, CUstream stream, const char *name) {
    if (!standin_initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = 0;
    bool is_given = (uintptr_t)stream > 2;
    struct CUctx_st *context = is_given ? stream->context : standin_context(name);
    if (context == NULL)
        return STANDIN_INVALID_CONTEXT;
    pthread_mutex_lock(&standin_lock);
    if (pool == NULL)
        pool = current[context->device] != NULL ? current[context->device] : default_pool(context->device);
    if (!is_pool(pool, name) || size == 0)
        result = CUDA_ERROR_INVALID_VALUE;
    else if (is_given && stream->capturing)
        standin_capture_allocation(stream->graph, pointer, size, context->device);
    else if (pool->device < 0)
        *pointer = standin_new_address(size);
    else
        result = take(pool, pointer, size, stream);
    pthread_mutex_unlock(&standin_lock);
    return standin_trace(name, result, "%zu, %p, %p", size, (void *)pool, (void *)stream);
}

API CUresult cuMemAllocAsync(CUdeviceptr *pointer, size_t size, CUstream stream) {
    return allocate(pointer, size, NULL, stream, "cuMemAllocAsync");
}

API CUresult cuMemAllocAsync_ptsz(CUdeviceptr *pointer, size_t size, CUstream stream) {
    return allocate(pointer, size, NULL, stream, "cuMemAllocAsync_ptsz");
}

API CUresult cuMemAllocFromPoolAsync(CUdeviceptr *pointer, size_t size, CUmemoryPool pool, CUstream stream) {
    return pool == NULL ? CUDA_ERROR_INVALID_VALUE
                        : allocate(pointer, size, pool, stream, "cuMemAllocFromPoolAsync");
}

API CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *pointer, size_t size, CUmemoryPool pool, CUstream stream) {
    return pool == NULL ? CUDA_ERROR_INVALID_VALUE
                        : allocate(pointer, size, pool, stream, "cuMemAllocFromPoolAsync_ptsz");
}

static CUresult free_in(CUdeviceptr pointer, CUstream stream, const char *name) {
    CUresult result = 0;
    pthread_mutex_lock(&standin_lock);
    bool is_captured = (uintptr_t)stream > 2 && stream->capturing;
    if (!is_captured && !standin_free_to_pool(pointer, stream, false)) {
        standin_violation(DOUBLE_FREE, name);
        result = CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_unlock(&standin_lock);
    return standin_trace(name, result, "%llx, %p", pointer, (void *)stream);
}

API CUresult cuMemFreeAsync(CUdeviceptr pointer, CUstream stream) { return free_in(pointer, stream, "cuMemFreeAsync"); }

API CUresult cuMemFreeAsync_ptsz(CUdeviceptr pointer, CUstream stream) {
    return free_in(pointer, stream, "cuMemFreeAsync_ptsz");
}

API CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *props) {
    bool is_on_device = props->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
    if (is_on_device && !standin_is_device(props->location.id))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&standin_lock);
    *pool = new_pool(is_on_device ? props->location.id : -1);
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuMemPoolCreate", 0, "%d", props->location.id);
}

API CUresult cuMemPoolDestroy(CUmemoryPool pool) {
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&standin_lock);
    if (is_pool(pool, "cuMemPoolDestroy") && !pool->is_default) {
        pool->is_destroyed = true;
        for (int device = 0; device < STANDIN_MOST_DEVICES; device++)
            if (current[device] == pool)
                current[device] = NULL;
        release_idle_chunks(pool, 0);
        result = 0;
    }
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuMemPoolDestroy", result, "%p", (void *)pool);
}

API CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep) {
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&standin_lock);
    if (is_pool(pool, "cuMemPoolTrimTo")) {
        release_idle_chunks(pool, keep);
        result = 0;
    }
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuMemPoolTrimTo", result, "%p, %zu", (void *)pool, keep);
}

API CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value) {
    CUresult result = 0;
    pthread_mutex_lock(&standin_lock);
    if (!is_pool(pool, "cuMemPoolGetAttribute"))
        result = CUDA_ERROR_INVALID_VALUE;
    else if (attribute == 4)
        *(uint64_t *)value = pool->threshold;
    else if (attribute == 5 || attribute == 6)
        *(uint64_t *)value = pool->reserved;
    else if (attribute == 7 || attribute == 8)
        *(uint64_t *)value = pool->used;
    else
        *(int *)value = 1;
    pthread_mutex_unlock(&standin_lock);
    return result;
}

API CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value) {
    CUresult result = 0;
    pthread_mutex_lock(&standin_lock);
    if (!is_pool(pool, "cuMemPoolSetAttribute"))
        result = CUDA_ERROR_INVALID_VALUE;
    else if (attribute == 4)
        pool->threshold = *(uint64_t *)value;
    pthread_mutex_unlock(&standin_lock);
    return result;
}

API CUresult cuMemPoolSetAccess(CUmemoryPool pool, const void *map, size_t count) {
    (void)pool, (void)map, (void)count;
    return 0;
}

API CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice device) {
    if (!standin_is_device(device))
        return 101;
    pthread_mutex_lock(&standin_lock);
    *pool = default_pool(device);
    pthread_mutex_unlock(&standin_lock);
    return 0;
}

API CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device) {
    if (!standin_is_device(device))
        return 101;
    pthread_mutex_lock(&standin_lock);
    *pool = current[device] != NULL ? current[device] : default_pool(device);
    pthread_mutex_unlock(&standin_lock);
    return 0;
}

API CUresult cuDeviceSetMemPool(CUdevice device, CUmemoryPool pool) {
    if (!standin_is_device(device) || !is_pool(pool, "cuDeviceSetMemPool"))
        return CUDA_ERROR_INVALID_VALUE;
    current[device] = pool;
    return 0;
}

#if STANDIN_VERSION >= 13000
API CUresult cuMemGetDefaultMemPool(CUmemoryPool *pool, CUmemLocation *location, CUmemAllocationType type) {
    (void)type;
    host_pool.device = -1;
    *pool = &host_pool;
    return location->type == CU_MEM_LOCATION_TYPE_DEVICE ? cuDeviceGetDefaultMemPool(pool, location->id) : 0;
}

API CUresult cuMemGetMemPool(CUmemoryPool *pool, CUmemLocation *location, CUmemAllocationType type) {
    return cuMemGetDefaultMemPool(pool, location, type);
}
#endif
