/* Arrays and mipmapped arrays, whose size follows from their shape. */
#include "memory.h"

/* Bits of one channel of one element, or of one texel where the format has its own number of channels (CUarray_format
 * in cuda.h of CUDA 13; block-compressed formats by the block's size per texel). */
static unsigned bits(unsigned format, unsigned channels) {
    switch (format) {
    case 0x01: case 0x08:
        return 8 * channels;
    case 0x02: case 0x09: case 0x10:
        return 16 * channels;
    case 0x03: case 0x0a: case 0x20:
        return 32 * channels;
    case 0x91: case 0x92: case 0x97: case 0x98: /* BC1, BC4 */
        return 4;
    case 0x93: case 0x94: case 0x95: case 0x96: case 0x99: case 0x9a: case 0x9b: case 0x9c: case 0x9d: case 0x9e:
        return 8;
    case 0xb0: case 0x53: case 0x59: /* luma of 8 bits, chroma of a quarter */
        return 12;
    case 0xc0: case 0xc6:
        return 8;
    case 0xc1: case 0xc7: case 0xc3: case 0xc9: case 0xa2: case 0xa5: case 0x51: case 0x55: case 0x5b:
        return 16;
    case 0x9f: case 0xa1: case 0x54: case 0x5a:
        return 24;
    case 0xb2: case 0xb4: case 0x57: case 0x5d: case 0x52:
        return 24;
    case 0xc5: case 0xcb:
        return 64;
    case 0xb3: case 0xb5: case 0x58: case 0x5e:
        return 48;
    default:
        return 32;
    }
}

static uint64_t size_of(size_t width, size_t height, size_t depth, unsigned format, unsigned channels) {
    uint64_t size;
    if (__builtin_mul_overflow((uint64_t)width, (uint64_t)(height == 0 ? 1 : height), &size) ||
        __builtin_mul_overflow(size, (uint64_t)(depth == 0 ? 1 : depth), &size) ||
        __builtin_mul_overflow(size, (uint64_t)bits(format, channels), &size))
        return UINT64_MAX;
    return (size + 7) / 8;
}

static uint64_t size_of_levels(const CUDA_ARRAY3D_DESCRIPTOR *shape, unsigned levels) {
    uint64_t size = 0;
    size_t width = shape->Width, height = shape->Height, depth = shape->Depth;
    bool is_layered = (shape->Flags & 0x01) != 0 || (shape->Flags & 0x04) != 0; /* CUDA_ARRAY3D_LAYERED, _CUBEMAP */
    for (unsigned level = 0; level < levels && level < 32; level++) {
        uint64_t one = size_of(width, height, depth, (unsigned)shape->Format, shape->NumChannels);
        size = one > UINT64_MAX - size ? UINT64_MAX : size + one;
        width = width > 1 ? width / 2 : width;
        height = height > 1 ? height / 2 : height;
        if (!is_layered)
            depth = depth > 1 ? depth / 2 : depth;
    }
    return size;
}

static CUresult created(CUresult result, enum jgpu_kind kind, const void *handle, const struct jgpu_place *place,
                        uint64_t size) {
    if (result == CUDA_SUCCESS)
        jgpu_note_allocation(kind, (uint64_t)(uintptr_t)handle, place, size, size);
    else
        jgpu_cancel(place->device, size);
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuArrayCreate_v2(CUarray *array, const CUDA_ARRAY_DESCRIPTOR *shape) {
    __typeof__(&cuArrayCreate_v2) real = JGPU_REAL(cuArrayCreate_v2);
    struct jgpu_place place;
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (array == NULL || shape == NULL || !jgpu_current_place(&place))
        return real(array, shape);
    uint64_t size = size_of(shape->Width, shape->Height, 1, (unsigned)shape->Format, shape->NumChannels);
    if (!jgpu_reserve(place.device, size))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result;
    JGPU_CALL(result, real(array, shape));
    return created(result, JGPU_ARRAY, *array, &place, size);
}

JGPU_EXPORT CUresult CUDAAPI cuArray3DCreate_v2(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR *shape) {
    __typeof__(&cuArray3DCreate_v2) real = JGPU_REAL(cuArray3DCreate_v2);
    struct jgpu_place place;
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (array == NULL || shape == NULL || (shape->Flags & JGPU_ARRAY_WITHOUT_MEMORY) != 0 ||
        !jgpu_current_place(&place))
        return real(array, shape);
    uint64_t size = size_of_levels(shape, 1);
    if (!jgpu_reserve(place.device, size))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result;
    JGPU_CALL(result, real(array, shape));
    return created(result, JGPU_ARRAY, *array, &place, size);
}

JGPU_EXPORT CUresult CUDAAPI cuMipmappedArrayCreate(CUmipmappedArray *array, const CUDA_ARRAY3D_DESCRIPTOR *shape,
                                                    unsigned int levels) {
    __typeof__(&cuMipmappedArrayCreate) real = JGPU_REAL(cuMipmappedArrayCreate);
    struct jgpu_place place;
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (array == NULL || shape == NULL || (shape->Flags & JGPU_ARRAY_WITHOUT_MEMORY) != 0 ||
        !jgpu_current_place(&place))
        return real(array, shape, levels);
    uint64_t size = size_of_levels(shape, levels);
    if (!jgpu_reserve(place.device, size))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result;
    JGPU_CALL(result, real(array, shape, levels));
    return created(result, JGPU_MIPMAP, *array, &place, size);
}

static CUresult destroyed(CUresult result, bool known, const struct jgpu_charge *taken) {
    if (known && result == CUDA_SUCCESS)
        jgpu_drop_charge(taken);
    else if (known)
        jgpu_restore_charge(taken);
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuArrayDestroy(CUarray array) {
    __typeof__(&cuArrayDestroy) real = JGPU_REAL(cuArrayDestroy);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (jgpu_inside != 0 || !jgpu_is_counted())
        return real(array);
    struct jgpu_charge taken;
    bool known = jgpu_take_charge(JGPU_ARRAY, (uint64_t)(uintptr_t)array, &taken);
    CUresult result;
    JGPU_CALL(result, real(array));
    return destroyed(result, known, &taken);
}

JGPU_EXPORT CUresult CUDAAPI cuMipmappedArrayDestroy(CUmipmappedArray array) {
    __typeof__(&cuMipmappedArrayDestroy) real = JGPU_REAL(cuMipmappedArrayDestroy);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (jgpu_inside != 0 || !jgpu_is_counted())
        return real(array);
    struct jgpu_charge taken;
    bool known = jgpu_take_charge(JGPU_MIPMAP, (uint64_t)(uintptr_t)array, &taken);
    CUresult result;
    JGPU_CALL(result, real(array));
    return destroyed(result, known, &taken);
}
