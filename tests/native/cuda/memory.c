/* Linear memory and arrays of the stand-in, and what is left of the first version of the driver API. */
#include "standin.h"

enum { BUCKETS = 1 << 14, RECENT = 64 };

struct allocation {
    struct allocation *next;
    CUdeviceptr address;
    uint64_t bytes;
    struct CUctx_st *context;
};

static struct allocation *buckets[BUCKETS];
static struct {
    CUdeviceptr address;
    uint64_t bytes;
} recent[RECENT];
static CUdeviceptr next_address = 0x700000000000u;

CUdeviceptr standin_new_address(uint64_t bytes) {
    for (int number = 0; number < RECENT; number++) {
        if (recent[number].address != 0 && recent[number].bytes == bytes) {
            CUdeviceptr address = recent[number].address;
            recent[number].address = 0;
            return address;
        }
    }
    CUdeviceptr address = next_address;
    next_address += (bytes + 511) / 512 * 512;
    return address;
}

void standin_free_address(CUdeviceptr address, uint64_t bytes) {
    static int at;
    at = (at + 1) % RECENT;
    recent[at].address = address;
    recent[at].bytes = bytes;
}

static struct allocation **find(CUdeviceptr address) {
    struct allocation **at = &buckets[(address >> 9) % BUCKETS];
    while (*at != NULL && (*at)->address != address)
        at = &(*at)->next;
    return at;
}

bool standin_is_allocation(CUdeviceptr pointer, uint64_t *bytes) {
    struct allocation *found = *find(pointer);
    if (found != NULL)
        *bytes = found->bytes;
    return found != NULL;
}

CUresult standin_allocate(CUdeviceptr *pointer, uint64_t bytes, const char *where) {
    struct CUctx_st *context = standin_context(where);
    if (context == NULL)
        return STANDIN_INVALID_CONTEXT;
    if (pointer == NULL || bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (!standin_take(context->device, bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct allocation *one = malloc(sizeof *one);
    *one = (struct allocation){.address = standin_new_address(bytes), .bytes = bytes, .context = context};
    *pointer = one->address;
    struct allocation **at = find(one->address);
    one->next = *at;
    *at = one;
    return 0;
}

static void drop(struct allocation **at) {
    struct allocation *one = *at;
    *at = one->next;
    standin_give(one->context->device, one->bytes);
    standin_free_address(one->address, one->bytes);
    free(one);
}

void standin_drop_context_memory(struct CUctx_st *context) {
    for (int bucket = 0; bucket < BUCKETS; bucket++)
        for (struct allocation **at = &buckets[bucket]; *at != NULL;) {
            if ((*at)->context == context)
                drop(at);
            else
                at = &(*at)->next;
        }
}

static CUresult allocate(CUdeviceptr *pointer, uint64_t bytes, const char *name) {
    if (!standin_initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    pthread_mutex_lock(&standin_lock);
    CUresult result = standin_allocate(pointer, bytes, name);
    pthread_mutex_unlock(&standin_lock);
    return standin_trace(name, result, "%llu", (unsigned long long)bytes);
}

API CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t size) { return allocate(pointer, size, "cuMemAlloc_v2"); }

API CUresult cuMemAllocManaged(CUdeviceptr *pointer, size_t size, unsigned int flags) {
    return flags == 0 ? CUDA_ERROR_INVALID_VALUE : allocate(pointer, size, "cuMemAllocManaged");
}

API CUresult cuMemAllocPitch_v2(CUdeviceptr *pointer, size_t *pitch, size_t width, size_t height,
                                unsigned int element_size) {
    if (element_size != 4 && element_size != 8 && element_size != 16)
        return CUDA_ERROR_INVALID_VALUE;
    *pitch = (width + 511) / 512 * 512;
    return allocate(pointer, *pitch * height, "cuMemAllocPitch_v2");
}

API CUresult cuMemFree_v2(CUdeviceptr pointer) {
    if (!standin_initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = 0;
    pthread_mutex_lock(&standin_lock);
    struct allocation **at = find(pointer);
    if (*at != NULL) {
        drop(at);
    } else if (pointer != 0 && !standin_free_to_pool(pointer, NULL, true)) {
        standin_violation(DOUBLE_FREE, "cuMemFree_v2");
        result = CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuMemFree_v2", result, "%llx", pointer);
}

API CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size, CUdeviceptr pointer) {
    uint64_t bytes;
    pthread_mutex_lock(&standin_lock);
    bool is_known = standin_is_allocation(pointer, &bytes);
    pthread_mutex_unlock(&standin_lock);
    if (!is_known)
        return CUDA_ERROR_INVALID_VALUE;
    if (base != NULL)
        *base = pointer;
    if (size != NULL)
        *size = bytes;
    return 0;
}

API CUresult cuPointerGetAttribute(void *data, int attribute, CUdeviceptr pointer) {
    (void)pointer;
    switch (attribute) {
    case 2: /* memory type: device */
        *(unsigned *)data = 2;
        return 0;
    case 9: /* ordinal */
        *(int *)data = 0;
        return 0;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

API CUresult cuMemHostAlloc(void **pointer, size_t size, unsigned int flags) {
    (void)flags;
    *pointer = malloc(size);
    return 0;
}

API CUresult cuMemFreeHost(void *pointer) {
    free(pointer);
    return 0;
}

API CUresult cuMemsetD8_v2(CUdeviceptr pointer, unsigned char value, size_t count) {
    (void)pointer, (void)value, (void)count;
    return 0;
}

API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t count) {
    (void)to, (void)from, (void)count;
    return 0;
}

API CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t count) {
    (void)from;
    memset(to, 0, count);
    return 0;
}

/* ---- arrays ---- */

struct array {
    struct array *next;
    uint64_t bytes;
    struct CUctx_st *context;
};

static struct array *arrays;

static CUresult create_array(void **handle, uint64_t bytes, const char *name) {
    struct CUctx_st *context = standin_context(name);
    if (context == NULL)
        return STANDIN_INVALID_CONTEXT;
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&standin_lock);
    if (standin_take(context->device, bytes)) {
        struct array *array = malloc(sizeof *array);
        *array = (struct array){.next = arrays, .bytes = bytes, .context = context};
        arrays = array;
        *handle = array;
        result = 0;
    }
    pthread_mutex_unlock(&standin_lock);
    return standin_trace(name, result, "%llu", (unsigned long long)bytes);
}

static CUresult destroy_array(const void *handle, const char *name) {
    CUresult result = STANDIN_INVALID_HANDLE;
    pthread_mutex_lock(&standin_lock);
    for (struct array **at = &arrays; *at != NULL; at = &(*at)->next) {
        if (*at == handle) {
            struct array *array = *at;
            *at = array->next;
            standin_give(array->context->device, array->bytes);
            free(array);
            result = 0;
            break;
        }
    }
    pthread_mutex_unlock(&standin_lock);
    if (result != 0)
        standin_violation(DOUBLE_FREE, name);
    return standin_trace(name, result, "%p", handle);
}

void standin_drop_arrays(struct CUctx_st *context) {
    for (struct array **at = &arrays; *at != NULL;) {
        struct array *array = *at;
        if (array->context == context) {
            *at = array->next;
            standin_give(context->device, array->bytes);
            free(array);
        } else {
            at = &array->next;
        }
    }
}

/* Bytes of one channel of the formats that the tests use: float and half of cuda.h. */
static uint64_t channel(unsigned format) { return format == 0x20 ? 4 : format == 0x10 ? 2 : 1; }

static uint64_t or_one(size_t size) { return size == 0 ? 1 : size; }

API CUresult cuArrayCreate_v2(CUarray *array, const CUDA_ARRAY_DESCRIPTOR *shape) {
    return create_array((void **)array,
                        shape->Width * or_one(shape->Height) * channel((unsigned)shape->Format) * shape->NumChannels,
                        "cuArrayCreate_v2");
}

API CUresult cuArray3DCreate_v2(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR *shape) {
    uint64_t bytes = shape->Width * or_one(shape->Height) * or_one(shape->Depth) * channel((unsigned)shape->Format) *
                     shape->NumChannels;
    return create_array((void **)array, (shape->Flags & 0xc0) != 0 ? 0 : bytes, "cuArray3DCreate_v2");
}

API CUresult cuArrayDestroy(CUarray array) { return destroy_array(array, "cuArrayDestroy"); }

API CUresult cuMipmappedArrayCreate(CUmipmappedArray *array, const CUDA_ARRAY3D_DESCRIPTOR *shape,
                                    unsigned int levels) {
    uint64_t bytes = 0;
    for (unsigned level = 0; level < levels; level++)
        bytes += or_one(shape->Width >> level) * or_one(shape->Height >> level) * channel((unsigned)shape->Format) *
                 shape->NumChannels;
    return create_array((void **)array, bytes, "cuMipmappedArrayCreate");
}

API CUresult cuMipmappedArrayDestroy(CUmipmappedArray array) {
    return destroy_array(array, "cuMipmappedArrayDestroy");
}

/* ---- the first version, whose sizes have 32 bits: whoever gets here took one version for another ---- */

#define FIRST_VERSION(name)                                                                                            \
    API CUresult name(void);                                                                                           \
    API CUresult name(void) {                                                                                          \
        standin_violation(WRONG_VERSION, #name);                                                                       \
        return CUDA_ERROR_INVALID_VALUE;                                                                               \
    }

#ifndef JGPU_CUDA_HEADERS
FIRST_VERSION(cuMemAlloc)
FIRST_VERSION(cuMemAllocPitch)
FIRST_VERSION(cuMemFree)
FIRST_VERSION(cuMemGetInfo)
FIRST_VERSION(cuDeviceTotalMem)
FIRST_VERSION(cuArrayCreate)
FIRST_VERSION(cuArray3DCreate)
#endif
