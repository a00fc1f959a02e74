/* Contexts, which take their memory along when they go, and the synchronisations at which pools shrink. */
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

#include "forget.h"
#include "memory.h"
#include "pools.h"

enum { PRIMARY_CONTEXTS = 64 };

static CUcontext _Atomic primary[PRIMARY_CONTEXTS];

void jgpu_forget_contexts(void) {
    for (int device = 0; device < PRIMARY_CONTEXTS; device++)
        atomic_store(&primary[device], NULL);
}

static void drop_all_of(CUcontext context) {
    struct jgpu_charge taken;
    unsigned place = 0;
    while (context != NULL && jgpu_take_charge_of(context, &place, &taken))
        jgpu_drop_charge(&taken);
}

/* A list of what a context has, taken out before it is destroyed: its address may be another context's at once. */
struct taken {
    struct taken *next;
    struct jgpu_charge charge;
};

static struct taken *take_all_of(CUcontext context) {
    struct taken *list = NULL;
    struct jgpu_charge charge;
    unsigned place = 0;
    while (context != NULL && jgpu_take_charge_of(context, &place, &charge)) {
        struct taken *one = malloc(sizeof *one);
        if (one == NULL) {
            jgpu_drop_charge(&charge);
            continue;
        }
        *one = (struct taken){.next = list, .charge = charge};
        list = one;
    }
    return list;
}

static CUresult destroy(CUresult (*real)(CUcontext), CUcontext context) {
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (jgpu_inside != 0 || !jgpu_is_counted())
        return real(context);
    struct taken *list = take_all_of(context);
    CUresult result;
    JGPU_CALL(result, real(context));
    while (list != NULL) {
        struct taken *one = list;
        list = one->next;
        if (result == CUDA_SUCCESS)
            jgpu_drop_charge(&one->charge);
        else
            jgpu_restore_charge(&one->charge);
        free(one);
    }
    jgpu_look_at_pools();
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuCtxDestroy(CUcontext context) { return destroy(JGPU_REAL(cuCtxDestroy), context); }

JGPU_EXPORT CUresult CUDAAPI cuCtxDestroy_v2(CUcontext context) { return destroy(JGPU_REAL(cuCtxDestroy_v2), context); }

JGPU_EXPORT CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    __typeof__(&cuDevicePrimaryCtxRetain) real = JGPU_REAL(cuDevicePrimaryCtxRetain);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = real(context, device);
    if (result == CUDA_SUCCESS && context != NULL && device >= 0 && device < PRIMARY_CONTEXTS)
        atomic_store(&primary[device], *context);
    return result;
}

/* After a release or a reset: whether the context is gone, the driver says. */
static CUresult released(CUresult result, CUdevice device) {
    if (result != CUDA_SUCCESS || device < 0 || device >= PRIMARY_CONTEXTS || jgpu_inside != 0 || !jgpu_is_counted())
        return result;
    __typeof__(&cuDevicePrimaryCtxGetState) get_state = JGPU_REAL(cuDevicePrimaryCtxGetState);
    unsigned flags;
    int active = 1;
    if (get_state != NULL && get_state(device, &flags, &active) == CUDA_SUCCESS && active == 0)
        drop_all_of(atomic_load(&primary[device]));
    jgpu_look_at_pools();
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuDevicePrimaryCtxRelease(CUdevice device) {
    __typeof__(&cuDevicePrimaryCtxRelease) real = JGPU_REAL(cuDevicePrimaryCtxRelease);
    return real == NULL ? CUDA_ERROR_NOT_INITIALIZED : released(real(device), device);
}

JGPU_EXPORT CUresult CUDAAPI cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    __typeof__(&cuDevicePrimaryCtxRelease_v2) real = JGPU_REAL(cuDevicePrimaryCtxRelease_v2);
    return real == NULL ? CUDA_ERROR_NOT_INITIALIZED : released(real(device), device);
}

static CUresult reset(CUresult (*real)(CUdevice), CUdevice device) {
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = real(device);
    if (result == CUDA_SUCCESS && device >= 0 && device < PRIMARY_CONTEXTS && jgpu_inside == 0 && jgpu_is_counted()) {
        drop_all_of(atomic_load(&primary[device])); /* all its memory is gone, however many still retain it */
        jgpu_look_at_pools();
    }
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuDevicePrimaryCtxReset(CUdevice device) {
    return reset(JGPU_REAL(cuDevicePrimaryCtxReset), device);
}

JGPU_EXPORT CUresult CUDAAPI cuDevicePrimaryCtxReset_v2(CUdevice device) {
    return reset(JGPU_REAL(cuDevicePrimaryCtxReset_v2), device);
}

JGPU_EXPORT CUresult CUDAAPI cuStreamSynchronize(CUstream stream) {
    __typeof__(&cuStreamSynchronize) real = JGPU_REAL(cuStreamSynchronize);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = real(stream);
    jgpu_look_at_pools();
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuStreamSynchronize_ptsz(CUstream stream) {
    __typeof__(&cuStreamSynchronize_ptsz) real = JGPU_REAL(cuStreamSynchronize_ptsz);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = real(stream);
    jgpu_look_at_pools();
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuEventSynchronize(CUevent event) {
    __typeof__(&cuEventSynchronize) real = JGPU_REAL(cuEventSynchronize);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = real(event);
    jgpu_look_at_pools();
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuCtxSynchronize(void) {
    __typeof__(&cuCtxSynchronize) real = JGPU_REAL(cuCtxSynchronize);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = real();
    jgpu_look_at_pools();
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuCtxSynchronize_v2(CUcontext context) {
    __typeof__(&cuCtxSynchronize_v2) real = JGPU_REAL(cuCtxSynchronize_v2);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = real(context);
    jgpu_look_at_pools();
    return result;
}
