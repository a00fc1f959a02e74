/* Virtual memory of the stand-in: memory lives as long as a handle to it or a mapping of it does. */
#include "standin.h"

enum { ALIVE = 0xb10c, HOST = -1 };

struct block {
    unsigned magic;
    int device;
    uint64_t bytes;
    unsigned handles, mappings;
};

struct range {
    struct range *next;
    CUdeviceptr address;
    uint64_t bytes;
    struct block *block; /* NULL: reserved addresses */
};

static struct range *reserved, *mapped;
static CUdeviceptr next_range = 0x100000000000u;

static struct block *block_of(CUmemGenericAllocationHandle handle) {
    struct block *block = (struct block *)(uintptr_t)handle;
    return block != NULL && block->magic == ALIVE && block->handles > 0 ? block : NULL;
}

static void let_go(struct block *block) {
    if (block->handles > 0 || block->mappings > 0)
        return;
    if (block->device != HOST)
        standin_give(block->device, block->bytes);
    block->magic = 0; /* the record itself stays, so that a late use of the handle is seen */
}

API CUresult cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *prop, int option) {
    (void)prop, (void)option;
    *granularity = STANDIN_GRANULARITY;
    return 0;
}

API CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop,
                         unsigned long long flags) {
    if (!standin_initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    bool is_on_device = prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
    if (size == 0 || size % STANDIN_GRANULARITY != 0 || flags != 0 ||
        (is_on_device && !standin_is_device(prop->location.id)))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&standin_lock);
    if (!is_on_device || standin_take(prop->location.id, size)) {
        struct block *block = malloc(sizeof *block);
        *block = (struct block){
            .magic = ALIVE, .device = is_on_device ? prop->location.id : HOST, .bytes = size, .handles = 1};
        *handle = (uintptr_t)block;
        result = 0;
    }
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuMemCreate", result, "%zu, %d", size, prop->location.id);
}

API CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
    CUresult result = 0;
    pthread_mutex_lock(&standin_lock);
    struct block *block = block_of(handle);
    if (block != NULL) {
        block->handles--;
        let_go(block);
    } else {
        standin_violation(DOUBLE_FREE, "cuMemRelease");
        result = CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuMemRelease", result, "%llx", handle);
}

API CUresult cuMemAddressReserve(CUdeviceptr *address, size_t size, size_t alignment, CUdeviceptr wanted,
                                 unsigned long long flags) {
    (void)alignment, (void)flags;
    pthread_mutex_lock(&standin_lock);
    struct range *range = malloc(sizeof *range);
    *range = (struct range){.next = reserved, .address = next_range, .bytes = size};
    reserved = range;
    *address = range->address;
    next_range += size;
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuMemAddressReserve", 0, "%zu, %llx", size, wanted);
}

static bool overlaps(const struct range *range, CUdeviceptr address, uint64_t bytes) {
    return range->address < address + bytes && address < range->address + range->bytes;
}

API CUresult cuMemAddressFree(CUdeviceptr address, size_t size) {
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&standin_lock);
    for (struct range *range = mapped; range != NULL; range = range->next)
        if (overlaps(range, address, size))
            standin_violation(INVALID_USE, "cuMemAddressFree");
    for (struct range **at = &reserved; *at != NULL; at = &(*at)->next) {
        if ((*at)->address == address && (*at)->bytes == size) {
            struct range *range = *at;
            *at = range->next;
            free(range);
            result = 0;
            break;
        }
    }
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuMemAddressFree", result, "%llx, %zu", address, size);
}

API CUresult cuMemMap(CUdeviceptr address, size_t size, size_t offset, CUmemGenericAllocationHandle handle,
                      unsigned long long flags) {
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&standin_lock);
    struct block *block = block_of(handle);
    bool is_reserved = false;
    for (struct range *range = reserved; range != NULL; range = range->next)
        is_reserved = is_reserved || (range->address <= address && address + size <= range->address + range->bytes);
    for (struct range *range = mapped; range != NULL; range = range->next)
        is_reserved = is_reserved && !overlaps(range, address, size);
    if (block != NULL && is_reserved && offset + size <= block->bytes && flags == 0) {
        struct range *range = malloc(sizeof *range);
        *range = (struct range){.next = mapped, .address = address, .bytes = size, .block = block};
        mapped = range;
        block->mappings++;
        result = 0;
    }
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuMemMap", result, "%llx, %zu, %zu, %llx", address, size, offset, handle);
}

API CUresult cuMemUnmap(CUdeviceptr address, size_t size) {
    uint64_t covered = 0;
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&standin_lock);
    for (struct range *range = mapped; range != NULL; range = range->next)
        if (range->address >= address && range->address + range->bytes <= address + size)
            covered += range->bytes;
    for (struct range **at = &mapped; covered == size && *at != NULL;) {
        struct range *range = *at;
        if (range->address < address || range->address >= address + size) {
            at = &range->next;
            continue;
        }
        *at = range->next;
        range->block->mappings--;
        let_go(range->block);
        free(range);
        result = 0;
    }
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuMemUnmap", result, "%llx, %zu", address, size);
}

API CUresult cuMemSetAccess(CUdeviceptr address, size_t size, const void *descriptors, size_t count) {
    (void)descriptors;
    return standin_trace("cuMemSetAccess", 0, "%llx, %zu, %zu", address, size, count);
}

API CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *address) {
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&standin_lock);
    for (struct range *range = mapped; range != NULL; range = range->next) {
        if (overlaps(range, (CUdeviceptr)(uintptr_t)address, 1)) {
            range->block->handles++;
            *handle = (uintptr_t)range->block;
            result = 0;
        }
    }
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuMemRetainAllocationHandle", result, "%p", address);
}

API CUresult cuMemExportToShareableHandle(void *shared, CUmemGenericAllocationHandle handle, int type,
                                          unsigned long long flags) {
    (void)flags;
    *(uint64_t *)shared = handle;
    return standin_trace("cuMemExportToShareableHandle", block_of(handle) != NULL ? 0 : 1, "%llx, %d", handle, type);
}

API CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *shared,
                                            CUmemAllocationHandleType type) {
    pthread_mutex_lock(&standin_lock);
    struct block *block = block_of(*(uint64_t *)shared);
    if (block != NULL) {
        block->handles++;
        *handle = (uintptr_t)block;
    }
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuMemImportFromShareableHandle", block != NULL ? 0 : 1, "%d", (int)type);
}
