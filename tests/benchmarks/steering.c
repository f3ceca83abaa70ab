/* The same hash, lookup and table as kernels/lb, in plain C: what compiled Python is measured against.
   A pass over the hash and one over the ring, as there, so that the compiler may use vector instructions for the first. */

#include <stddef.h>
#include <stdint.h>

#define GOLDEN UINT64_C(0x9E3779B97F4A7C15)
#define FREE UINT32_C(0xFFFFFFFF)

static inline uint64_t mix64(uint64_t word) {
    word = (word ^ (word >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    word = (word ^ (word >> 27)) * UINT64_C(0x94D049BB133111EB);
    return word ^ (word >> 31);
}

static inline uint64_t destination(uint32_t ip, uint16_t port, uint8_t proto) {
    uint64_t word = (uint64_t)ip << 32 | (uint64_t)port << 8 | proto;
    word = (word ^ (word >> 32)) * UINT64_C(0xBF58476D1CE4E5B9);
    return word ^ (word >> 32);
}

static inline uint64_t frontend_hash(uint32_t ip, uint16_t port, uint8_t proto) {
    uint64_t word = destination(ip, port, proto) * UINT64_C(0x94D049BB133111EB);
    return word ^ (word >> 32);
}

static inline uint64_t flow_hash(uint32_t src_ip, uint32_t dst_ip, uint16_t src_port, uint16_t dst_port, uint8_t proto) {
    uint64_t word = mix64(((uint64_t)src_ip << 32 | src_port) ^ destination(dst_ip, dst_port, proto));
    return word | (word == 0);
}

void steer(const uint32_t *restrict src_ip, const uint32_t *restrict dst_ip, const uint16_t *restrict src_port,
           const uint16_t *restrict dst_port, const uint8_t *restrict proto, size_t flows,
           const uint32_t *restrict ring, uint64_t slots, uint32_t *restrict out) {
    for (size_t i = 0; i < flows; i++)
        out[i] = (uint32_t)(flow_hash(src_ip[i], dst_ip[i], src_port[i], dst_port[i], proto[i]) >> 32);
    for (size_t i = 0; i < flows; i++)
        out[i] = ring[(uint64_t)out[i] * slots >> 32];
}

/* INDEX: a slot of the index of frontends. */
struct slot {
    uint64_t key;
    uint32_t row, pool;
};

/* The slot of a frontend, or an empty one; the search begins with a cache line. */
static inline const struct slot *find(const struct slot *index, uint64_t slots, uint64_t key) {
    uint64_t at = key & (slots - 4);
    while (index[at].row && index[at].key != key)
        at = (at + 1) & (slots - 1);
    return &index[at];
}

enum { BLOCK = 512, AHEAD = 24 };

/* Frontend, ring and counters, without policy or conntrack, of flows that are allowed in and whose ring all frontends
   share. By blocks: hashes, then decisions, before which the memory is asked for what they need. */
void look_up(const uint32_t *restrict src_ip, const uint32_t *restrict dst_ip, const uint16_t *restrict src_port,
             const uint16_t *restrict dst_port, const uint8_t *restrict proto, size_t flows,
             const struct slot *restrict index, uint64_t slots_of_index, const uint32_t *restrict ring, uint64_t slots,
             int32_t *restrict active, uint32_t *restrict frontend, uint32_t *restrict backend) {
    uint64_t place[BLOCK];
    uint32_t key[BLOCK];
    for (size_t first = 0; first < flows; first += BLOCK) {
        size_t count = flows - first < BLOCK ? flows - first : BLOCK;
        for (size_t j = 0; j < count; j++) {
            size_t i = first + j;
            place[j] = frontend_hash(dst_ip[i], dst_port[i], proto[i]);
            key[j] = (uint32_t)(flow_hash(src_ip[i], dst_ip[i], src_port[i], dst_port[i], proto[i]) >> 32);
        }
        for (size_t j = 0; j < AHEAD && j < count; j++)
            __builtin_prefetch(&index[place[j] & (slots_of_index - 4)]);
        for (size_t j = 0; j < count; j++) {
            if (j + AHEAD < count)
                __builtin_prefetch(&index[place[j + AHEAD] & (slots_of_index - 4)]);
            size_t i = first + j;
            uint32_t row = find(index, slots_of_index, place[j])->row;
            frontend[i] = row;
            backend[i] = row ? ring[(uint64_t)key[j] * slots >> 32] : 0;
            active[backend[i]]++;
        }
    }
}

/* TRACK, four of which are a bucket. */
struct track {
    uint64_t key, held;
};

static inline int64_t place(const struct track *entries, uint64_t first, uint64_t key) {
    int64_t found = -1;
    for (int i = 0; i < 4; i++)
        found = entries[first + i].key == key ? (int64_t)first + i : found;
    return found;
}

/* Frontend and conntrack entry of flows that are all known, whose backends are as they were: by blocks, as above. Times are
   in ticks. Returns how many were found. */
size_t follow(const uint32_t *restrict src_ip, const uint32_t *restrict dst_ip, const uint16_t *restrict src_port,
              const uint16_t *restrict dst_port, const uint8_t *restrict proto, size_t flows,
              const struct slot *restrict index, uint64_t slots_of_index, struct track *restrict entries, uint64_t slots,
              const uint32_t *restrict fingerprints, uint64_t expires, uint64_t now, uint32_t *restrict frontend,
              uint32_t *restrict backend) {
    uint64_t home[BLOCK], key[BLOCK], first[BLOCK];
    size_t found = 0;
    for (size_t begin = 0; begin < flows; begin += BLOCK) {
        size_t count = flows - begin < BLOCK ? flows - begin : BLOCK;
        for (size_t j = 0; j < count; j++) {
            size_t i = begin + j;
            home[j] = frontend_hash(dst_ip[i], dst_port[i], proto[i]);
            key[j] = flow_hash(src_ip[i], dst_ip[i], src_port[i], dst_port[i], proto[i]);
            first[j] = ((key[j] & 0xFFFFFFFF) * (slots / 4) >> 32) * 4;
        }
        for (size_t j = 0; j < count; j++)
            __builtin_prefetch(&entries[first[j]], 1);
        for (size_t j = 0; j < count; j++) {
            size_t i = begin + j;
            uint32_t row = find(index, slots_of_index, home[j])->row;
            uint64_t bucket = first[j];
            int64_t seen;
            while ((seen = place(entries, bucket, key[j])) < 0 && place(entries, bucket, 0) < 0)
                bucket = bucket + 4 < slots ? bucket + 4 : 0;
            uint64_t held = seen < 0 ? 0 : entries[seen].held;
            uint32_t id = held & 0xFFFFFF;
            int live = seen >= 0 && (((held >> 40) - now - 1) & 0xFFFFFF) < 1 << 23 &&
                       !((held >> 24 ^ fingerprints[id]) & 0xFFFF);
            if (live)
                entries[seen].held = (held & 0xFFFFFFFFFF) | expires << 40;
            frontend[i] = row;
            backend[i] = live ? id : 0;
            found += live;
        }
    }
    return found;
}

/* What memory allows: a random cache line for each flow, read and written, and nothing else; asked for in time, from the
   core's second cache, for which more can be under way than for its first. */
uint64_t touch(uint64_t *restrict words, uint64_t lines, size_t flows) {
    uint64_t sum = 0;
    for (size_t i = 0; i < flows; i++) {
        __builtin_prefetch(&words[8 * (uint64_t)((unsigned __int128)mix64(i + 48) * lines >> 64)], 0, 2);
        uint64_t *word = &words[8 * (uint64_t)((unsigned __int128)mix64(i) * lines >> 64)];
        sum += *word;
        *word = sum;
    }
    return sum;
}

/* Endpoints of equal weight, in the order of their turns; at and skip are room for as many. */
void populate(const uint64_t *restrict seeds, uint32_t endpoints, uint32_t *restrict ring, uint32_t slots,
              uint32_t *restrict at, uint32_t *restrict skip) {
    for (uint32_t i = 0; i < endpoints; i++) {
        at[i] = (uint32_t)(mix64(seeds[i]) % slots);
        skip[i] = (uint32_t)(mix64(seeds[i] + GOLDEN) % (slots - 1) + 1);
    }
    for (uint32_t slot = 0; slot < slots; slot++)
        ring[slot] = FREE;
    for (uint32_t turn = 0, i = 0; turn < slots; turn++, i = i + 1 == endpoints ? 0 : i + 1) {
        uint32_t slot = at[i];
        while (ring[slot] != FREE) {
            slot += skip[i];
            slot -= slot >= slots ? slots : 0;
        }
        ring[slot] = i;
        at[i] = slot;
    }
}
