/* Standard normals, counter-based in blocks of 1024: block b of seed s is the same for ever.
 *
 * Uniforms: xoshiro128++ (Blackman and Vigna, ACM TOMS 47(4), 2021) in 16 lanes, each lane's 128 bits of state
 * from splitmix64 of (seed, block, lane). Normals: Box and Muller (1958) with polynomials of our own fit.
 *
 * Only +, -, *, sqrt, conversions and bit operations are used, without contraction into fused multiply-adds
 * (-ffp-contract=off): every IEEE machine and every vector width gives the same bits, and reference.py too.
 */
#include <stdint.h>
#include <string.h>

#define LANES 16
#define BLOCK 1024
#define HALF (BLOCK / 2)

/* The 16 lanes in vectors of the machine's width: compilers lower wider ones badly. The width changes no bit. */
#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX2__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
#define GROUPS (LANES / WIDTH)
typedef uint32_t lanes __attribute__((vector_size(4 * WIDTH)));

static inline uint64_t mix64(uint64_t x) { /* the finaliser of splitmix64 */
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/* 128 bits of key from (seed, block), then one splitmix64 sequence from each half, a word pair a lane. */
static inline void seed_lanes(uint64_t seed, uint64_t block, uint32_t state[4][LANES]) {
    const uint64_t golden = 0x9E3779B97F4A7C15u;
    const uint64_t low = mix64(mix64(seed + golden) + block * golden);
    const uint64_t high = mix64(mix64(block + 0xD1B54A32D192ED03u) + seed * golden);
    for (int j = 0; j < LANES; j++) {
        const uint64_t a = mix64(low + (uint64_t)(j + 1) * golden);
        const uint64_t b = mix64(high + (uint64_t)(j + 1) * golden);
        state[0][j] = (uint32_t)a;
        state[1][j] = (uint32_t)(a >> 32);
        state[2][j] = (uint32_t)b;
        state[3][j] = (uint32_t)(b >> 32);
    }
}

#define ROTL(x, k) (((x) << (k)) | ((x) >> (32 - (k))))

static inline void block_bits(uint64_t seed, uint64_t block, uint32_t *radius, uint32_t *angle) {
    uint32_t state[4][LANES];
    lanes a[GROUPS], b[GROUPS], c[GROUPS], d[GROUPS];
    seed_lanes(seed, block, state);
    memcpy(a, state[0], sizeof a);
    memcpy(b, state[1], sizeof b);
    memcpy(c, state[2], sizeof c);
    memcpy(d, state[3], sizeof d);
    for (int i = 0; i < BLOCK; i += LANES) {
        uint32_t *out = i < HALF ? radius + i : angle + i - HALF;
        for (int g = 0; g < GROUPS; g++) {
            const lanes sum = a[g] + d[g], word = ROTL(sum, 7) + a[g], shifted = b[g] << 9;
            c[g] ^= a[g];
            d[g] ^= b[g];
            b[g] ^= c[g];
            a[g] ^= d[g];
            c[g] ^= shifted;
            d[g] = ROTL(d[g], 11);
            memcpy(out + g * WIDTH, &word, sizeof word);
        }
    }
}

static inline float as_float(int32_t x) {
    float y;
    memcpy(&y, &x, sizeof y);
    return y;
}

static inline int32_t as_int(float x) {
    int32_t y;
    memcpy(&y, &x, sizeof y);
    return y;
}

/* z[0 .. 1023]: r cos(angle) in the first half, r sin(angle) in the second. |z| <= sqrt(64 ln 2) = 6.66. */
static inline void block_normals(uint64_t seed, uint64_t block, float *z) {
    uint32_t radius[HALF] __attribute__((aligned(64))), angle[HALF] __attribute__((aligned(64)));
    float r[HALF] __attribute__((aligned(64)));
    block_bits(seed, block, radius, angle);
    /* Two loops, not one: of two short chains of operations a processor has more passes under way at a time. */
    for (int i = 0; i < HALF; i++) {
        /* u = w / 2^31 with w in [0.5, 2^31]; w = 2^e (1 + x), 1 + x in [sqrt(1/2), sqrt(2)) */
        const float w = (float)(int32_t)(radius[i] >> 1) + 0.5f;
        const int32_t shifted = as_int(w) - 0x3F3504F3; /* the bits of sqrt(1/2) */
        const int32_t e = shifted >> 23;
        const float x = as_float((shifted & 0x007FFFFF) + 0x3F3504F3) - 1.0f;
        /* -2 log(1 + x) = x p(x), relative error 1.7e-7 */
        float p = 0.2021377831697464f;
        p = p * x + -0.3244516849517822f;
        p = p * x + 0.3450166583061218f;
        p = p * x + -0.39800330996513367f;
        p = p * x + 0.4993981719017029f;
        p = p * x + -0.6667011976242065f;
        p = p * x + 1.0000072717666626f;
        p = p * x + -2.0f;
        r[i] = __builtin_sqrtf((float)(31 - e) * 1.3862943649291992f + p * x);
    }
    for (int i = 0; i < HALF; i++) {
        /* 30 bits: t in [-1, 1), an angle of t pi/4; the 2 last bits choose the quadrant */
        const float t = (float)(int32_t)(angle[i] << 2) * 4.656612873077393e-10f;
        const float q = t * t;
        float s = -3.595450834836811e-05f;
        s = s * q + 0.002490007085725665f;
        s = s * q + -0.08074543625116348f;
        s = (s * q + 0.7853981852531433f) * t;
        float c = -0.0003188805130776018f;
        c = c * q + 0.015849914401769638f;
        c = c * q + -0.3084242641925812f;
        c = c * q + 1.0f;
        const int32_t rs = as_int(r[i] * s), rc = as_int(r[i] * c) ^ (int32_t)(angle[i] << 31);
        const int32_t exchange = (rs ^ rc) & -(int32_t)((angle[i] >> 1) & 1);
        z[i] = as_float(rc ^ exchange);
        z[i + HALF] = as_float(rs ^ exchange);
    }
}
