/* Virtual memory management: a block of memory lives as long as any handle to it or any mapping of it does. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "forget.h"
#include "memory.h"

struct block {
    int device;
    uint64_t bytes;
    uint64_t holds; /* handles, by their references, and mappings */
};

struct mapping {
    CUdeviceptr address;
    size_t size;
    struct block *block;
};

/* Held for the books only, never over a call into the driver. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct mapping *mappings; /* in order of address */
static size_t mapping_count, mapping_room;

void jgpu_forget_virtual_memory(void) {
    pthread_mutex_init(&lock, NULL);
    mappings = NULL;
    mapping_count = mapping_room = 0;
}

/* Under the lock. */
static struct block *block_of(CUmemGenericAllocationHandle handle) {
    struct jgpu_charge found;
    return jgpu_find_charge(JGPU_HANDLE, handle, &found) ? found.owner : NULL;
}

/* Under the lock: `count` holds less; the last one gives the memory back. */
static void let_go_of(struct block *block, uint64_t count) {
    block->holds -= count;
    if (block->holds > 0)
        return;
    jgpu_discharge(block->device, block->bytes);
    free(block);
}

static void let_go(struct block *block) { let_go_of(block, 1); }

/* Under the lock: one reference to a handle more. */
static void hold(CUmemGenericAllocationHandle handle, struct block *block) {
    struct jgpu_charge charge = {.kind = JGPU_HANDLE, .key = handle, .owner = block, .bytes = 1}, old;
    bool kept, is_known = jgpu_find_charge(JGPU_HANDLE, handle, &old);
    if (is_known && old.owner == block)
        charge.bytes += old.bytes;
    jgpu_put_charge(&charge, &old, &kept);
    if (kept)
        block->holds++;
    if (kept && is_known && old.owner != block)
        let_go_of(old.owner, old.bytes); /* released behind our back, and its number given to another */
}

/* The first mapping that ends behind `address`. */
static size_t first_after(CUdeviceptr address) {
    size_t low = 0, high = mapping_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (mappings[middle].address + mappings[middle].size <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool insert(struct mapping mapping) {
    if (mapping_count == mapping_room) {
        size_t room = mapping_room == 0 ? 64 : mapping_room * 2;
        struct mapping *larger = realloc(mappings, room * sizeof *larger);
        if (larger == NULL)
            return false;
        mappings = larger;
        mapping_room = room;
    }
    size_t at = first_after(mapping.address);
    memmove(&mappings[at + 1], &mappings[at], (mapping_count - at) * sizeof *mappings);
    mappings[at] = mapping;
    mapping_count++;
    return true;
}

static void insert_or_let_go(struct mapping mapping) {
    if (!insert(mapping))
        let_go(mapping.block);
}

static int account_device(const CUmemAllocationProp *prop) {
    if (prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE)
        return jgpu_device(prop->location.id);
    if ((int)prop->location.type == JGPU_LOCATION_PART_OF_DEVICE)
        return jgpu_device(prop->location.id & 0xff);
    return -1;
}

JGPU_EXPORT CUresult CUDAAPI cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size,
                                         const CUmemAllocationProp *prop, unsigned long long flags) {
    __typeof__(&cuMemCreate) real = JGPU_REAL(cuMemCreate);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    /* By the location that it names, because threads that have no context call this too. */
    int device = jgpu_inside == 0 && prop != NULL && jgpu_is_counted() ? account_device(prop) : -1;
    if (device < 0)
        return real(handle, size, prop, flags);
    struct block *block = malloc(sizeof *block);
    if (block == NULL || !jgpu_reserve(device, size)) {
        free(block);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult result;
    JGPU_CALL(result, real(handle, size, prop, flags));
    if (result != CUDA_SUCCESS) {
        jgpu_cancel(device, size);
        free(block);
        return result;
    }
    *block = (struct block){.device = device, .bytes = size, .holds = 1};
    jgpu_commit(device, size, size);
    pthread_mutex_lock(&lock);
    hold(*handle, block);
    let_go(block); /* the hold that it began with */
    pthread_mutex_unlock(&lock);
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuMemRelease(CUmemGenericAllocationHandle handle) {
    __typeof__(&cuMemRelease) real = JGPU_REAL(cuMemRelease);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (jgpu_inside != 0 || !jgpu_is_counted())
        return real(handle);
    struct jgpu_charge taken, old;
    bool kept;
    pthread_mutex_lock(&lock);
    bool known = jgpu_take_charge(JGPU_HANDLE, handle, &taken);
    if (known && taken.bytes > 1) {
        struct jgpu_charge rest = taken;
        rest.bytes--;
        jgpu_put_charge(&rest, &old, &kept);
    }
    pthread_mutex_unlock(&lock);
    CUresult result;
    JGPU_CALL(result, real(handle));
    if (!known)
        return result;
    pthread_mutex_lock(&lock);
    if (result != CUDA_SUCCESS)
        hold(handle, taken.owner);
    let_go(taken.owner);
    pthread_mutex_unlock(&lock);
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuMemMap(CUdeviceptr address, size_t size, size_t offset,
                                      CUmemGenericAllocationHandle handle, unsigned long long flags) {
    __typeof__(&cuMemMap) real = JGPU_REAL(cuMemMap);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    struct block *block = NULL;
    if (jgpu_inside == 0 && jgpu_is_counted()) {
        pthread_mutex_lock(&lock);
        block = block_of(handle);
        if (block != NULL)
            block->holds++;
        pthread_mutex_unlock(&lock);
    }
    CUresult result;
    JGPU_CALL(result, real(address, size, offset, handle, flags));
    if (block == NULL)
        return result;
    pthread_mutex_lock(&lock);
    if (result == CUDA_SUCCESS)
        insert_or_let_go((struct mapping){.address = address, .size = size, .block = block});
    else
        let_go(block);
    pthread_mutex_unlock(&lock);
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuMemUnmap(CUdeviceptr address, size_t size) {
    __typeof__(&cuMemUnmap) real = JGPU_REAL(cuMemUnmap);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (jgpu_inside != 0 || !jgpu_is_counted())
        return real(address, size);
    /* Taken out before the call: afterwards another thread may map something else at these addresses. */
    struct mapping *taken = NULL;
    pthread_mutex_lock(&lock);
    size_t from = first_after(address), to = from;
    while (to < mapping_count && mappings[to].address >= address && mappings[to].address - address < size)
        to++;
    size_t count = to - from;
    if (count > 0)
        taken = malloc(count * sizeof *taken);
    if (taken != NULL) {
        memcpy(taken, &mappings[from], count * sizeof *taken);
        memmove(&mappings[from], &mappings[to], (mapping_count - to) * sizeof *mappings);
        mapping_count -= count;
    }
    pthread_mutex_unlock(&lock);
    CUresult result;
    JGPU_CALL(result, real(address, size));
    if (taken == NULL)
        return result;
    pthread_mutex_lock(&lock);
    for (size_t number = 0; number < count; number++) {
        if (result == CUDA_SUCCESS)
            let_go(taken[number].block);
        else
            insert_or_let_go(taken[number]);
    }
    pthread_mutex_unlock(&lock);
    free(taken);
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *address) {
    __typeof__(&cuMemRetainAllocationHandle) real = JGPU_REAL(cuMemRetainAllocationHandle);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = real(handle, address);
    if (result != CUDA_SUCCESS || jgpu_inside != 0 || !jgpu_is_counted())
        return result;
    CUdeviceptr wanted = (CUdeviceptr)(uintptr_t)address;
    pthread_mutex_lock(&lock);
    size_t at = first_after(wanted);
    if (at < mapping_count && mappings[at].address <= wanted)
        hold(*handle, mappings[at].block);
    pthread_mutex_unlock(&lock);
    return result;
}

/* What another process made is charged there. What this one made itself stays until this reference goes too. */
JGPU_EXPORT CUresult CUDAAPI cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *shared,
                                                            CUmemAllocationHandleType type) {
    __typeof__(&cuMemImportFromShareableHandle) real = JGPU_REAL(cuMemImportFromShareableHandle);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = real(handle, shared, type);
    if (result != CUDA_SUCCESS || jgpu_inside != 0 || !jgpu_is_counted())
        return result;
    pthread_mutex_lock(&lock);
    struct block *block = block_of(*handle);
    if (block != NULL)
        hold(*handle, block);
    pthread_mutex_unlock(&lock);
    return result;
}
