/* Preloaded before the interposer: writes down what a program's look-ups of driver functions are answered with.
 *
 * A line per answer in the file OBSERVER_LOG: the way, the name, the version, the object that the answer lies in, and
 * the symbol there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VISIBLE __attribute__((visibility("default")))

VISIBLE void *dlsym(void *restrict handle, const char *restrict name);

static void note(const char *way, const char *name, int version, void *answer) {
    Dl_info info = {0};
    const char *path = getenv("OBSERVER_LOG");
    FILE *log = path == NULL ? NULL : fopen(path, "ae");
    if (log == NULL)
        return;
    if (answer != NULL)
        dladdr(answer, &info);
    fprintf(log, "%s\t%s\t%d\t%s\t%s\n", way, name, version, info.dli_fname == NULL ? "-" : info.dli_fname,
            info.dli_sname == NULL ? "-" : info.dli_sname);
    fclose(log);
}

typedef int first(const char *, void **, int, uint64_t);
typedef int second(const char *, void **, int, uint64_t, int *);
static first *next_first;
static second *next_second;

static int observe_second(const char *name, void **found, int version, uint64_t flags, int *status);

static int observe_first(const char *name, void **found, int version, uint64_t flags) {
    int result = next_first(name, found, version, flags);
    note("cuGetProcAddress", name, version, result == 0 ? *found : NULL);
    return result;
}

static void *observed(const char *name, void *answer) {
    if (answer != NULL && strcmp(name, "cuGetProcAddress") == 0) {
        next_first = (first *)answer;
        return (void *)&observe_first;
    }
    if (answer != NULL && strcmp(name, "cuGetProcAddress_v2") == 0) {
        next_second = (second *)answer;
        return (void *)&observe_second;
    }
    return answer;
}

static int observe_second(const char *name, void **found, int version, uint64_t flags, int *status) {
    int result = next_second(name, found, version, flags, status);
    note("cuGetProcAddress_v2", name, version, result == 0 ? *found : NULL);
    /* Asked for itself, as the CUDA run time does. */
    if (result == 0 && strcmp(name, "cuGetProcAddress") == 0)
        *found = observed(version >= 12000 ? "cuGetProcAddress_v2" : "cuGetProcAddress", *found);
    return result;
}

void *dlsym(void *restrict handle, const char *restrict name) {
    static void *(*next)(void *restrict, const char *restrict);
#if defined(__aarch64__)
    const char *version = "GLIBC_2.17";
#else
    const char *version = "GLIBC_2.2.5";
#endif
    if (next == NULL)
        next = (void *(*)(void *restrict, const char *restrict))dlvsym(RTLD_NEXT, "dlsym", version);
    if (strncmp(name, "cu", 2) != 0 || strncmp(name, "cuda", 4) == 0)
        return next(handle, name);
    void *answer = next(handle, name);
    note("dlsym", name, 0, answer);
    return observed(name, answer);
}
