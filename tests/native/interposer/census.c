/* What the stand-in's books say of its shared devices, without being a client: bytes that the living have in use on
 * the first device, the most they had at once, and how often more than STANDIN_CUDA_LIMIT was in use, or memory freed
 * twice. */
#include <inttypes.h>
#include <stdio.h>

uint64_t standin_in_use(int device);
uint64_t standin_most_in_use(int device);
unsigned long standin_violations(int which);

int main(void) {
    printf("%" PRIu64 " %" PRIu64 " %lu %lu\n", standin_in_use(0), standin_most_in_use(0), standin_violations(4),
           standin_violations(0));
    return 0;
}
