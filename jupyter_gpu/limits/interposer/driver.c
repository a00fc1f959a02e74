/* Finding the functions of the real driver, and telling by their address which of them are hooked.
 *
 * No lock is held over a call into the dynamic linker: a constructor that runs inside dlopen may call a hook, so a lock
 * of ours would meet the linker's own in the other order. All threads that get here at once find the same addresses.
 */
#define _GNU_SOURCE
#include "driver.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__clang__)
#define UNSANITIZED __attribute__((no_sanitize("address", "thread", "undefined"), noinline))
#else
#define UNSANITIZED __attribute__((noinline))
#endif

static const struct {
    const char *symbol;
    const char *name; /* NULL: not known to cuGetProcAddress */
    int version;
    int per_thread_stream;
    void *hook; /* NULL: only called */
} functions[JGPU_FUNCTIONS] = {
#define HOOK(symbol, name, version, stream) [JGPU_AT_##symbol] = {#symbol, #name, version, stream, (void *)&symbol},
#define NVML_HOOK(symbol) [JGPU_AT_##symbol] = {#symbol, NULL, 0, 0, (void *)&symbol},
#define HELPER(symbol) [JGPU_AT_##symbol] = {#symbol, NULL, 0, 0, NULL},
    JGPU_CUDA_HOOKS(HOOK) JGPU_NVML_HOOKS(NVML_HOOK) JGPU_CUDA_HELPERS(HELPER) JGPU_NVML_HELPERS(HELPER)
#undef HOOK
#undef NVML_HOOK
#undef HELPER
};

_Atomic(void *) jgpu_known[JGPU_FUNCTIONS];
static _Atomic bool cuda_found, nvml_found;

/* A driver may hand out other addresses through cuGetProcAddress than it exports. */
static _Atomic(void *) second[JGPU_HOOKS];

static bool is_nvml(enum jgpu_function function) { return strncmp(functions[function].symbol, "nvml", 4) == 0; }

/* ---- the C library's own dlsym, which cannot be asked for by name, since the name is ours ---- */

struct sought {
    const char *symbol;
    void *found;
};

static UNSANITIZED bool same(const char *a, const char *b) {
    while (*a != '\0' && *a == *b)
        a++, b++;
    return *a == *b;
}

static UNSANITIZED uint32_t gnu_hash(const char *name) {
    uint32_t hash = 5381;
    for (; *name != '\0'; name++)
        hash = hash * 33 + (unsigned char)*name;
    return hash;
}

static UNSANITIZED const ElfW(Sym) * symbol_named(const char *name, const ElfW(Sym) * symbols, const char *strings,
                                                   const uint32_t *gnu, const uint32_t *sysv) {
    if (gnu != NULL) {
        uint32_t bucket_count = gnu[0], first = gnu[1], bloom_words = gnu[2], hash = gnu_hash(name);
        const uint32_t *buckets = gnu + 4 + bloom_words * (sizeof(ElfW(Addr)) / 4), *chain = buckets + bucket_count;
        if (bucket_count == 0)
            return NULL;
        uint32_t at = buckets[hash % bucket_count];
        if (at < first)
            return NULL;
        for (;; at++) {
            uint32_t one = chain[at - first];
            if ((one | 1) == (hash | 1) && symbols[at].st_shndx != SHN_UNDEF &&
                same(strings + symbols[at].st_name, name))
                return &symbols[at];
            if (one & 1)
                return NULL;
        }
    }
    for (uint32_t at = 0; sysv != NULL && at < sysv[1]; at++)
        if (symbols[at].st_shndx != SHN_UNDEF && same(strings + symbols[at].st_name, name))
            return &symbols[at];
    return NULL;
}

static UNSANITIZED int look_in_c_library(struct dl_phdr_info *object, size_t size, void *argument) {
    (void)size;
    struct sought *sought = argument;
    const ElfW(Dyn) *dynamic = NULL;
    for (int number = 0; number < object->dlpi_phnum; number++)
        if (object->dlpi_phdr[number].p_type == PT_DYNAMIC)
            dynamic = (const ElfW(Dyn) *)(object->dlpi_addr + object->dlpi_phdr[number].p_vaddr);
    if (dynamic == NULL)
        return 0;
    const ElfW(Sym) *symbols = NULL;
    const char *strings = NULL;
    const uint32_t *gnu = NULL, *sysv = NULL;
    ElfW(Addr) soname = 0;
    bool named = false;
    for (; dynamic->d_tag != DT_NULL; dynamic++) {
        /* The linker replaces offsets by addresses in most objects, and leaves them in read-only ones. */
        ElfW(Addr) value = dynamic->d_un.d_ptr;
        ElfW(Addr) address = value < object->dlpi_addr ? value + object->dlpi_addr : value;
        if (dynamic->d_tag == DT_SYMTAB)
            symbols = (const ElfW(Sym) *)address;
        else if (dynamic->d_tag == DT_STRTAB)
            strings = (const char *)address;
        else if (dynamic->d_tag == DT_GNU_HASH)
            gnu = (const uint32_t *)address;
        else if (dynamic->d_tag == DT_HASH)
            sysv = (const uint32_t *)address;
        else if (dynamic->d_tag == DT_SONAME)
            soname = dynamic->d_un.d_val, named = true;
    }
    if (!named || symbols == NULL || strings == NULL)
        return 0;
    if (!same(strings + soname, "libc.so.6") && !same(strings + soname, "libdl.so.2"))
        return 0;
    const ElfW(Sym) *symbol = symbol_named(sought->symbol, symbols, strings, gnu, sysv);
    if (symbol == NULL)
        return 0;
    sought->found = (void *)(object->dlpi_addr + symbol->st_value);
    return 1;
}

static UNSANITIZED void *in_c_library(_Atomic(void *) *known, const char *symbol) {
    void *found = atomic_load_explicit(known, memory_order_relaxed);
    if (found != NULL)
        return found;
    struct sought sought = {symbol, NULL};
    dl_iterate_phdr(look_in_c_library, &sought);
    atomic_store_explicit(known, sought.found, memory_order_relaxed);
    return sought.found;
}

static _Atomic(void *) real_dlsym, real_dlvsym;

UNSANITIZED jgpu_dlsym_t *jgpu_real_dlsym(void) { return (jgpu_dlsym_t *)in_c_library(&real_dlsym, "dlsym"); }
UNSANITIZED jgpu_dlvsym_t *jgpu_real_dlvsym(void) { return (jgpu_dlvsym_t *)in_c_library(&real_dlvsym, "dlvsym"); }

/* ---- the driver ---- */

struct loaded {
    const char *prefix;
    char path[4096];
};

static int look_for_library(struct dl_phdr_info *object, size_t size, void *argument) {
    (void)size;
    struct loaded *loaded = argument;
    if (object->dlpi_name == NULL || strlen(object->dlpi_name) >= sizeof loaded->path)
        return 0;
    const char *base = strrchr(object->dlpi_name, '/');
    base = base == NULL ? object->dlpi_name : base + 1;
    if (strncmp(base, loaded->prefix, strlen(loaded->prefix)) != 0)
        return 0;
    strcpy(loaded->path, object->dlpi_name);
    return 1;
}

void *jgpu_hook_at(const void *address) {
    for (int number = 0; number < JGPU_HOOKS; number++)
        if (atomic_load_explicit(&jgpu_known[number], memory_order_acquire) == address ||
            atomic_load_explicit(&second[number], memory_order_acquire) == address)
            return functions[number].hook;
    return NULL;
}

/* Asking the driver for each hooked function, at the very version whose signature the hook has, makes known what second
 * address it may have. */
static void note_second_addresses(void) {
    void *ask = atomic_load(&jgpu_known[JGPU_AT_cuGetProcAddress_v2]);
    void *ask_as_before_12 = atomic_load(&jgpu_known[JGPU_AT_cuGetProcAddress]);
    for (int number = 0; number < JGPU_HOOKS; number++) {
        void *address = NULL;
        cuuint64_t stream = functions[number].per_thread_stream ? 2 : 1;
        if (functions[number].name == NULL || atomic_load(&jgpu_known[number]) == NULL)
            continue;
        CUresult result = CUDA_ERROR_NOT_FOUND;
        if (ask != NULL)
            result = ((__typeof__(&cuGetProcAddress_v2))ask)(functions[number].name, &address,
                                                             functions[number].version, stream, NULL);
        else if (ask_as_before_12 != NULL)
            result = ((__typeof__(&cuGetProcAddress))ask_as_before_12)(functions[number].name, &address,
                                                                       functions[number].version, stream);
        if (result == CUDA_SUCCESS && address != NULL && jgpu_hook_at(address) == NULL)
            atomic_store(&second[number], address);
    }
}

/* Idempotent, so that threads that come here at once need no lock. */
static bool find_library(bool nvml) {
    _Atomic bool *found = nvml ? &nvml_found : &cuda_found;
    if (atomic_load_explicit(found, memory_order_acquire))
        return true;
    struct loaded loaded = {.prefix = nvml ? "libnvidia-ml.so" : "libcuda.so"};
    jgpu_dlsym_t *look_up = jgpu_real_dlsym();
    if (look_up == NULL || dl_iterate_phdr(look_for_library, &loaded) == 0)
        return false;
    /* Never closed: the hooks keep calling into it. */
    void *library = dlopen(loaded.path, RTLD_NOLOAD | RTLD_LAZY);
    if (library == NULL) {
        dlerror();
        return false;
    }
    for (int number = 0; number < JGPU_FUNCTIONS; number++) {
        if (is_nvml((enum jgpu_function)number) != nvml)
            continue;
        void *address = look_up(library, functions[number].symbol);
        /* A library that links the driver finds this one before it. */
        if (address != NULL && address != functions[number].hook)
            atomic_store(&jgpu_known[number], address);
    }
    dlerror(); /* what an older driver lacks must not show as an error of the program's own next look-up */
    if (!nvml)
        note_second_addresses();
    atomic_store_explicit(found, true, memory_order_release);
    return true;
}

void *jgpu_find_real(enum jgpu_function function) {
    find_library(is_nvml(function));
    return atomic_load_explicit(&jgpu_known[function], memory_order_acquire);
}

void *jgpu_hook(enum jgpu_function function) { return functions[function].hook; }

enum jgpu_function jgpu_hook_named(const char *name) {
    for (int number = 0; number < JGPU_HOOKS; number++)
        if (strcmp(functions[number].symbol, name) == 0)
            return (enum jgpu_function)number;
    return JGPU_HOOKS;
}
