/* What a user may preload: a wrapper around one driver function, which counts and passes on, as profilers do. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../../jupyter_gpu/limits/interposer/driver_functions.h"

CUresult CUDAAPI cuMemAlloc_v2(CUdeviceptr *pointer, size_t size) {
    static __typeof__(&cuMemAlloc_v2) next;
    if (next == NULL)
        next = (__typeof__(next))dlsym(RTLD_NEXT, "cuMemAlloc_v2");
    const char *path = getenv("WRAPPER_LOG");
    FILE *log = path == NULL ? NULL : fopen(path, "ae");
    if (log != NULL) {
        fputs("x", log);
        fclose(log);
    }
    return next(pointer, size);
}
