/* Two libraries in one file: one has a function, and the other, which links the first, looks it up by its bare name.
 * Where both are loaded for themselves alone, only the place of the caller makes that name found. */
#define _GNU_SOURCE
#include <dlfcn.h>

#ifdef SCOPE_HAS
int only_here(void);
int only_here(void) { return 42; }
#else
int find_it(void);
int find_it(void) {
    int (*found)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "only_here");
    return found == (void *)0 ? 0 : found();
}
#endif
