/* Devices, contexts, streams and events of the stand-in. */
#include "standin.h"

enum { CONTEXT = 0xc0de, STREAM = 0x57ea, EVENT = 0xe7e7, STACK = 16 };

static __thread struct {
    struct CUctx_st *contexts[STACK];
    int count;
} stack;
static struct CUctx_st primary[STANDIN_MOST_DEVICES];

struct CUevent_st {
    unsigned magic;
};

struct CUctx_st *standin_context(const char *where) {
    struct CUctx_st *context = stack.count == 0 ? NULL : stack.contexts[stack.count - 1];
    if (context != NULL && context->magic == CONTEXT)
        return context;
    standin_violation(NO_CONTEXT, where);
    return NULL;
}

API CUresult cuInit(unsigned int flags) {
    (void)flags;
    standin_device_count();
    standin_initialised = true;
    return standin_trace("cuInit", 0, "%u", flags);
}

API CUresult cuDriverGetVersion(int *version) {
    *version = STANDIN_VERSION;
    return 0;
}

API CUresult cuDeviceGetCount(int *count) {
    if (!standin_initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    *count = standin_device_count();
    return 0;
}

API CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    if (!standin_initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    *device = ordinal;
    return standin_is_device(ordinal) ? 0 : 101;
}

API CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    snprintf(name, (size_t)length, "Stand-in GPU");
    return standin_is_device(device) ? 0 : 101;
}

/* Like a MIG instance's, the UUID of the second function is its own and that of the first its GPU's. */
API CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
    memset(uuid->bytes, 0x5d, sizeof uuid->bytes);
    uuid->bytes[15] = (char)device;
    return standin_is_device(device) ? 0 : 101;
}

API CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
    memset(uuid->bytes, 0x11, sizeof uuid->bytes);
    return standin_is_device(device) ? 0 : 101;
}

API CUresult cuDeviceGetPCIBusId(char *text, int length, CUdevice device) {
    snprintf(text, (size_t)length, "0000:%02x:00.0", device + 1);
    return 0;
}

API CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    if (!standin_is_device(device))
        return 101;
    switch (attribute) {
    case 75: /* compute capability */
        *value = 9;
        break;
    case 76:
        *value = 0;
        break;
    case 1:
        *value = 1024;
        break;
    case 10:
        *value = 32;
        break;
    case 16:
        *value = 132;
        break;
    case 41: /* unified addressing */
    case 83: /* managed memory */
    case 89: /* concurrent managed access */
    case 102: /* virtual memory management */
    case 103: /* file descriptors as handles */
    case 115: /* memory pools */
        *value = 1;
        break;
    case 119: /* handle types of pools */
        *value = 1;
        break;
    default:
        *value = 0;
    }
    return 0;
}

API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    *bytes = standin_size(device);
    return standin_trace("cuDeviceTotalMem_v2", standin_is_device(device) ? 0 : 101, "%d", device);
}

API CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
    struct CUctx_st *context = standin_context("cuMemGetInfo_v2");
    if (context == NULL)
        return STANDIN_INVALID_CONTEXT;
    if (free != NULL)
        *free = standin_size(context->device) - standin_in_use(context->device);
    if (total != NULL)
        *total = standin_size(context->device);
    return standin_trace("cuMemGetInfo_v2", 0, "%p, %p", (void *)free, (void *)total);
}

API CUresult cuCtxGetCurrent(CUcontext *context) {
    if (!standin_initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    *context = stack.count == 0 ? NULL : stack.contexts[stack.count - 1];
    return 0;
}

API CUresult cuCtxPushCurrent_v2(CUcontext context) {
    if (context == NULL || context->magic != CONTEXT || stack.count == STACK)
        return STANDIN_INVALID_CONTEXT;
    stack.contexts[stack.count++] = context;
    return 0;
}

API CUresult cuCtxPopCurrent_v2(CUcontext *context) {
    if (stack.count == 0)
        return STANDIN_INVALID_CONTEXT;
    stack.count--;
    if (context != NULL)
        *context = stack.contexts[stack.count];
    return 0;
}

API CUresult cuCtxSetCurrent(CUcontext context) {
    if (context != NULL && context->magic != CONTEXT)
        return STANDIN_INVALID_CONTEXT;
    if (stack.count > 0)
        stack.count--;
    if (context != NULL)
        stack.contexts[stack.count++] = context;
    return 0;
}

API CUresult cuCtxGetDevice(CUdevice *device) {
    struct CUctx_st *context = stack.count == 0 ? NULL : stack.contexts[stack.count - 1];
    if (context == NULL)
        return STANDIN_INVALID_CONTEXT;
    *device = context->device;
    return 0;
}

#if STANDIN_VERSION >= 13000
API CUresult cuCtxGetDevice_v2(CUdevice *device, CUcontext context) {
    if (context == NULL)
        return cuCtxGetDevice(device);
    *device = context->device;
    return 0;
}
#endif

API CUresult cuCtxGetApiVersion(CUcontext context, unsigned int *version) {
    *version = context == NULL ? 0 : 3020;
    return 0;
}

API CUresult cuCtxGetFlags(unsigned int *flags) {
    *flags = 0;
    return 0;
}

API CUresult cuCtxGetId(CUcontext context, unsigned long long *number) {
    *number = (uintptr_t)context;
    return 0;
}

API CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return 0;
}

static CUresult create(CUcontext *context, CUdevice device) {
    if (!standin_is_device(device))
        return 101;
    *context = calloc(1, sizeof **context);
    **context = (struct CUctx_st){.magic = CONTEXT, .device = device};
    return cuCtxPushCurrent_v2(*context);
}

API CUresult cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device) {
    return standin_trace("cuCtxCreate_v2", create(context, device), "%u, %d", flags, device);
}

API CUresult cuCtxCreate_v4(CUcontext *context, void *params, unsigned int flags, CUdevice device) {
    return standin_trace("cuCtxCreate_v4", create(context, device), "%p, %u, %d", params, flags, device);
}

static void end(struct CUctx_st *context) {
    standin_synchronise(NULL);
    standin_drop_context_memory(context);
    standin_drop_arrays(context);
}

API CUresult cuCtxDestroy_v2(CUcontext context) {
    if (context == NULL || context->magic != CONTEXT || context->is_primary) {
        standin_violation(INVALID_USE, "cuCtxDestroy_v2");
        return STANDIN_INVALID_CONTEXT;
    }
    pthread_mutex_lock(&standin_lock);
    end(context);
    pthread_mutex_unlock(&standin_lock);
    context->magic = 0;
    if (stack.count > 0 && stack.contexts[stack.count - 1] == context)
        stack.count--;
    standin_trace("cuCtxDestroy_v2", 0, "%p", (void *)context);
    free(context);
    return 0;
}

API CUresult cuCtxDestroy(CUcontext context) {
    standin_violation(WRONG_VERSION, "cuCtxDestroy");
    return cuCtxDestroy_v2(context);
}

API CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    if (!standin_initialised)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!standin_is_device(device))
        return 101;
    pthread_mutex_lock(&standin_lock);
    primary[device].magic = CONTEXT;
    primary[device].device = device;
    primary[device].is_primary = true;
    primary[device].retained++;
    *context = &primary[device];
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuDevicePrimaryCtxRetain", 0, "%d", device);
}

API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    if (!standin_is_device(device) || primary[device].retained == 0) {
        standin_violation(INVALID_USE, "cuDevicePrimaryCtxRelease_v2");
        return STANDIN_INVALID_CONTEXT;
    }
    pthread_mutex_lock(&standin_lock);
    if (--primary[device].retained == 0)
        end(&primary[device]);
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuDevicePrimaryCtxRelease_v2", 0, "%d", device);
}

API CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
    if (!standin_is_device(device))
        return 101;
    pthread_mutex_lock(&standin_lock);
    end(&primary[device]);
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuDevicePrimaryCtxReset_v2", 0, "%d", device);
}

API CUresult cuDevicePrimaryCtxRelease(CUdevice device) { return cuDevicePrimaryCtxRelease_v2(device); }

API CUresult cuDevicePrimaryCtxReset(CUdevice device) { return cuDevicePrimaryCtxReset_v2(device); }

API CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active) {
    if (!standin_is_device(device))
        return 101;
    *flags = 0;
    *active = primary[device].retained > 0;
    return 0;
}

API CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned int flags) {
    (void)flags;
    return standin_is_device(device) ? 0 : 101;
}

/* ---- streams and events ---- */

API CUresult cuStreamCreate(CUstream *stream, unsigned int flags) {
    struct CUctx_st *context = standin_context("cuStreamCreate");
    if (context == NULL)
        return STANDIN_INVALID_CONTEXT;
    *stream = calloc(1, sizeof **stream);
    **stream = (struct CUstream_st){.magic = STREAM, .context = context};
    return standin_trace("cuStreamCreate", 0, "%u", flags);
}

API CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned int flags, int priority) {
    (void)priority;
    return cuStreamCreate(stream, flags);
}

static bool is_default(CUstream stream) { return (uintptr_t)stream <= 2; }

API CUresult cuStreamDestroy_v2(CUstream stream) {
    if (is_default(stream) || stream->magic != STREAM) {
        standin_violation(INVALID_USE, "cuStreamDestroy_v2");
        return STANDIN_INVALID_HANDLE;
    }
    pthread_mutex_lock(&standin_lock);
    standin_synchronise(stream);
    pthread_mutex_unlock(&standin_lock);
    stream->magic = 0;
    free(stream);
    return 0;
}

API CUresult cuStreamQuery(CUstream stream) {
    (void)stream;
    return 0;
}

API CUresult cuStreamGetCtx(CUstream stream, CUcontext *context) {
    *context = is_default(stream) ? standin_context("cuStreamGetCtx") : stream->context;
    return *context == NULL ? STANDIN_INVALID_CONTEXT : 0;
}

API CUresult cuStreamGetCtx_ptsz(CUstream stream, CUcontext *context) { return cuStreamGetCtx(stream, context); }

API CUresult cuStreamGetFlags(CUstream stream, unsigned int *flags) {
    (void)stream;
    *flags = 1;
    return 0;
}

API CUresult cuStreamGetPriority(CUstream stream, int *priority) {
    (void)stream;
    *priority = 0;
    return 0;
}

API CUresult cuStreamGetId(CUstream stream, unsigned long long *number) {
    *number = (uintptr_t)stream;
    return 0;
}

API CUresult cuStreamGetDevice(CUstream stream, CUdevice *device) {
    if (is_default(stream))
        return cuCtxGetDevice(device);
    *device = stream->context->device;
    return 0;
}

API CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status) {
    *status = !is_default(stream) && stream->capturing;
    return 0;
}

API CUresult cuStreamIsCapturing_ptsz(CUstream stream, CUstreamCaptureStatus *status) {
    return cuStreamIsCapturing(stream, status);
}

API CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode) {
    static __thread CUstreamCaptureMode now;
    CUstreamCaptureMode before = now;
    now = *mode;
    *mode = before;
    return 0;
}

API CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags) {
    (void)stream, (void)event, (void)flags;
    return 0;
}

static CUresult synchronise(CUstream stream, const char *name) {
    if (!is_default(stream) && stream->capturing) {
        standin_violation(INVALID_USE, name);
        return 900;
    }
    pthread_mutex_lock(&standin_lock);
    standin_synchronise(is_default(stream) ? NULL : stream);
    pthread_mutex_unlock(&standin_lock);
    return standin_trace(name, 0, "%p", (void *)stream);
}

API CUresult cuStreamSynchronize(CUstream stream) { return synchronise(stream, "cuStreamSynchronize"); }

API CUresult cuStreamSynchronize_ptsz(CUstream stream) { return synchronise(stream, "cuStreamSynchronize_ptsz"); }

API CUresult cuCtxSynchronize(void) { return synchronise(NULL, "cuCtxSynchronize"); }

#if STANDIN_VERSION >= 13000
API CUresult cuCtxSynchronize_v2(CUcontext context) {
    (void)context;
    return synchronise(NULL, "cuCtxSynchronize_v2");
}
#endif

API CUresult cuEventCreate(CUevent *event, unsigned int flags) {
    (void)flags;
    *event = calloc(1, sizeof **event);
    (*event)->magic = EVENT;
    return 0;
}

API CUresult cuEventRecord(CUevent event, CUstream stream) {
    (void)event, (void)stream;
    return 0;
}

API CUresult cuEventQuery(CUevent event) {
    (void)event;
    return 0;
}

API CUresult cuEventSynchronize(CUevent event) {
    if (event == NULL || event->magic != EVENT)
        return STANDIN_INVALID_HANDLE;
    return synchronise(NULL, "cuEventSynchronize");
}

API CUresult cuEventDestroy_v2(CUevent event) {
    free(event);
    return 0;
}

/* Where the CUDA run time stops: the tables behind these identifiers are the driver's private business. */
API CUresult cuGetExportTable(const void **table, const CUuuid *number) {
    (void)number;
    *table = NULL;
    return CUDA_ERROR_NOT_FOUND;
}

API CUresult cuGetErrorName(CUresult error, const char **text) {
    *text = error == 0 ? "CUDA_SUCCESS" : error == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR";
    return 0;
}

API CUresult cuGetErrorString(CUresult error, const char **text) {
    *text = error == 0 ? "no error" : error == 2 ? "out of memory" : "an error";
    return 0;
}
