/* cuGetProcAddress of the stand-in: name, version and kind of default stream decide, as in cudaTypedefs.h. */
#include "standin.h"
#include "symbols.h"

/* Whoever asks by name gets the newest function that is no newer than the version asked for. */
static const struct {
    const char *name;
    int version;
    int per_thread; /* 1: only for callers with a default stream per thread */
    const char *symbol;
} table[] = {
    {"cuGetProcAddress", 11030, 0, "cuGetProcAddress"},
    {"cuGetProcAddress", 12000, 0, "cuGetProcAddress_v2"},
    {"cuMemAlloc", 2000, 0, "cuMemAlloc"},
    {"cuMemAlloc", 3020, 0, "cuMemAlloc_v2"},
    {"cuMemAllocPitch", 2000, 0, "cuMemAllocPitch"},
    {"cuMemAllocPitch", 3020, 0, "cuMemAllocPitch_v2"},
    {"cuMemFree", 2000, 0, "cuMemFree"},
    {"cuMemFree", 3020, 0, "cuMemFree_v2"},
    {"cuMemGetInfo", 2000, 0, "cuMemGetInfo"},
    {"cuMemGetInfo", 3020, 0, "cuMemGetInfo_v2"},
    {"cuDeviceTotalMem", 2000, 0, "cuDeviceTotalMem"},
    {"cuDeviceTotalMem", 3020, 0, "cuDeviceTotalMem_v2"},
    {"cuArrayCreate", 2000, 0, "cuArrayCreate"},
    {"cuArrayCreate", 3020, 0, "cuArrayCreate_v2"},
    {"cuArray3DCreate", 2000, 0, "cuArray3DCreate"},
    {"cuArray3DCreate", 3020, 0, "cuArray3DCreate_v2"},
    {"cuMemAllocAsync", 11020, 1, "cuMemAllocAsync_ptsz"},
    {"cuMemAllocFromPoolAsync", 11020, 1, "cuMemAllocFromPoolAsync_ptsz"},
    {"cuMemFreeAsync", 11020, 1, "cuMemFreeAsync_ptsz"},
    {"cuStreamSynchronize", 7000, 1, "cuStreamSynchronize_ptsz"},
    {"cuStreamGetCtx", 9020, 1, "cuStreamGetCtx_ptsz"},
    {"cuStreamIsCapturing", 10000, 1, "cuStreamIsCapturing_ptsz"},
    {"cuGraphInstantiateWithParams", 12000, 1, "cuGraphInstantiateWithParams_ptsz"},
    {"cuGraphUpload", 11010, 1, "cuGraphUpload_ptsz"},
    {"cuGraphLaunch", 10000, 1, "cuGraphLaunch_ptsz"},
    {"cuGraphInstantiate", 10000, 0, "cuGraphInstantiate"},
    {"cuGraphInstantiate", 11000, 0, "cuGraphInstantiate_v2"},
    {"cuGraphInstantiate", 11040, 0, "cuGraphInstantiateWithFlags"},
    {"cuCtxCreate", 3020, 0, "cuCtxCreate_v2"},
    {"cuCtxCreate", 12050, 0, "cuCtxCreate_v4"},
    {"cuCtxDestroy", 2000, 0, "cuCtxDestroy"},
    {"cuCtxDestroy", 4000, 0, "cuCtxDestroy_v2"},
    {"cuCtxPushCurrent", 4000, 0, "cuCtxPushCurrent_v2"},
    {"cuCtxPopCurrent", 4000, 0, "cuCtxPopCurrent_v2"},
    {"cuCtxSynchronize", 13000, 0, "cuCtxSynchronize_v2"},
    {"cuCtxGetDevice", 13000, 0, "cuCtxGetDevice_v2"},
    {"cuDevicePrimaryCtxRelease", 7000, 0, "cuDevicePrimaryCtxRelease"},
    {"cuDevicePrimaryCtxRelease", 11000, 0, "cuDevicePrimaryCtxRelease_v2"},
    {"cuDevicePrimaryCtxReset", 7000, 0, "cuDevicePrimaryCtxReset"},
    {"cuDevicePrimaryCtxReset", 11000, 0, "cuDevicePrimaryCtxReset_v2"},
    {"cuDevicePrimaryCtxSetFlags", 11000, 0, "cuDevicePrimaryCtxSetFlags_v2"},
    {"cuDeviceGetUuid", 9020, 0, "cuDeviceGetUuid"},
    {"cuDeviceGetUuid", 11040, 0, "cuDeviceGetUuid_v2"},
    {"cuStreamDestroy", 4000, 0, "cuStreamDestroy_v2"},
    {"cuStreamBeginCapture", 10010, 0, "cuStreamBeginCapture_v2"},
    {"cuEventDestroy", 4000, 0, "cuEventDestroy_v2"},
    {"cuMemGetAddressRange", 3020, 0, "cuMemGetAddressRange_v2"},
    {"cuMemsetD8", 3020, 0, "cuMemsetD8_v2"},
    {"cuMemcpyHtoD", 3020, 0, "cuMemcpyHtoD_v2"},
    {"cuMemcpyDtoH", 3020, 0, "cuMemcpyDtoH_v2"},
};

/* By address and not by dlsym, which may be somebody else's. */
#define DECLARE(symbol) extern const char at_##symbol[] __asm__(#symbol);
#define ROW(symbol) {#symbol, at_##symbol},
STANDIN_SYMBOLS(DECLARE)
STANDIN_SYMBOLS_OF_13(DECLARE)

static void *own_symbol(const char *symbol) {
    static const struct {
        const char *name;
        const char *address;
    } symbols[] = {STANDIN_SYMBOLS(ROW) STANDIN_SYMBOLS_OF_13(ROW)};
    for (size_t number = 0; number < sizeof symbols / sizeof *symbols; number++)
        if (strcmp(symbols[number].name, symbol) == 0)
            return (void *)(uintptr_t)symbols[number].address;
    return NULL;
}

#if defined(__x86_64__)
/* Other addresses for the same functions: a page of jumps. */
#include <sys/mman.h>

static void *second_address(void *address) {
    static struct jump {
        unsigned char code[12]; /* movabs $address, %rax; jmp *%rax */
        void *target;
        unsigned char padding[12];
    } __attribute__((packed)) *jumps;
    static int count;
    enum { ROOM = 256 };
    if (jumps == NULL)
        jumps = mmap(NULL, ROOM * sizeof *jumps, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                     0);
    for (int number = 0; number < count; number++)
        if (jumps[number].target == address)
            return &jumps[number];
    if (count == ROOM)
        return address;
    struct jump *jump = &jumps[count++];
    memcpy(jump->code, "\x48\xb8", 2);
    memcpy(jump->code + 2, &address, 8);
    memcpy(jump->code + 10, "\xff\xe0", 2);
    jump->target = address;
    return jump;
}
#else
static void *second_address(void *address) { return address; }
#endif

static CUresult look_up(const char *symbol, void **found, int version, cuuint64_t flags, int *status) {
    const char *best = NULL;
    int best_version = 0;
    *found = NULL;
    for (size_t number = 0; number < sizeof table / sizeof *table; number++) {
        if (strcmp(table[number].name, symbol) != 0 || table[number].version > version ||
            table[number].version > STANDIN_VERSION)
            continue;
        if (table[number].per_thread != (flags == 2) && table[number].per_thread)
            continue;
        if (table[number].version >= best_version && own_symbol(table[number].symbol) != NULL) {
            best = table[number].symbol;
            best_version = table[number].version;
        }
    }
    *found = own_symbol(best == NULL ? symbol : best);
    const char *second = getenv("STANDIN_CUDA_SECOND_ADDRESSES");
    if (*found != NULL && second != NULL && *second == '1')
        *found = second_address(*found);
    if (status != NULL)
        *status = *found == NULL ? 1 : 0;
    return *found == NULL ? CUDA_ERROR_NOT_FOUND : 0;
}

API CUresult cuGetProcAddress(const char *symbol, void **pfn, int version, cuuint64_t flags) {
    pthread_mutex_lock(&standin_lock);
    CUresult result = look_up(symbol, pfn, version, flags, NULL);
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuGetProcAddress", result, "%s, %d, %d", symbol, version, (int)flags);
}

API CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int version, cuuint64_t flags,
                                 CUdriverProcAddressQueryResult *status) {
    int found = 0;
    pthread_mutex_lock(&standin_lock);
    look_up(symbol, pfn, version, flags, &found);
    pthread_mutex_unlock(&standin_lock);
    if (status != NULL)
        *status = (CUdriverProcAddressQueryResult)found;
    return standin_trace("cuGetProcAddress_v2", 0, "%s, %d, %d: %d", symbol, version, (int)flags, found);
}
