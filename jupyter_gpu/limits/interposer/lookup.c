/* The ways to a driver function by name: dlsym, dlvsym and cuGetProcAddress.
 *
 * Each first asks the real resolver and then substitutes only where the answer is the address of a hooked function. The
 * name alone does not tell: cuMemAlloc is one function to dlsym and another to cuGetProcAddress, which differs by the
 * version it is asked for.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>

#include "driver.h"
#include "state.h"

/* Both are called before any sanitizer of a test build is set up. */
#if defined(__GNUC__) && !defined(__clang__)
#define UNSANITIZED __attribute__((no_sanitize("address", "thread", "undefined")))
#else
#define UNSANITIZED
#endif

JGPU_EXPORT void *dlsym(void *restrict handle, const char *restrict name);
JGPU_EXPORT void *dlvsym(void *restrict handle, const char *restrict name, const char *restrict version);

static void *substituted(void *found) {
    if (found == NULL || !jgpu_has_account())
        return found;
    void *hook = jgpu_hook_at(found);
    return hook == NULL ? found : hook;
}

/* A look-up of one of the resolvers themselves. */
static void *resolver(void *found) {
    if (found == (void *)jgpu_real_dlsym())
        return jgpu_has_account() ? (void *)&dlsym : found;
    if (found == (void *)jgpu_real_dlvsym())
        return jgpu_has_account() ? (void *)&dlvsym : found;
    return found;
}

static void *look_up(void *handle, const char *name, const char *version) {
    enum jgpu_function function = jgpu_hook_named(name);
    /* Before the program's own look-up, so that what dlerror says afterwards is about that one. */
    void *driver = function == JGPU_HOOKS ? NULL : jgpu_real(function);
    void *ours = driver == NULL ? NULL : jgpu_has_account() ? jgpu_hook(function) : driver;
    if (handle == RTLD_NEXT && ours != NULL && version == NULL)
        /* "Next" is meant from the caller's place. From this one it is the driver, which would leave the cap behind. */
        return ours;
    void *found = version == NULL ? jgpu_real_dlsym()(handle, name) : jgpu_real_dlvsym()(handle, name, version);
    if (function == JGPU_HOOKS)
        return resolver(found);
    if (found != jgpu_hook(function))
        return substituted(found);
    /* The global scope holds our own name even where no driver is loaded; then what comes after it counts. */
    return ours != NULL ? ours : jgpu_real_dlsym()(RTLD_NEXT, name);
}

static UNSANITIZED bool concerns_us(const char *name) {
    if (name == NULL)
        return false;
    if (name[0] == 'd')
        return strcmp(name, "dlsym") == 0 || strcmp(name, "dlvsym") == 0;
    if (!(name[0] == 'c' && name[1] == 'u') && !(name[0] == 'n' && name[1] == 'v'))
        return false;
    return jgpu_hook_named(name) != JGPU_HOOKS;
}

UNSANITIZED void *dlsym(void *restrict handle, const char *restrict name) {
    jgpu_dlsym_t *real = jgpu_real_dlsym();
    if (real == NULL)
        return NULL;
    if (concerns_us(name))
        return look_up(handle, name, NULL);
    /* As a tail call: RTLD_NEXT and RTLD_DEFAULT mean what they mean by the address that the real one returns to. */
    return real(handle, name);
}

UNSANITIZED void *dlvsym(void *restrict handle, const char *restrict name, const char *restrict version) {
    jgpu_dlvsym_t *real = jgpu_real_dlvsym();
    if (real == NULL)
        return NULL;
    if (concerns_us(name))
        return look_up(handle, name, version);
    return real(handle, name, version);
}

JGPU_EXPORT CUresult CUDAAPI cuGetProcAddress(const char *symbol, void **pfn, int version, cuuint64_t flags) {
    __typeof__(&cuGetProcAddress) real = JGPU_REAL(cuGetProcAddress);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = real(symbol, pfn, version, flags);
    if (result == CUDA_SUCCESS && pfn != NULL)
        *pfn = substituted(*pfn);
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuGetProcAddress_v2(const char *symbol, void **pfn, int version, cuuint64_t flags,
                                                 CUdriverProcAddressQueryResult *status) {
    __typeof__(&cuGetProcAddress_v2) real = JGPU_REAL(cuGetProcAddress_v2);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = real(symbol, pfn, version, flags, status);
    if (result == CUDA_SUCCESS && pfn != NULL)
        *pfn = substituted(*pfn);
    return result;
}
