/* A hash table in 64 parts with a lock each. No lock is held while anything else is called. */
#define _GNU_SOURCE
#include "charges.h"

#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include "forget.h"

enum { PARTS = 64, LEAST_PLACES = 128 };

/* Memory comes from mmap, because malloc may be someone's who calls CUDA, and because a forked child must be able to
 * drop it. A place with kind 0 is free. */
static struct part {
    pthread_mutex_t lock;
    struct jgpu_charge *places;
    size_t size; /* a power of two, or 0 */
    size_t count;
} __attribute__((aligned(64))) parts[PARTS] = {[0 ... PARTS - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER}};

static uint64_t hash(enum jgpu_kind kind, uint64_t key) {
    uint64_t mixed = (key ^ ((uint64_t)kind << 58)) * 0x9e3779b97f4a7c15u;
    return mixed ^ (mixed >> 29);
}

static struct part *part_of(uint64_t hashed) { return &parts[(hashed >> 40) % PARTS]; }

static size_t place_of(const struct part *part, enum jgpu_kind kind, uint64_t key, uint64_t hashed) {
    size_t at = hashed & (part->size - 1);
    while (part->places[at].kind != 0 && (part->places[at].key != key || part->places[at].kind != kind))
        at = (at + 1) & (part->size - 1);
    return at;
}

static bool has_room(struct part *part) {
    if (part->size != 0 && part->count + 1 <= part->size - part->size / 4)
        return true;
    size_t size = part->size == 0 ? LEAST_PLACES : part->size * 2;
    struct jgpu_charge *places =
        mmap(NULL, size * sizeof *places, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (places == MAP_FAILED)
        return false;
    struct part larger = {.places = places, .size = size};
    for (size_t at = 0; at < part->size; at++) {
        struct jgpu_charge *charge = &part->places[at];
        if (charge->kind != 0)
            places[place_of(&larger, charge->kind, charge->key, hash(charge->kind, charge->key))] = *charge;
    }
    if (part->places != NULL)
        munmap(part->places, part->size * sizeof *part->places);
    part->places = places;
    part->size = size;
    return true;
}

/* Free a place, and move up what was put behind it only because it was taken. */
static void clear(struct part *part, size_t hole) {
    size_t mask = part->size - 1;
    for (size_t at = (hole + 1) & mask; part->places[at].kind != 0; at = (at + 1) & mask) {
        size_t wanted = hash(part->places[at].kind, part->places[at].key) & mask;
        if (((at - wanted) & mask) >= ((at - hole) & mask)) {
            part->places[hole] = part->places[at];
            hole = at;
        }
    }
    part->places[hole].kind = 0;
    part->count--;
}

bool jgpu_put_charge(const struct jgpu_charge *charge, struct jgpu_charge *old, bool *kept) {
    uint64_t hashed = hash(charge->kind, charge->key);
    struct part *part = part_of(hashed);
    bool replaced = false;
    pthread_mutex_lock(&part->lock);
    *kept = has_room(part);
    if (*kept) {
        size_t at = place_of(part, charge->kind, charge->key, hashed);
        replaced = part->places[at].kind != 0;
        if (replaced)
            *old = part->places[at];
        else
            part->count++;
        part->places[at] = *charge;
    }
    pthread_mutex_unlock(&part->lock);
    return replaced;
}

static bool find(enum jgpu_kind kind, uint64_t key, struct jgpu_charge *found, bool take) {
    uint64_t hashed = hash(kind, key);
    struct part *part = part_of(hashed);
    bool is_there = false;
    pthread_mutex_lock(&part->lock);
    if (part->size != 0) {
        size_t at = place_of(part, kind, key, hashed);
        is_there = part->places[at].kind != 0;
        if (is_there)
            *found = part->places[at];
        if (is_there && take)
            clear(part, at);
    }
    pthread_mutex_unlock(&part->lock);
    return is_there;
}

bool jgpu_find_charge(enum jgpu_kind kind, uint64_t key, struct jgpu_charge *found) {
    return find(kind, key, found, false);
}

bool jgpu_take_charge(enum jgpu_kind kind, uint64_t key, struct jgpu_charge *taken) {
    return find(kind, key, taken, true);
}

bool jgpu_take_charge_of(void *owner, unsigned *place, struct jgpu_charge *taken) {
    for (; *place < PARTS; ++*place) {
        struct part *part = &parts[*place];
        bool found = false;
        pthread_mutex_lock(&part->lock);
        for (size_t at = 0; !found && at < part->size; at++) {
            found = part->places[at].kind != 0 && part->places[at].owner == owner;
            if (found) {
                *taken = part->places[at];
                clear(part, at);
            }
        }
        pthread_mutex_unlock(&part->lock);
        if (found)
            return true;
    }
    return false;
}

void jgpu_forget_charges(void) {
    for (int number = 0; number < PARTS; number++) {
        struct part *part = &parts[number];
        pthread_mutex_init(&part->lock, NULL);
        /* A thread of the parent may have been amid a change, so nothing in there is looked at. */
        part->places = NULL;
        part->size = 0;
        part->count = 0;
    }
}
