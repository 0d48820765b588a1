/* Block Gibbs sampling of Ising spins, chains side by side in vectors. What it computes is said in reference.py, bit
 * for bit: the words come from counters, fields are summed in the order of the edges, and only correctly rounded
 * operations are used, without contraction (J s is exact, so a fused multiply-add would change nothing).
 *
 * Chains are cut into groups of 16 or 32; a group keeps its spins as [node][chain] in float, so the field of a spin is a
 * sum of vectors times numbers. A group does all its sweeps on one thread: threads change no bit, and nor does the
 * width of the groups, because a chain depends on its own number only.
 *
 * As in mho.crossbar.kernels no OpenMP runtime is linked: `parallel` is the GOMP_parallel that torch uses, or NULL.
 */
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX2__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
typedef float reals __attribute__((vector_size(4 * WIDTH)));
typedef int32_t ints __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t words __attribute__((vector_size(4 * WIDTH)));

#define GOLDEN 0x9E3779B97F4A7C15u
#define CHAINS 1
#define UPDATES 2
#define WIDEST 32

typedef void (*parallel_fn)(void (*)(void *), void *, unsigned, unsigned);

typedef struct {
    const int8_t *start; /* [chains][nodes] */
    int8_t *spins;
    float *scratch;
    const float *couplings, *biases, *gains;
    const int64_t *offsets;
    const int32_t *neighbours, *order;
    int64_t chains, nodes, updated, sweeps, groups, next;
    uint64_t seed;
    int lanes, own_biases;
} job;

static inline uint64_t mix64(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static inline uint64_t stream(uint64_t seed, uint64_t name) { return mix64(seed + name * GOLDEN); }

static inline words mix32(words x) {
    x = (x ^ (x >> 16)) * 0x7FEB352Du;
    x = (x ^ (x >> 15)) * 0x846CA68Bu;
    return x ^ (x >> 16);
}

/* +1 where u < sigmoid, else -1: x = 2 beta field / ln 2 */
static inline reals decide(reals x, words word) {
    const ints negative = x < 0.0f;
    const reals magnitude = (reals)((ints)x & 0x7FFFFFFF);
    const ints large = magnitude > 115.0f;
    const reals limit = (reals){0} + 115.0f;
    const reals z = (reals)(((ints)magnitude & ~large) | ((ints)limit & large));
    const ints whole = __builtin_convertvector(z, ints);
    const reals part = z - __builtin_convertvector(whole, reals);
    reals power = (reals){0} + 0.00021701946388930082f;
    power = power * part + 0.0012439778074622154f;
    power = power * part + 0.009678831323981285f;
    power = power * part + 0.05548334866762161f;
    power = power * part + 0.24022983014583588f;
    power = power * part + 0.6931470036506653f;
    power = power * part + 1.0f;
    const reals over = power * (reals)((whole + 127) << 23) + 1.0f;
    const words near_end = word ^ (words)~negative;
    const reals w = __builtin_convertvector((ints)(near_end >> 1), reals) + 0.5f;
    const ints against = w * over < 2147483648.0f;
    return (reals)(((against ^ negative) & (int32_t)0x80000000) | 0x3F800000);
}

/* All sweeps of one group of V vectors of chains, the first of which is chain `first`. */
static inline __attribute__((always_inline)) void group(const job *j, int64_t first, float *scratch, const int V) {
    const int lanes = V * WIDTH;
    const int64_t n = j->nodes, left = j->chains - first, filled = left < lanes ? left : lanes;
    reals *s = (reals *)scratch, *own = (reals *)(scratch + n * lanes);
    uint32_t low[WIDEST], high[WIDEST];
    words p[V], q[V];
    const uint64_t chain_stream = stream(j->seed, CHAINS), update_stream = stream(j->seed, UPDATES);
    for (int c = 0; c < lanes; c++) {
        const uint64_t key = mix64(chain_stream + (uint64_t)(first + c + 1) * GOLDEN);
        low[c] = (uint32_t)key;
        high[c] = (uint32_t)(key >> 32);
    }
    memcpy(p, low, sizeof p);
    memcpy(q, high, sizeof q);
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < lanes; c++) scratch[i * lanes + c] = c < filled ? (float)j->start[(first + c) * n + i] : 1.0f;
    if (j->own_biases)
        for (int64_t i = 0; i < n; i++)
            for (int c = 0; c < lanes; c++)
                scratch[(n + i) * lanes + c] = c < filled ? j->biases[(first + c) * n + i] : 0.0f;
    for (int64_t sweep = 0; sweep < j->sweeps; sweep++) {
        const uint64_t start = update_stream + (uint64_t)(sweep * n + 1) * GOLDEN;
        for (int64_t u = 0; u < j->updated; u++) {
            const int64_t i = j->order[u];
            const uint64_t key = mix64(start + (uint64_t)i * GOLDEN);
            reals field[V];
            for (int v = 0; v < V; v++) field[v] = j->own_biases ? own[i * V + v] : (reals){0} + j->biases[i];
            for (int64_t e = j->offsets[i]; e < j->offsets[i + 1]; e++) {
                const float coupling = j->couplings[e];
                const reals *near = s + (int64_t)j->neighbours[e] * V;
                for (int v = 0; v < V; v++) field[v] += coupling * near[v];
            }
            for (int v = 0; v < V; v++) {
                const words inner = mix32(p[v] ^ (uint32_t)key) ^ q[v];
                s[i * V + v] = decide(field[v] * j->gains[i], mix32(inner + (uint32_t)(key >> 32)));
            }
        }
    }
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < filled; c++) j->spins[(first + c) * n + i] = scratch[i * lanes + c] > 0.0f ? 1 : -1;
}

static void take_groups(void *shared) {
    job *j = shared;
    const int64_t size = j->nodes * j->lanes * (1 + j->own_biases);
    for (;;) {
        const int64_t g = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED);
        if (g >= j->groups) return;
        if (j->lanes == 32)
            group(j, g * 32, j->scratch + g * size, 32 / WIDTH);
        else
            group(j, g * 16, j->scratch + g * size, 16 / WIDTH);
    }
}

/* How many of n spins are neither -1 nor +1. */
int64_t mho_wrong_spins(const int8_t *spins, int64_t n) {
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; i++) wrong += (spins[i] != 1) & (spins[i] != -1);
    return wrong;
}

/* start and spins [chains][nodes]. couplings and neighbours: by place in the adjacency. scratch: 64-byte aligned,
 * groups * nodes * lanes * (1 + own_biases) floats. lanes: 16 or 32. */
void mho_gibbs(const int8_t *start, int8_t *spins, float *scratch, const float *couplings, const float *biases, const float *gains,
               const int64_t *offsets, const int32_t *neighbours, const int32_t *order, int64_t chains, int64_t nodes,
               int64_t updated, int64_t sweeps, uint64_t seed, int lanes, int own_biases, parallel_fn parallel,
               int threads) {
    job j = {.start = start, .spins = spins, .scratch = scratch, .couplings = couplings, .biases = biases, .gains = gains,
             .offsets = offsets, .neighbours = neighbours, .order = order, .chains = chains, .nodes = nodes,
             .updated = updated, .sweeps = sweeps, .groups = (chains + lanes - 1) / lanes, .seed = seed,
             .lanes = lanes, .own_biases = own_biases};
    if (parallel && threads > 1 && j.groups > 1)
        parallel(take_groups, &j, (unsigned)(threads < j.groups ? threads : j.groups), 0);
    else
        take_groups(&j);
}
