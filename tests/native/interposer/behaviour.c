/* What the interposer must keep to, one named behaviour per run:
 *
 *     behaviour --list | behaviour NAME
 *
 * Linked with the driver; JUPYTER_GPU_ACCOUNT names an account whose first device is the stand-in's first, with a cap
 * of 1 GiB. The stand-in has two devices of 4 GiB, and the lease has only the first.
 */
#include "behaviour.h"

struct jgpu_account account;
CUcontext context;

uint64_t used(void) { return jgpu_account_used(&account, 0); }
uint64_t peak(void) { return atomic_load(&jgpu_account_device(&account, 0)->peak); }
void set_cap(uint64_t cap) { atomic_store(&jgpu_account_device(&account, 0)->cap, cap); }
uint64_t pending(void) {
    uint64_t sum = 0;
    for (unsigned number = 0; number < account.slot_count; number++)
        sum += atomic_load(&jgpu_account_slot(&account, number)->amounts[account.device_count]);
    return sum;
}
unsigned slots(void) {
    unsigned count = 0;
    for (unsigned number = 0; number < account.slot_count; number++)
        count += atomic_load(&jgpu_account_slot(&account, number)->pid) != 0;
    return count;
}

void begin(void) {
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuCtxSetCurrent(context));
}

int main(int argc, char **argv) {
    const struct behaviour *all[] = {behaviours_of_memory, behaviours_of_virtual_memory, behaviours_of_pools,
                                     behaviours_of_processes};
    if (argc != 2)
        return 2;
    for (size_t file = 0; file < sizeof all / sizeof *all; file++) {
        for (const struct behaviour *one = all[file]; one->name != NULL; one++) {
            if (strcmp(argv[1], "--list") == 0)
                puts(one->name);
            if (strcmp(argv[1], one->name) != 0)
                continue;
            const char *path = getenv("JUPYTER_GPU_ACCOUNT");
            CHECK(path != NULL && jgpu_account_open(&account, path));
            one->run();
            EQUAL(standin_violations(WRONG_VERSION), 0);
            puts("held");
            return 0;
        }
    }
    return strcmp(argv[1], "--list") == 0 ? 0 : 2;
}
