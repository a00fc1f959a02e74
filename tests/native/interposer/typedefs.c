/* Every hook has the type that cudaTypedefs.h gives its name at its version; the compiler compares. */
#define JGPU_CUDA_HEADERS
#include "../../../jupyter_gpu/limits/interposer/driver.h"

#include <cudaTypedefs.h>

#define SUFFIX_0
#define SUFFIX_1 _ptsz
#define JOIN(a, b) a##b
#define TYPE(name, version, suffix) JOIN(PFN_##name##_v##version, suffix)
#define IS(symbol, name, version, stream) TYPE(name, version, SUFFIX_##stream) type_of_##symbol = symbol;

JGPU_CUDA_HOOKS(IS)
