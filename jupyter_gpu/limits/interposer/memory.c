/* Memory that belongs to a context: linear, pitched, managed; and the frees of every kind of address. */
#include "memory.h"

#include "pools.h"

void jgpu_drop_charge(const struct jgpu_charge *charge) {
    if (charge->kind != JGPU_POOLED && charge->kind != JGPU_HANDLE)
        jgpu_discharge(charge->device, charge->bytes);
}

void jgpu_restore_charge(const struct jgpu_charge *charge) {
    struct jgpu_charge old;
    bool kept;
    if (jgpu_put_charge(charge, &old, &kept))
        jgpu_drop_charge(&old);
    if (!kept)
        jgpu_drop_charge(charge);
}

void jgpu_note_allocation(enum jgpu_kind kind, uint64_t key, const struct jgpu_place *place, uint64_t reserved,
                          uint64_t actual) {
    jgpu_commit(place->device, reserved, actual);
    jgpu_restore_charge(&(struct jgpu_charge){
        .kind = kind, .device = place->device, .key = key, .bytes = actual, .owner = place->context});
}

JGPU_EXPORT CUresult CUDAAPI cuMemAlloc_v2(CUdeviceptr *pointer, size_t size) {
    __typeof__(&cuMemAlloc_v2) real = JGPU_REAL(cuMemAlloc_v2);
    struct jgpu_place place;
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!jgpu_current_place(&place))
        return real(pointer, size);
    if (!jgpu_reserve(place.device, size))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result;
    JGPU_CALL(result, real(pointer, size));
    if (result == CUDA_SUCCESS)
        jgpu_note_allocation(JGPU_MEMORY, *pointer, &place, size, size);
    else
        jgpu_cancel(place.device, size);
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuMemAllocManaged(CUdeviceptr *pointer, size_t size, unsigned int flags) {
    __typeof__(&cuMemAllocManaged) real = JGPU_REAL(cuMemAllocManaged);
    struct jgpu_place place;
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!jgpu_current_place(&place))
        return real(pointer, size, flags);
    if (!jgpu_reserve(place.device, size))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result;
    JGPU_CALL(result, real(pointer, size, flags));
    if (result == CUDA_SUCCESS)
        jgpu_note_allocation(JGPU_MEMORY, *pointer, &place, size, size);
    else
        jgpu_cancel(place.device, size);
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuMemAllocPitch_v2(CUdeviceptr *pointer, size_t *pitch, size_t width, size_t height,
                                                unsigned int element_size) {
    __typeof__(&cuMemAllocPitch_v2) real = JGPU_REAL(cuMemAllocPitch_v2);
    struct jgpu_place place;
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    size_t row, estimate;
    /* Rows are padded to what the hardware likes; by how much is known only afterwards. */
    if (__builtin_add_overflow(width, (size_t)511, &row) ||
        __builtin_mul_overflow(row & ~(size_t)511, height, &estimate) || !jgpu_current_place(&place))
        return real(pointer, pitch, width, height, element_size);
    if (!jgpu_reserve(place.device, estimate))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result;
    JGPU_CALL(result, real(pointer, pitch, width, height, element_size));
    if (result == CUDA_SUCCESS)
        jgpu_note_allocation(JGPU_MEMORY, *pointer, &place, estimate, *pitch * height);
    else
        jgpu_cancel(place.device, estimate);
    return result;
}

/* Take what is known of an address before it is freed: afterwards another thread may be given the same one. */
static bool take_address(CUdeviceptr pointer, struct jgpu_charge *taken) {
    return jgpu_take_charge(JGPU_MEMORY, pointer, taken) || jgpu_take_charge(JGPU_POOLED, pointer, taken);
}

static CUresult freed(CUresult result, bool known, const struct jgpu_charge *taken) {
    if (known && result == CUDA_SUCCESS)
        jgpu_drop_charge(taken);
    else if (known)
        jgpu_restore_charge(taken);
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuMemFree_v2(CUdeviceptr pointer) {
    __typeof__(&cuMemFree_v2) real = JGPU_REAL(cuMemFree_v2);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (jgpu_inside != 0 || !jgpu_is_counted())
        return real(pointer);
    struct jgpu_charge taken;
    bool known = take_address(pointer, &taken);
    CUresult result;
    JGPU_CALL(result, real(pointer));
    freed(result, known, &taken);
    /* An address from a pool, or from a graph: it waits for the device, so the pool may have shrunk already. */
    if (!known || taken.kind == JGPU_POOLED)
        jgpu_look_at_pools();
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuMemFreeAsync(CUdeviceptr pointer, CUstream stream) {
    __typeof__(&cuMemFreeAsync) real = JGPU_REAL(cuMemFreeAsync);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (jgpu_inside != 0 || !jgpu_is_counted())
        return real(pointer, stream);
    struct jgpu_charge taken;
    bool known = take_address(pointer, &taken);
    CUresult result;
    JGPU_CALL(result, real(pointer, stream));
    return freed(result, known, &taken);
}

JGPU_EXPORT CUresult CUDAAPI cuMemFreeAsync_ptsz(CUdeviceptr pointer, CUstream stream) {
    __typeof__(&cuMemFreeAsync_ptsz) real = JGPU_REAL(cuMemFreeAsync_ptsz);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (jgpu_inside != 0 || !jgpu_is_counted())
        return real(pointer, stream);
    struct jgpu_charge taken;
    bool known = take_address(pointer, &taken);
    CUresult result;
    JGPU_CALL(result, real(pointer, stream));
    return freed(result, known, &taken);
}
