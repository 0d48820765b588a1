/* The kernels of the README, over flat float32 arrays. The meaning of each is in reference.py.
 *
 * An array is cut into at most 256 chunks of whole blocks of 1024 elements; the cut depends on its length alone, and the
 * sums of the chunks are added in their order: the number of threads changes no bit.
 *
 * No OpenMP runtime is linked: `parallel` is the address of the GOMP_parallel that torch itself uses (or NULL: serial),
 * so the threads are torch's own, and no second pool spins beside them.
 */
#include "normal.h"

#if defined(__clang__)
#define ELEMENTWISE _Pragma("clang loop vectorize(assume_safety)")
#else
#define ELEMENTWISE _Pragma("GCC ivdep") /* out may be x itself: same index, no other overlap */
#endif
#define MAX_CHUNKS 256
/* Waking a second thread costs tens of microseconds: below these lengths one thread is done first. */
#define SERIAL_BELOW_PLAIN 262144 /* 0.1 to 0.3 ns an element */
#define SERIAL_BELOW_NOISY 65536  /* 0.5 to 1 ns an element */
#define MAGNITUDE 0x7FFFFFFF
#define NOWHERE 2 /* the rail of a NaN */
#define LINES 16 /* independent sums, so that the order of addition is the same for every vector width */

typedef void (*parallel_fn)(void (*)(void *), void *, unsigned, unsigned);

typedef struct {
    double sum;      /* of squares, or of the gradient of the range */
    int64_t clipped; /* elements beyond the range, or NaN */
    int32_t peak;    /* the bits of max |v|: as integers NaN > infinity > every number, so NaN is kept */
} tally;

typedef struct {
    const float *x, *map, *columns, *bias;
    float *out;
    int8_t *rails;
    uint64_t seed;
    int64_t outer, inner; /* O and P of a view [A, O, P] */
    float sigma, low, high, range, up, down, levels;
    int watch; /* whether the caller wants the statistics */
} args;

typedef void (*body_fn)(const args *, int64_t begin, int len, tally *);

typedef struct {
    const args *a;
    body_fn body;
    int64_t n, chunk, chunks, next;
    tally parts[MAX_CHUNKS];
} job;

static void take_chunks(void *shared) {
    job *j = shared;
    for (;;) {
        const int64_t c = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED);
        if (c >= j->chunks) return;
        const int64_t start = c * j->chunk, end = start + j->chunk < j->n ? start + j->chunk : j->n;
        tally t = {0, 0, 0};
        for (int64_t begin = start; begin < end; begin += BLOCK)
            j->body(j->a, begin, (int)(end - begin < BLOCK ? end - begin : BLOCK), &t);
        j->parts[c] = t;
    }
}

static tally run(body_fn body, const args *a, int64_t n, int64_t serial_below, parallel_fn parallel, int threads) {
    job j;
    tally total = {0, 0, 0};
    const int64_t blocks = (n + BLOCK - 1) / BLOCK, each = (blocks + MAX_CHUNKS - 1) / MAX_CHUNKS;
    if (n <= 0) return total;
    j.a = a;
    j.body = body;
    j.n = n;
    j.chunk = each * BLOCK;
    j.chunks = (n + j.chunk - 1) / j.chunk;
    j.next = 0;
    if (parallel && threads > 1 && n >= serial_below)
        parallel(take_chunks, &j, (unsigned)threads, 0);
    else
        take_chunks(&j);
    for (int64_t c = 0; c < j.chunks; c++) {
        total.sum += j.parts[c].sum;
        total.clipped += j.parts[c].clipped;
        if (j.parts[c].peak > total.peak) total.peak = j.parts[c].peak;
    }
    return total;
}

static void report(const tally *t, double *stats) {
    if (!stats) return;
    stats[0] = as_float(t->peak);
    stats[1] = t->sum;
    stats[2] = (double)t->clipped;
}

static double add_lines(const double *line) {
    double s = 0;
    for (int k = 0; k < LINES; k++) s += line[k];
    return s;
}

/* max |v| and the sum of v^2 of a block */
static void gather(const float *v, int len, tally *t) {
    double line[LINES] = {0};
    int32_t peak = t->peak;
    int i = 0;
    for (; i + LINES <= len; i += LINES)
        for (int k = 0; k < LINES; k++) line[k] += (double)v[i + k] * (double)v[i + k];
    for (int k = 0; i + k < len; k++) line[k] += (double)v[i + k] * (double)v[i + k];
    for (i = 0; i < len; i++) {
        const int32_t bits = as_int(v[i]) & MAGNITUDE;
        peak = bits > peak ? bits : peak;
    }
    t->sum += add_lines(line);
    t->peak = peak;
}

static void convert(const args *a, const float *x, float *out, int len) {
    const float up = a->up, down = a->down, high = a->levels, low = -a->levels, range = a->range;
    if (a->levels > 0) {
        ELEMENTWISE
        for (int i = 0; i < len; i++) {
            float v = x[i] * up;
            v = v < low ? low : v;
            v = v > high ? high : v;
            out[i] = __builtin_rintf(v) * down;
        }
    } else {
        ELEMENTWISE
        for (int i = 0; i < len; i++) {
            float v = x[i];
            v = v < -range ? -range : v;
            out[i] = v > range ? range : v;
        }
    }
}

static void normal_body(const args *a, int64_t begin, int len, tally *t) {
    float z[BLOCK];
    (void)t;
    block_normals(a->seed, (uint64_t)(begin / BLOCK), z);
    memcpy(a->out + begin, z, (size_t)len * sizeof *z);
}

static void add_normal_body(const args *a, int64_t begin, int len, tally *t) {
    float z[BLOCK];
    const float *x = a->x + begin, sigma = a->sigma, low = a->low, high = a->high;
    float *out = a->out + begin;
    (void)t;
    block_normals(a->seed, (uint64_t)(begin / BLOCK), z);
    ELEMENTWISE
    for (int i = 0; i < len; i++) {
        float v = x[i];
        v = v < low ? low : v;
        v = v > high ? high : v;
        out[i] = v + sigma * z[i];
    }
}

static void absmax_sumsq_body(const args *a, int64_t begin, int len, tally *t) { gather(a->x + begin, len, t); }

static void quantize_body(const args *a, int64_t begin, int len, tally *t) {
    if (a->watch) gather(a->x + begin, len, t);
    convert(a, a->x + begin, a->out + begin, len);
}

/* s[i] = sqrt(sigma^2 + (map[a, p] columns[o])^2) for the elements begin ... of the view [A, O, P] */
static void deviations(const args *a, int64_t begin, int len, float *s) {
    const float floor = a->sigma * a->sigma;
    const int64_t inner = a->inner, plane = a->outer * inner;
    int64_t row = begin / plane, within = begin % plane;
    for (int i = 0; i < len;) {
        /* P = 1: a run of one map value along O; else a run of one column along P */
        const int64_t p = within % inner, column = within / inner, left = inner == 1 ? plane - within : inner - p;
        const int count = left < len - i ? (int)left : len - i;
        const float *m = a->map + row * inner + p;
        if (inner == 1 && a->columns) {
            const float *c = a->columns + column;
            ELEMENTWISE
            for (int k = 0; k < count; k++) {
                const float d = m[0] * c[k];
                s[i + k] = __builtin_sqrtf(d * d + floor);
            }
        } else if (inner == 1) {
            const float one = __builtin_sqrtf(m[0] * m[0] + floor);
            for (int k = 0; k < count; k++) s[i + k] = one;
        } else {
            const float c = a->columns ? a->columns[column] : 1.0f;
            ELEMENTWISE
            for (int k = 0; k < count; k++) {
                const float d = m[k] * c;
                s[i + k] = __builtin_sqrtf(d * d + floor);
            }
        }
        i += count;
        within += count;
        if (within == plane) {
            within = 0;
            row++;
        }
    }
}

/* y[i] += bias[o] for the elements begin ... of the view [A, O, P] */
static void add_bias(const args *a, int64_t begin, int len, float *y) {
    const int64_t inner = a->inner;
    int64_t column = begin / inner % a->outer, p = begin % inner;
    for (int i = 0; i < len;) {
        /* P = 1: a run along O; else a run of one constant along P */
        const int64_t left = inner == 1 ? a->outer - column : inner - p;
        const int count = left < len - i ? (int)left : len - i;
        const float *b = a->bias + column;
        if (inner == 1) {
            for (int k = 0; k < count; k++) y[i + k] += b[k];
            column += count;
        } else {
            for (int k = 0; k < count; k++) y[i + k] += b[0];
            p += count;
            if (p == inner) {
                p = 0;
                column++;
            }
        }
        if (column == a->outer) column = 0;
        i += count;
    }
}

static void adc_body(const args *a, int64_t begin, int len, tally *t) {
    float v[BLOCK], s[BLOCK];
    float *y = a->out + begin;
    const float sigma = a->sigma;
    const int32_t range = as_int(a->range);
    if (a->map || sigma > 0) block_normals(a->seed, (uint64_t)(begin / BLOCK), v);
    if (a->map) {
        deviations(a, begin, len, s);
        for (int i = 0; i < len; i++) v[i] = y[i] + s[i] * v[i];
    } else if (sigma > 0) {
        for (int i = 0; i < len; i++) v[i] = y[i] + sigma * v[i];
    } else {
        memcpy(v, y, (size_t)len * sizeof *v);
    }
    if (a->watch) {
        int32_t clipped = 0;
        gather(v, len, t);
        for (int i = 0; i < len; i++) clipped += (as_int(v[i]) & MAGNITUDE) > range;
        t->clipped += clipped;
    }
    if (a->rails) {
        int8_t *rails = a->rails + begin;
        for (int i = 0; i < len; i++) {
            const int32_t bits = as_int(v[i]), size = bits & MAGNITUDE;
            const int32_t rail = ((bits >> 31) | 1) & -(int32_t)(size > range);
            rails[i] = (int8_t)(size > 0x7F800000 ? NOWHERE : rail);
        }
    }
    if (range < 0x7F800000)
        convert(a, v, y, len);
    else
        memcpy(y, v, (size_t)len * sizeof *v);
    if (a->bias) add_bias(a, begin, len, y);
}

/* out = g z / s, and the sum of it: how a loss moves with the size of the noise */
static void noise_slope_body(const args *a, int64_t begin, int len, tally *t) {
    float z[BLOCK], s[BLOCK];
    double line[LINES] = {0};
    const float *g = a->x + begin, sigma = a->sigma;
    float *out = a->out ? a->out + begin : z; /* the sum alone */
    block_normals(a->seed, (uint64_t)(begin / BLOCK), z);
    if (a->map)
        deviations(a, begin, len, s);
    else
        for (int i = 0; i < len; i++) s[i] = sigma;
    ELEMENTWISE
    for (int i = 0; i < len; i++) {
        const float v = g[i] * z[i] / (s[i] > 0 ? s[i] : 1.0f);
        out[i] = s[i] > 0 ? v : 0.0f;
    }
    int i = 0;
    for (; i + LINES <= len; i += LINES)
        for (int k = 0; k < LINES; k++) line[k] += (double)out[i + k];
    for (int k = 0; i + k < len; k++) line[k] += (double)out[i + k];
    t->sum += add_lines(line);
}

static void unclipped_body(const args *a, int64_t begin, int len, tally *t) {
    float part[BLOCK];
    double line[LINES] = {0};
    const float *g = a->x + begin;
    const int8_t *rails = a->rails + begin;
    float *out = a->out + begin;
    ELEMENTWISE
    for (int i = 0; i < len; i++) {
        const int32_t rail = rails[i], grad = as_int(g[i]);
        const int32_t free = -(int32_t)(rail == 0), clipped = -(int32_t)(rail == 1 || rail == -1);
        part[i] = as_float((grad ^ (rail & ~MAGNITUDE)) & clipped);
        out[i] = as_float(grad & free);
    }
    if (!a->watch) return;
    int i = 0;
    for (; i + LINES <= len; i += LINES)
        for (int k = 0; k < LINES; k++) line[k] += (double)part[i + k];
    for (int k = 0; i + k < len; k++) line[k] += (double)part[i + k];
    t->sum += add_lines(line);
}

static void pass_inside_body(const args *a, int64_t begin, int len, tally *t) {
    float part[BLOCK];
    double line[LINES] = {0};
    const float *x = a->x + begin;
    float *g = a->out + begin;
    const int32_t range = as_int(a->range);
    ELEMENTWISE
    for (int i = 0; i < len; i++) {
        const int32_t bits = as_int(x[i]), size = bits & MAGNITUDE, grad = as_int(g[i]);
        const int32_t inside = -(int32_t)(size <= range), number = -(int32_t)(size <= 0x7F800000);
        part[i] = as_float((grad ^ (bits & ~MAGNITUDE)) & ~inside & number);
        g[i] = as_float(grad & inside);
    }
    int i = 0;
    for (; i + LINES <= len; i += LINES)
        for (int k = 0; k < LINES; k++) line[k] += (double)part[i + k];
    for (int k = 0; i + k < len; k++) line[k] += (double)part[i + k];
    t->sum += add_lines(line);
}

void mho_normal(float *out, int64_t n, uint64_t seed, parallel_fn parallel, int threads) {
    const args a = {.out = out, .seed = seed};
    run(normal_body, &a, n, SERIAL_BELOW_NOISY, parallel, threads);
}

void mho_add_normal(const float *x, float *out, int64_t n, float sigma, float low, float high, uint64_t seed,
                    parallel_fn parallel, int threads) {
    const args a = {.x = x, .out = out, .seed = seed, .sigma = sigma, .low = low, .high = high};
    run(add_normal_body, &a, n, SERIAL_BELOW_NOISY, parallel, threads);
}

void mho_absmax_sumsq(const float *x, int64_t n, double *stats, parallel_fn parallel, int threads) {
    const args a = {.x = x};
    const tally t = run(absmax_sumsq_body, &a, n, SERIAL_BELOW_PLAIN, parallel, threads);
    report(&t, stats);
}

void mho_quantize(const float *x, float *out, int64_t n, float range, float up, float down, float levels, double *stats,
                  parallel_fn parallel, int threads) {
    const args a = {.x = x, .out = out, .range = range, .up = up, .down = down, .levels = levels,
                    .watch = stats != 0};
    const tally t = run(quantize_body, &a, n, SERIAL_BELOW_PLAIN, parallel, threads);
    report(&t, stats);
}

void mho_adc(float *y, const float *map, const float *columns, const float *bias, int8_t *rails, int64_t n, int64_t outer, int64_t inner, float sigma,
             uint64_t seed, float range, float up, float down, float levels, double *stats, parallel_fn parallel,
             int threads) {
    const args a = {.out = y,       .map = map,       .columns = columns, .bias = bias, .rails = rails,
                    .outer = outer, .inner = inner,   .sigma = sigma,     .seed = seed, .range = range, .up = up, .down = down,   .levels = levels,
                    .watch = stats != 0};
    const tally t = run(adc_body, &a, n, SERIAL_BELOW_NOISY, parallel, threads);
    report(&t, stats);
}

void mho_noise_slope(const float *g, float *out, const float *map, const float *columns, int64_t n, int64_t outer,
                     int64_t inner, float sigma, uint64_t seed, double *stats, parallel_fn parallel, int threads) {
    const args a = {.x = g,         .out = out,     .map = map,     .columns = columns,
                    .outer = outer, .inner = inner, .sigma = sigma, .seed = seed};
    const tally t = run(noise_slope_body, &a, n, SERIAL_BELOW_NOISY, parallel, threads);
    report(&t, stats);
}

void mho_unclipped(const float *g, const int8_t *rails, float *out, int64_t n, double *stats, parallel_fn parallel,
                   int threads) {
    const args a = {.x = g, .rails = (int8_t *)rails, .out = out, .watch = stats != 0};
    const tally t = run(unclipped_body, &a, n, SERIAL_BELOW_PLAIN, parallel, threads);
    report(&t, stats);
}

void mho_pass_inside(float *g, const float *x, int64_t n, float range, double *stats, parallel_fn parallel, int threads) {
    const args a = {.x = x, .out = g, .range = range};
    const tally t = run(pass_inside_body, &a, n, SERIAL_BELOW_PLAIN, parallel, threads);
    report(&t, stats);
}
