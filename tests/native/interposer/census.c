/* What the stand-in's books say of its shared devices, without being a client: bytes that the living have in use on
 * the first device, the most they had at once, how often memory was taken beyond STANDIN_CUDA_LIMIT, how often by more
 * than one taking or one process at a time, and how often it was freed twice. */
#include <inttypes.h>
#include <stdio.h>

uint64_t standin_in_use(int device);
uint64_t standin_most_in_use(int device);
unsigned long standin_violations(int which);

int main(void) {
    printf("%" PRIu64 " %" PRIu64 " %lu %lu %lu\n", standin_in_use(0), standin_most_in_use(0), standin_violations(4),
           standin_violations(5), standin_violations(0));
    return 0;
}
