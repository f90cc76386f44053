/* How a token is chosen: docs/sampling.md, in float64, without a library of mathematics. */
#ifndef STEPRNN_SAMPLER_H
#define STEPRNN_SAMPLER_H
#include "layout.h"

/* e^x for x <= 0, within 1e-15 of itself; 0 below -708, where no sum can see it. */
static double exponential_64(double x) {
    static const double over[15] = {/* 1 / n! */
        1.0, 1.0, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0, 1.0 / 40320.0,
        1.0 / 362880.0, 1.0 / 3628800.0, 1.0 / 39916800.0, 1.0 / 479001600.0, 1.0 / 6227020800.0, 1.0 / 87178291200.0};
    union {
        double f;
        uint64_t u;
    } w;
    double n, f, p = over[14];
    int i;
    if (!(x > -708.0)) return x != x ? x : 0.0;
    w.f = x * 1.4426950408889634 + 6755399441055744.0; /* its last bits are the nearest whole number */
    n = w.f - 6755399441055744.0;
    f = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10;
    for (i = 13; i >= 0; i--) p = p * f + over[i];
    w.u = (w.u - 0x4338000000000000u + 1023u) << 52;
    return p * w.f;
}

/* ln x for x above 0. */
static double logarithm_64(double x) {
    union {
        double f;
        uint64_t u;
    } w;
    double s, square, p = 0.0, n = 0.0;
    int i;
    if (x < 2.2250738585072014e-308) x *= 18014398509481984.0, n = -54.0;
    w.f = x;
    n += (double)((int)(w.u >> 52) - 1023);
    w.u = (w.u & 0x000fffffffffffffu) | 0x3ff0000000000000u;
    if (w.f > 1.4142135623730951) w.f *= 0.5, n += 1.0;
    s = (w.f - 1.0) / (w.f + 1.0);
    square = s * s;
    for (i = 25; i > 0; i -= 2) p = p * square + 1.0 / (double)i;
    return n * 0.6931471803691238 + (n * 1.9082149292705877e-10 + 2.0 * s * p);
}

/* MT19937 as Python seeds it: by the 32-bit words of the seed. */
static void seed_twister(uint32_t *mt, uint64_t seed) {
    uint32_t key[2], words = seed >> 32 ? 2 : 1, i = 1, j = 0, k;
    key[0] = (uint32_t)seed;
    key[1] = (uint32_t)(seed >> 32);
    mt[0] = 19650218u;
    for (k = 1; k < 624; k++) mt[k] = 1812433253u * (mt[k - 1] ^ mt[k - 1] >> 30) + k;
    for (k = 624; k; k--) {
        mt[i] = (mt[i] ^ (mt[i - 1] ^ mt[i - 1] >> 30) * 1664525u) + key[j] + j;
        if (++i > 623) mt[0] = mt[623], i = 1;
        if (++j >= words) j = 0;
    }
    for (k = 623; k; k--) {
        mt[i] = (mt[i] ^ (mt[i - 1] ^ mt[i - 1] >> 30) * 1566083941u) - i;
        if (++i > 623) mt[0] = mt[623], i = 1;
    }
    mt[0] = 0x80000000u;
}

static uint32_t next_word(steprnn_sampler *s) {
    uint32_t y, k, *mt = s->twister;
    if (s->at >= 624) {
        for (k = 0; k < 624; k++) {
            y = (mt[k] & 0x80000000u) | (mt[(k + 1) % 624] & 0x7fffffffu);
            mt[k] = mt[(k + 397) % 624] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0u);
        }
        s->at = 0;
    }
    y = mt[s->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

static double next_number(steprnn_sampler *s) {
    uint32_t a = next_word(s) >> 5, b = next_word(s) >> 6;
    return ((double)a * 67108864.0 + (double)b) / 9007199254740992.0;
}

/* Float32 sums of weights are within ROUNDED of themselves while an exponent is no larger than LARGEST_EXPONENT,
   and a draw is the likeliest token for certain where u times the sum is below NEARLY. */
#define ROUNDED 1e-4
#define NEARLY 0.9999
#define LARGEST_EXPONENT 60.0
#define LEAST_TEMPERATURE 1e-6
#define FIRST_REACH 4.0f /* how far below the likeliest logit is looked first */
#define FURTHER 1.5f     /* and how much further than that each time */
#define FEW 128u         /* tokens of top-k whose weights are looked at in float32 */
#define MOST_ADDED 1024u /* weights in one float32 sum, 16 to a lane */

/* The largest of some logits, NaN where one is. Compared as whole numbers, as their order matters to none. */
STEPRNN_INLINE float largest_of(const real *v, uint32_t n) {
    const whole *bits = (const whole *)(const void *)v;
    int32_t most = INT32_MIN, nan = 0;
    uint32_t i;
    for (i = 0; i < n; i++) {
        int32_t size = bits[i] & INT32_MAX, ordered = bits[i] < 0 ? ~size : size;
        nan |= size > 0x7f800000;
        most = ordered > most ? ordered : most;
    }
    return float_of(nan ? 0x7fc00000u : (uint32_t)(most < 0 ? ~most ^ INT32_MIN : most));
}

#define LOG2_E 1.44269504f
/* 2^x for x <= 0, within 2e-7 of itself, not below 2^-115, which no sum of these can see. The polynomial is that of
   degree 5 with the least largest error between -1/2 and 1/2. */
STEPRNN_INLINE float rough_weight(float x) {
    float t, p;
    x = x > -115.0f ? x : -115.0f;
    t = x + 12582912.0f; /* 1.5 * 2^23: its last bits are the nearest whole number */
    x = x - (t - 12582912.0f);
    p = 1.32647276e-3f;
    p = p * x + 9.67151268e-3f;
    p = p * x + 5.55073374e-2f;
    p = p * x + 2.40222421e-1f;
    p = p * x + 6.93146978e-1f;
    p = p * x + 1.0f;
    return float_of(bits_of(p) + (bits_of(t) << 23));
}

/* The weights of some logits, that of the logit `top` being 1. */
STEPRNN_INLINE void weigh(const float *v, uint32_t n, float top, float sharpness, float *weights) {
    float rate = sharpness * LOG2_E;
    uint32_t i;
    for (i = 0; i < n; i++) weights[i] = rough_weight((v[i] - top) * rate);
}

/* Their sum. */
STEPRNN_INLINE float weights_of(const real *v, uint32_t n, float top, float sharpness) {
    float lanes[64] = {0}, rate = sharpness * LOG2_E;
    uint32_t j;
    for (; n >= 64; n -= 64, v += 64)
        for (j = 0; j < 64; j++) lanes[j] += rough_weight((v[j] - top) * rate);
    for (j = 0; j < n; j++) lanes[j] += rough_weight((v[j] - top) * rate);
    for (n = 32; n; n /= 2)
        for (j = 0; j < n; j++) lanes[j] += lanes[j + n];
    return lanes[0];
}

/* Larger for what comes first: a rounded logit, then a lower index. */
STEPRNN_INLINE uint64_t key_of(float logit, uint32_t token) {
    uint32_t bits = bits_of(logit + 0.0f); /* of two zeros none is larger */
    return (uint64_t)(bits >> 31 ? ~bits : bits | 0x80000000u) << 32 | (uint32_t)~token;
}

STEPRNN_INLINE uint32_t token_of(uint64_t key) { return (uint32_t)~key; }

STEPRNN_INLINE float logit_of(uint64_t key) {
    uint32_t bits = (uint32_t)(key >> 32);
    return float_of(bits >> 31 ? bits ^ 0x80000000u : ~bits);
}

/* The first of eight bytes, each 0 or 1, that is 1; it becomes 0. */
STEPRNN_INLINE uint32_t first_of(uint64_t *eight) {
    uint8_t bytes[8];
    uint32_t i = 0;
#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    i = (uint32_t)__builtin_ctzll(*eight) / 8;
    *eight &= *eight - 1;
    (void)bytes;
#else
    memcpy(bytes, eight, 8);
    while (!bytes[i]) i++;
    bytes[i] = 0;
    memcpy(eight, bytes, 8);
#endif
    return i;
}

/* The keys of the logits that are at least `least` and below `below`, in their order; returns how many, at most
   `most`. */
STEPRNN_INLINE uint32_t keys_of(const real *v, uint32_t n, float least, float below, uint64_t *keys, uint32_t most) {
    uint32_t i, j, size = 0;
    for (i = 0; i < n; i += 64) {
        const real *block = v + i;
        uint8_t in[64] = {0}, any = 0;
        if (n - i >= 64)
            for (j = 0; j < 64; j++) any |= in[j] = (uint8_t)((block[j] >= least) & (block[j] < below));
        else
            for (j = 0; j < n - i; j++) any |= in[j] = (uint8_t)((block[j] >= least) & (block[j] < below));
        for (j = 0; any && j < 64; j += 8) {
            uint64_t eight;
            memcpy(&eight, in + j, 8);
            while (eight) {
                uint32_t at = i + j + first_of(&eight);
                keys[size++] = key_of(v[at], at);
                if (size == most) return size;
            }
        }
    }
    return size;
}

/* Logits with their penalty, rounded to float32; what is finite and beyond that is its largest number. */
STEPRNN_INLINE void penalise(real *v, uint32_t n, double penalty) {
    uint32_t i;
    for (i = 0; i < n; i++) {
        double x = (double)v[i], less = x / penalty, more = x * penalty, y = x > 0.0 ? less : more;
        y = x - x == 0.0 && y > 3.4028234663852886e38 ? 3.4028234663852886e38 : y;
        y = x - x == 0.0 && y < -3.4028234663852886e38 ? -3.4028234663852886e38 : y;
        v[i] = (float)y;
    }
}

#define LOOK(suffix, target)                                                                                   \
    target static float largest_##suffix(const real *v, uint32_t n) { return largest_of(v, n); }               \
    target static float sum_##suffix(const real *v, uint32_t n, float top, float sharpness) {              \
        return weights_of(v, n, top, sharpness);                                                               \
    }                                                                                                          \
    target static void weigh_##suffix(const float *v, uint32_t n, float top, float sharpness, float *weights) { \
        weigh(v, n, top, sharpness, weights);                                                                  \
    }                                                                                                          \
    target static uint32_t keys_##suffix(const real *v, uint32_t n, float least, float below, uint64_t *keys,  \
                                         uint32_t most) {                                                      \
        return keys_of(v, n, least, below, keys, most);                                                        \
    }                                                                                                          \
    target static void penalise_##suffix(real *v, uint32_t n, double penalty) { penalise(v, n, penalty); }
#ifdef STEPRNN_X86
LOOK(avx2, FOR_AVX2)
LOOK(avx512, FOR_AVX512)
#define LOOKING(name, level, arguments)                   \
    ((level) >= STEPRNN_AVX512 ? name##_avx512 arguments \
                               : (level) >= STEPRNN_AVX2 ? name##_avx2 arguments : name##_portable arguments)
#else
#define LOOKING(name, level, arguments) name##_portable arguments
#endif
LOOK(portable, )

/* The sum of the weights of logits, that of the logit `top` being 1, within 1e-6 of itself. */
static double rough_total(int kernels, const real *v, uint32_t n, float top, float sharpness) {
    uint32_t i, count;
    double sum = 0.0;
    for (i = 0; i < n; i += count) {
        count = n - i < MOST_ADDED ? n - i : MOST_ADDED;
        sum += (double)LOOKING(sum, kernels, (v + i, count, top, sharpness));
    }
    (void)kernels;
    return sum;
}

/* A logit with its penalty where its token is recent, as docs/sampling.md has it. */
static double exact_of(const steprnn_sampler *s, uint32_t token) {
    double logit = (double)s->logits[token], less, more;
    if (!s->room || !s->is_recent[token]) return logit;
    less = logit / s->settings.repeat_penalty; /* both, as a branch is guessed wrong half the time */
    more = logit * s->settings.repeat_penalty;
    return logit > 0.0 ? less : more;
}

/* Whether token a comes before b: the larger value, then the lower index. */
static int before(const steprnn_sampler *s, uint32_t a, uint32_t b) {
    double x = exact_of(s, a), y = exact_of(s, b);
    return x > y || (x == y && a < b);
}

static void sift(uint64_t *heap, uint32_t at, uint32_t size) {
    uint64_t moved = heap[at];
    uint32_t child;
    while ((child = 2 * at + 1) < size) {
        if (child + 1 < size && heap[child + 1] > heap[child]) child++;
        if (heap[child] <= moved) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

/* A heap of the logits below those that were looked at so far, down to FURTHER from the largest. */
static void look_further(steprnn_sampler *s) {
    const real *v = s->narrow;
    float least = s->reach > 64.0f ? float_of(0xff800000u) : s->top - s->reach;
    uint32_t n = s->vocabulary, i;
    s->heaped = LOOKING(keys, s->kernels, (v, n, least, s->below, s->keys, n));
    s->below = least;
    s->reach = s->reach * FURTHER;
    for (i = s->heaped / 2; i--;) sift(s->keys, i, s->heaped);
}

/* The token at place j, which is below the vocabulary, in the order of their values. Those up to it leave the heap
   for the end of the keys. Where rounding made some equal that a penalty had told apart, these change places. */
static uint32_t ranked(steprnn_sampler *s, uint32_t j) {
    uint64_t *end = s->keys + s->vocabulary - 1;
    while (s->sorted <= j) {
        uint32_t first = s->sorted, i, k;
        while (!s->heaped) look_further(s);
        do {
            uint64_t key = s->keys[0];
            s->keys[0] = s->keys[--s->heaped];
            sift(s->keys, 0, s->heaped);
            *(end - s->sorted++) = key;
        } while (s->room && s->heaped && s->keys[0] >> 32 == *(end - first) >> 32);
        for (i = first + 1; i < s->sorted; i++) {
            uint64_t key = *(end - i);
            for (k = i; k > first && before(s, token_of(key), token_of(*(end - k + 1))); k--)
                *(end - k) = *(end - k + 1);
            *(end - k) = key;
        }
    }
    return token_of(*(end - j));
}

/* The weight of the token at place j, that of the likeliest being 1. */
static double weight_of(steprnn_sampler *s, uint32_t j, double top, double temperature) {
    return exponential_64((exact_of(s, ranked(s, j)) - top) / temperature);
}

/* The first of n places whose sum of weights is above `share` of them all, or reaches it. The sum of all is known
   to within `off` of itself; n where that does not tell. */
static uint32_t place_of(steprnn_sampler *s, uint32_t n, double top, double temperature, double share, double off,
                         int reached) {
    double sum = 0.0;
    uint32_t i;
    for (i = 0; i < n; i++) {
        sum += weight_of(s, i, top, temperature);
        if (reached ? sum >= share * (1.0 + off) : sum > share * (1.0 + off)) return i;
        if (off > 0.0 && sum >= share * (1.0 - off)) return n;
    }
    return n;
}

static double total_of(steprnn_sampler *s, uint32_t n, double top, double temperature) {
    double sum = 0.0;
    uint32_t i;
    for (i = 0; i < n; i++) sum += weight_of(s, i, top, temperature);
    return sum;
}

/* How many of the first n top-p and min-p keep. */
static uint32_t kept_of(steprnn_sampler *s, uint32_t n, double top, int is_sure) {
    const steprnn_settings *o = &s->settings;
    uint32_t i = n;
    if (o->top_p < 1.0) {
        if (n == s->vocabulary && is_sure)
            i = place_of(s, n, top, 1.0, o->top_p * rough_total(s->kernels, s->narrow, n, s->top, 1.0f), ROUNDED, 1);
        if (i == n) i = place_of(s, n, top, 1.0, o->top_p * total_of(s, n, top, 1.0), 0.0, 1);
        n = i < n ? i + 1 : n;
    }
    if (o->min_p > 0.0)
        for (i = 0; i < n; i++)
            if (!(top - exact_of(s, ranked(s, i)) <= s->most_behind)) n = i;
    return n;
}

/* How many weights it takes until their sum is a share of them all; 0 where rounding might have told otherwise. */
static uint32_t reached_by(const float *weights, uint32_t n, double share) {
    double total = 0.0, sum = 0.0;
    uint32_t i;
    for (i = 0; i < n; i++) total += (double)weights[i];
    share *= total;
    for (i = 0; i < n; i++) {
        sum += (double)weights[i];
        if (sum >= share * (1.0 + ROUNDED)) return i + 1;
        if (sum >= share * (1.0 - ROUNDED)) return 0;
    }
    return 0;
}

/* A draw with u from the first n tokens, at most FEW, and what top-p and min-p keep of them, all in float32; the
   vocabulary where that is too near a boundary. */
static uint32_t drawn_of_few(steprnn_sampler *s, uint32_t n, double u) {
    const steprnn_settings *o = &s->settings;
    const uint64_t *end = s->keys + s->vocabulary - 1;
    float v[FEW] = {0}, weights[FEW];
    uint32_t i;
    ranked(s, n - 1);
    for (i = 0; i < n; i++) v[i] = logit_of(*(end - i));
    if (o->top_p < 1.0) {
        LOOKING(weigh, s->kernels, (v, n, s->top, 1.0f, weights));
        n = reached_by(weights, n, o->top_p);
    }
    for (i = 0; o->min_p > 0.0 && i < n; i++) {
        double behind = (double)s->top - (double)v[i] - s->most_behind;
        if (behind > ROUNDED) n = i;
        else if (behind > -ROUNDED) return s->vocabulary;
    }
    LOOKING(weigh, s->kernels, (v, n, s->top, (float)(1.0 / o->temperature), weights));
    n = reached_by(weights, n, u);
    return n ? token_of(*(end - (n - 1))) : s->vocabulary;
}

/* A draw with u, where it may be another than the likeliest. */
static uint32_t drawn(steprnn_sampler *s, double top, double u, double total, int is_sure) {
    const steprnn_settings *o = &s->settings;
    double size = top < 0.0 ? -top : top;
    uint32_t n = s->vocabulary, i = n;
    s->sorted = s->heaped = 0;
    s->reach = FIRST_REACH;
    s->below = float_of(0x7f800000u);
    if (o->top_k > 0 || o->top_p < 1.0 || o->min_p > 0.0) {
        int is_fit = !s->room || size < LARGEST_EXPONENT;
        if (o->top_k > 0 && o->top_k < n) n = o->top_k;
        if (is_fit && is_sure && o->top_k > 0 && n <= FEW && (i = drawn_of_few(s, n, u)) < s->vocabulary) return i;
        n = kept_of(s, n, top, is_fit);
        is_sure = 0;
    }
    if (is_sure && (i = place_of(s, n, top, o->temperature, u * total, ROUNDED, 0)) < n) return ranked(s, i);
    i = place_of(s, n, top, o->temperature, u * total_of(s, n, top, o->temperature), 0.0, 0);
    return ranked(s, i < n ? i : n - 1);
}

size_t steprnn_sampler_bytes(uint32_t vocabulary, uint32_t repeat_last_n) {
    return 8 + (size_t)vocabulary * 13 + (size_t)repeat_last_n * 4;
}

int steprnn_sampler_open(steprnn_sampler *s, const steprnn_settings *settings, uint64_t seed, uint32_t vocabulary,
                         void *memory, size_t bytes) {
    return steprnn_sampler_open_with(best_kernels(), s, settings, seed, vocabulary, memory, bytes);
}

int steprnn_sampler_open_with(int kernels, steprnn_sampler *s, const steprnn_settings *settings, uint64_t seed,
                              uint32_t vocabulary, void *memory, size_t bytes) {
    const steprnn_settings *o = settings;
    uint32_t kept = o->repeat_penalty == 1.0 ? 0 : o->repeat_last_n;
    if (!(o->temperature >= 0.0 && o->temperature <= 1000.0) || !(o->top_p > 0.0 && o->top_p <= 1.0) ||
        !(o->min_p >= 0.0 && o->min_p <= 1.0) || !(o->repeat_penalty >= 0.01 && o->repeat_penalty <= 100.0) ||
        o->top_k > INT32_MAX || o->repeat_last_n > INT32_MAX || vocabulary == 0 || (uintptr_t)memory % 8)
        return STEPRNN_SETTING;
    if (bytes < steprnn_sampler_bytes(vocabulary, kept)) return STEPRNN_ARENA;
    s->settings = *o;
    s->vocabulary = vocabulary;
    s->keys = (uint64_t *)memory;
    s->values = (float *)(void *)(s->keys + vocabulary);
    s->recent = (uint32_t *)(void *)(s->values + vocabulary);
    s->is_recent = (unsigned char *)(s->recent + kept);
    memset(s->is_recent, 0, vocabulary);
    s->room = kept;
    s->seen = 0;
    s->at = 624;
    s->kernels = kernels;
    s->most_behind = o->min_p > 0.0 ? -logarithm_64(o->min_p) : 0.0;
    seed_twister(s->twister, seed);
    return STEPRNN_OK;
}

void steprnn_sampler_read(steprnn_sampler *s, const uint32_t *tokens, size_t count) {
    size_t i;
    uint32_t j;
    for (i = 0; s->room && i < count; i++) {
        uint32_t *place = s->recent + s->seen % s->room, gone = *place;
        int is_full = s->seen >= s->room;
        *place = tokens[i];
        s->seen++;
        if (is_full && gone < s->vocabulary) {
            for (j = 0; j < s->room && s->recent[j] != gone; j++) {}
            if (j == s->room) s->is_recent[gone] = 0;
        }
        if (tokens[i] < s->vocabulary) s->is_recent[tokens[i]] = 1;
    }
}

/* The logits with their penalties, of 64 recent tokens at a time. */
static const real *penalised(steprnn_sampler *s) {
    uint32_t known = s->seen < s->room ? (uint32_t)s->seen : s->room, i, j, count;
    real some[64];
    memcpy(s->values, s->logits, 4 * (size_t)s->vocabulary);
    for (i = 0; i < known; i += count) {
        const uint32_t *tokens = s->recent + i;
        count = known - i < 64 ? known - i : 64;
        for (j = 0; j < count; j++) some[j] = tokens[j] < s->vocabulary ? s->logits[tokens[j]] : 0.0f;
        LOOKING(penalise, s->kernels, (some, count, s->settings.repeat_penalty));
        for (j = 0; j < count; j++)
            if (tokens[j] < s->vocabulary) s->values[tokens[j]] = some[j];
    }
    return s->values;
}

int steprnn_sample(steprnn_sampler *s, const float *logits, uint32_t *token) {
    const steprnn_settings *o = &s->settings;
    uint32_t n = s->vocabulary, best, count, i;
    double top;
    s->logits = logits;
    s->narrow = s->room && s->seen ? penalised(s) : logits;
    s->top = LOOKING(largest, s->kernels, (s->narrow, n));
    if (!(s->top - s->top == 0.0f)) return STEPRNN_NOT_FINITE;
    count = LOOKING(keys, s->kernels, (s->narrow, n, s->top, float_of(0x7f800000u), s->keys, s->room ? n : 1));
    best = token_of(s->keys[0]);
    for (i = 1; i < count; i++)
        if (before(s, token_of(s->keys[i]), best)) best = token_of(s->keys[i]);
    top = exact_of(s, best);
    if (!(top - top == 0.0)) return STEPRNN_NOT_FINITE;
    if (o->temperature >= LEAST_TEMPERATURE) {
        double u = next_number(s), size = top < 0.0 ? -top : top, total = 0.0;
        int is_sure = !s->room || size / o->temperature < LARGEST_EXPONENT;
        if (is_sure) total = rough_total(s->kernels, s->narrow, n, s->top, (float)(1.0 / o->temperature));
        /* Else it is the likeliest, whatever the filters: they make the sum smaller. */
        if (!is_sure || u * total >= NEARLY) best = drawn(s, top, u, total, is_sure);
    }
    steprnn_sampler_read(s, &best, 1);
    *token = best;
    return STEPRNN_OK;
}

void steprnn_log_probabilities(int kernels, const float *logits, size_t rows, uint32_t vocabulary,
                               const uint32_t *tokens, double *logarithms) {
    size_t i;
    for (i = 0; i < rows; i++, logits += vocabulary) {
        const real *v = (const real *)logits;
        float top = LOOKING(largest, kernels, (v, vocabulary));
        double behind = (double)logits[tokens[i]] - (double)top + (double)(top - top); /* NaN of infinite ones */
        logarithms[i] = behind - logarithm_64(rough_total(kernels, v, vocabulary, top, 1.0f));
    }
}

void steprnn_sample_rows(steprnn_sampler *const *samplers, size_t rows, const float *logits, uint32_t *tokens) {
    size_t i;
    for (i = 0; i < rows; i++) {
        if (steprnn_sample(samplers[i], logits, tokens + i)) tokens[i] = UINT32_MAX;
        logits += samplers[i]->vocabulary;
    }
}

/* The one token input and the logits of a language model; 0 where it is none. */
static int language(const steprnn *s, steprnn_tensor *x, steprnn_tensor *y) {
    return s->program[H_INPUTS] == 1 && s->program[H_OUTPUTS] == 1 && s->program[H_STATES] > 0 &&
           steprnn_tensor_at(s, STEPRNN_INPUT, 0, x) && steprnn_tensor_at(s, STEPRNN_OUTPUT, 0, y) && x->tokens &&
           x->elements == 1 && y->dtype == STEPRNN_FLOAT32 && y->elements == x->tokens;
}

int steprnn_read(steprnn *s, const uint32_t *tokens, size_t count) {
    steprnn_tensor x, y;
    if (!language(s, &x, &y)) return STEPRNN_NOT_TEXT;
    return steprnn_run(s, tokens, count, NULL, NULL);
}

int steprnn_generate(steprnn *s, steprnn_sampler *sampler, size_t length, steprnn_write write, void *context) {
    steprnn_tensor x, y;
    size_t i;
    int error;
    uint32_t token;
    if (!language(s, &x, &y) || sampler->vocabulary != x.tokens) return STEPRNN_NOT_TEXT;
    for (i = 0; i < length; i++) {
        if ((error = steprnn_sample(sampler, (const float *)y.data, &token)) != 0) return error;
        if (write(context, token) || i + 1 == length) return STEPRNN_OK;
        *(uint32_t *)x.data = token;
        if ((error = steprnn_step(s)) != 0) return error;
    }
    return STEPRNN_OK;
}
int steprnn_keep(void *context, uint32_t token) {
    uint32_t **next = (uint32_t **)context;
    *(*next)++ = token;
    return 0;
}
#endif
