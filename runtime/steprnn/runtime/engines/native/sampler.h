/* How a token is chosen: docs/sampling.md, in float64, without a library of mathematics. */
#ifndef STEPRNN_SAMPLER_H
#define STEPRNN_SAMPLER_H
#include "layout.h"

/* e^x for x <= 0, within 1e-15 of itself; 0 below -708, where no sum can see it. */
static double exponential_64(double x) {
    union {
        double f;
        uint64_t u;
    } w;
    double n, f, p = 1.0;
    int i;
    if (!(x > -708.0)) return x != x ? x : 0.0;
    w.f = x * 1.4426950408889634 + 6755399441055744.0; /* its last bits are the nearest whole number */
    n = w.f - 6755399441055744.0;
    f = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10;
    for (i = 14; i; i--) p = 1.0 + p * f / (double)i;
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

/* Whether token a comes before b: the larger value, then the lower index. */
static int before(const double *v, uint32_t a, uint32_t b) { return v[a] > v[b] || (v[a] == v[b] && a < b); }

static void sift(const double *v, uint32_t *heap, uint32_t at, uint32_t size) {
    uint32_t moved = heap[at], child;
    while ((child = 2 * at + 1) < size) {
        if (child + 1 < size && before(v, heap[child + 1], heap[child])) child++;
        if (!before(v, heap[child], moved)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

/* Token j in the order of the values: those up to it leave the heap for the end of the array. */
static uint32_t ranked(steprnn_sampler *s, uint32_t j) {
    uint32_t n = s->vocabulary, i, first;
    if (s->sorted == 0) {
        for (i = 0; i < n; i++) s->order[i] = i;
        for (i = n / 2; i--;) sift(s->values, s->order, i, n);
    }
    while (s->sorted <= j) {
        uint32_t left = n - ++s->sorted;
        first = s->order[0];
        s->order[0] = s->order[left];
        s->order[left] = first;
        sift(s->values, s->order, 0, left);
    }
    return s->order[n - 1 - j];
}

size_t steprnn_sampler_bytes(uint32_t vocabulary, uint32_t repeat_last_n) {
    return 8 + (size_t)vocabulary * 12 + (size_t)repeat_last_n * 4;
}

int steprnn_sampler_open(steprnn_sampler *s, const steprnn_settings *settings, uint64_t seed, uint32_t vocabulary,
                         void *memory, size_t bytes) {
    const steprnn_settings *o = settings;
    uint32_t kept = o->repeat_penalty == 1.0 ? 0 : o->repeat_last_n;
    if (!(o->temperature >= 0.0 && o->temperature <= 1000.0) || !(o->top_p > 0.0 && o->top_p <= 1.0) ||
        !(o->min_p >= 0.0 && o->min_p <= 1.0) || !(o->repeat_penalty >= 0.01 && o->repeat_penalty <= 100.0) ||
        o->top_k > INT32_MAX || o->repeat_last_n > INT32_MAX || vocabulary == 0 || (uintptr_t)memory % 8)
        return STEPRNN_SETTING;
    if (bytes < steprnn_sampler_bytes(vocabulary, kept)) return STEPRNN_ARENA;
    s->settings = *o;
    s->vocabulary = vocabulary;
    s->values = (double *)memory;
    s->order = (uint32_t *)(void *)(s->values + vocabulary);
    s->recent = s->order + vocabulary;
    s->room = kept;
    s->seen = 0;
    s->at = 624;
    s->most_behind = o->min_p > 0.0 ? -logarithm_64(o->min_p) : 0.0;
    seed_twister(s->twister, seed);
    return STEPRNN_OK;
}

void steprnn_sampler_read(steprnn_sampler *s, uint32_t token) {
    if (s->room) s->recent[s->seen++ % s->room] = token;
}

int steprnn_sample(steprnn_sampler *s, const float *logits, uint32_t *token) {
    const steprnn_settings *o = &s->settings;
    double *v = s->values, top, u, sum, total = 0.0;
    uint32_t n = s->vocabulary, best = 0, i;
    uint64_t known = s->seen < s->room ? s->seen : s->room;
    int filtered = o->top_k > 0 || o->top_p < 1.0 || o->min_p > 0.0;
    for (i = 0; i < n; i++) v[i] = (double)logits[i];
    for (i = 0; i < known; i++) { /* from the logit itself, so that it counts once */
        uint32_t t = s->recent[i];
        double logit = t < n ? (double)logits[t] : 0.0;
        if (t < n) v[t] = logit > 0.0 ? logit / o->repeat_penalty : logit * o->repeat_penalty;
    }
    for (i = 0; i < n; i++) {
        if (v[i] != v[i]) return STEPRNN_NOT_FINITE;
        if (v[i] > v[best]) best = i;
    }
    top = v[best];
    if (!(top - top == 0.0)) return STEPRNN_NOT_FINITE;
    if (o->temperature >= 1e-6) {
        u = next_number(s);
        for (i = 0; i < n; i++) total += exponential_64((v[i] - top) / o->temperature);
        if (!(u * total < 1.0 - 1e-12)) { /* else it is the likeliest, whatever the filters */
            s->sorted = 0;
            if (o->top_k > 0 && o->top_k < n) n = o->top_k;
            if (o->top_p < 1.0) {
                double all = 0.0;
                if (n == s->vocabulary)
                    for (i = 0; i < n; i++) all += exponential_64(v[i] - top);
                else
                    for (i = 0; i < n; i++) all += exponential_64(v[ranked(s, i)] - top);
                for (i = 0, sum = 0.0; i < n; i++)
                    if ((sum += exponential_64(v[ranked(s, i)] - top)) >= o->top_p * all) n = i + 1;
            }
            if (o->min_p > 0.0)
                for (i = 0; i < n; i++)
                    if (!(top - v[ranked(s, i)] <= s->most_behind)) n = i;
            if (filtered)
                for (i = 0, total = 0.0; i < n; i++) total += exponential_64((v[ranked(s, i)] - top) / o->temperature);
            for (i = 0, sum = 0.0; i < n; i++) {
                best = ranked(s, i);
                if ((sum += exponential_64((v[best] - top) / o->temperature)) > u * total) break;
            }
        }
    }
    steprnn_sampler_read(s, best);
    *token = best;
    return STEPRNN_OK;
}

/* The one token input and the logits of a language model; 0 where it is none. */
static int language(const steprnn *s, steprnn_tensor *x, steprnn_tensor *y) {
    return s->program[H_INPUTS] == 1 && s->program[H_OUTPUTS] == 1 && s->program[H_STATES] > 0 &&
           steprnn_tensor_at(s, STEPRNN_INPUT, 0, x) && steprnn_tensor_at(s, STEPRNN_OUTPUT, 0, y) && x->tokens &&
           x->elements == 1 && y->dtype == STEPRNN_FLOAT32 && y->elements == x->tokens;
}

int steprnn_read(steprnn *s, const uint32_t *tokens, size_t count) {
    steprnn_tensor x, y;
    size_t i;
    int error;
    if (!language(s, &x, &y)) return STEPRNN_NOT_TEXT;
    for (i = 0; i < count; i++) {
        *(uint32_t *)x.data = tokens[i];
        if ((error = steprnn_step(s)) != 0) return error;
    }
    return STEPRNN_OK;
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
#endif
