/* Functions of one float32: sequences of + - * / that are normative for their bits.

   Errors are measured over all floats by benchmarks/program_errors.c. Each is total: what a NaN or an
   infinity gives is defined, and nothing is converted to an integer that may not hold it. */
#ifndef STEPRNN_FUNCTIONS_H
#define STEPRNN_FUNCTIONS_H
#include <stdint.h>

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__aarch64__))
#define STEPRNN_INLINE static inline __attribute__((always_inline, unused)) /* into functions of each target */
#define STEPRNN_QUICK STEPRNN_INLINE
#elif defined(__GNUC__)
#define STEPRNN_SMALL 1 /* a small stack, and one number at a time */
#define STEPRNN_INLINE static __attribute__((unused)) /* as small as the compiler wants it */
#define STEPRNN_QUICK static inline __attribute__((always_inline, unused))
#else
#define STEPRNN_SMALL 1
#define STEPRNN_INLINE static inline
#define STEPRNN_QUICK static inline
#endif

typedef union {
    float f;
    uint32_t u;
    int32_t i;
} steprnn_word;

STEPRNN_INLINE float float_of(uint32_t bits) {
    steprnn_word w;
    w.u = bits;
    return w.f;
}

STEPRNN_INLINE uint32_t bits_of(float x) {
    steprnn_word w;
    w.f = x;
    return w.u;
}

STEPRNN_INLINE float absolute(float x) { return float_of(bits_of(x) & 0x7fffffffu); }

/* e^x = 2^n * e^f with n whole and |f| <= ln(2) / 2, for x from -104 to 89: gives e^f, n, and what the last addition
   rounded away. ln(2) is in two parts, of which the first times n is exact. */
STEPRNN_INLINE float reduced(float x, uint32_t *n, float *lost) {
    float t = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: its last bits are the nearest whole number */
    float times = t - 12582912.0f, f = (x - times * 0.693359375f) - times * -2.12194440e-4f, p;
    *n = bits_of(t) - 0x4b400000u;
    p = 1.9875691500e-4f;
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    t = p * (f * f) + f;
    p = t + 1.0f;
    *lost = t - (p - 1.0f);
    return p;
}

/* 2^n in two factors, so that subnormal results are rounded once and too large ones become infinity. A NaN stays
   one all the way. */
STEPRNN_INLINE float exponential_and_lost(float x, float *lost) {
    float c = x > 89.0f ? 89.0f : x, p, scale;
    uint32_t n, half;
    c = c < -104.0f ? -104.0f : c;
    p = reduced(c, &n, lost);
    half = (uint32_t)((int32_t)(n + 256u) >> 1); /* n + 256 is not negative, so this rounds down */
    scale = float_of((half - 1u) << 23);         /* half - 128 + 127 */
    *lost = *lost * scale;
    p = p * scale;
    scale = float_of((n + 256u - half - 1u) << 23);
    *lost = *lost * scale;
    return p * scale;
}

STEPRNN_INLINE float exponential(float x) {
    float lost;
    return exponential_and_lost(x, &lost);
}

/* 1 / (1 + e^-x), from e^-|x| so that neither side loses digits. e^-|x| has its exponent raised by 64 and lowered
   again, which rounds subnormal numbers once. */
STEPRNN_INLINE float sigmoid(float x) {
    float a = -absolute(x), lost, e, d, y, part;
    uint32_t n;
    e = reduced(a < -104.0f ? -104.0f : a, &n, &lost);
    e = e * float_of((n + (127u + 64u)) << 23) * 5.42101086e-20f; /* 2^-64 */
    d = 1.0f + e;
    lost = e - (d - 1.0f); /* what rounding took from d, exactly */
    y = (x < 0.0f ? e : 1.0f) / d;
    part = x < 0.0f ? 1.0f - y : y; /* 1 / d */
    return y - y * (lost * part);
}

/* Beyond 20 it is 1. */
STEPRNN_INLINE float tangent(float x) {
    float a = absolute(x), s = x * x, e, lost;
    float p = -5.70498872745e-3f, near, far;
    uint32_t n;
    p = p * s + 2.06390887954e-2f;
    p = p * s - 5.37397155531e-2f;
    p = p * s + 1.33314422036e-1f;
    p = p * s - 3.33332819422e-1f;
    near = (p * s) * x + x;
    e = reduced(a > 20.0f ? 40.0f : a + a, &n, &lost);
    far = 1.0f - 2.0f / (e * float_of((n + 127u) << 23) + 1.0f);
    far = x < 0.0f ? -far : far;
    return a < 0.625f ? near : far;
}

/* ln x: x = m * 2^n with m from sqrt(1/2) to sqrt(2). */
STEPRNN_INLINE float logarithm(float x) {
    int small = x < 1.17549435e-38f; /* subnormal: scaled up */
    float v = small ? x * 8388608.0f : x;
    uint32_t bits = bits_of(v), up;
    float n, m, z, p, y;
    up = (bits & 0x007fffffu) > 0x003504f3u; /* above sqrt(2): halve it */
    m = float_of((bits & 0x007fffffu) | (up ? 0x3f000000u : 0x3f800000u));
    n = (float)((int32_t)(bits >> 23 & 0xffu) - 127 + (int32_t)up - (small ? 23 : 0));
    m = m - 1.0f;
    z = m * m;
    p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    y = (p * m) * z;
    y = y + n * -2.12194440e-4f;
    y = y - 0.5f * z;
    y = (m + y) + n * 0.693359375f;
    y = x > 3.40282347e38f ? x : y;
    y = x == 0.0f ? float_of(0xff800000u) : y;
    return x < 0.0f || x != x ? float_of(0x7fc00000u) : y;
}

/* Newton's steps from half the exponent. */
STEPRNN_INLINE float root(float x) {
    int small = x < 1.17549435e-38f;
    float v = small ? x * 16777216.0f : x;
    float y = float_of((bits_of(v) >> 1) + 0x1fbd1df5u);
    y = 0.5f * (y + v / y);
    y = 0.5f * (y + v / y);
    y = 0.5f * (y + v / y);
    y = small ? y * 2.44140625e-4f : y;
    y = x > 3.40282347e38f || x == 0.0f ? x : y;
    return x < 0.0f || x != x ? float_of(0x7fc00000u) : y;
}

/* max(x, 0) + ln(1 + e^-|x|); what rounding took from 1 + e, and from e, is put back. */
STEPRNN_INLINE float soft_plus(float x) {
    float lost, e = exponential_and_lost(-absolute(x), &lost), u = 1.0f + e;
    float l = logarithm(u) + ((e - (u - 1.0f)) + lost) / u;
    return (x < 0.0f ? 0.0f : x) + l;
}

/* x + x * P(x^2) near 0, and 1 - e^Q(|x|) beyond, up to 4, where it is 1. */
STEPRNN_INLINE float error_function(float x) {
    float a = absolute(x), c = a > 4.0f ? 4.0f : a, s = c * c, p, q;
    p = 8.50142881e-05f;
    p = p * s - 0.000817344259f;
    p = p * s + 0.0052037184f;
    p = p * s - 0.0268604748f;
    p = p * s + 0.112837149f;
    p = p * s - 0.37612635f;
    p = p * s + 0.128379167f;
    p = c * p + c;
    q = -1.89434994e-05f;
    q = q * c + 0.00040649908f;
    q = q * c - 0.00402056794f;
    q = q * c + 0.0246844986f;
    q = q * c - 0.107550708f;
    q = q * c - 0.63405728f;
    q = q * c - 1.12914248f;
    q = q * c + 9.34840555e-05f;
    p = c < 0.9f ? p : 1.0f - exponential(q);
    return x < 0.0f ? -p : p;
}

/* The nearest whole number, half to even. From 2^23 on all floats are whole. */
STEPRNN_INLINE float nearest(float x) {
    float a = absolute(x), r = (a + 8388608.0f) - 8388608.0f;
    r = x < 0.0f ? -r : r;
    return a < 8388608.0f ? r : x;
}

STEPRNN_INLINE float floor_of(float x) {
    float r = nearest(x);
    return r > x ? r - 1.0f : r;
}

STEPRNN_INLINE float ceiling_of(float x) {
    float r = nearest(x);
    return r < x ? r + 1.0f : r;
}

STEPRNN_INLINE float sign_of(float x) { return x > 0.0f ? 1.0f : (x < 0.0f ? -1.0f : (x == 0.0f ? 0.0f : x)); }

STEPRNN_INLINE float larger(float a, float b) {
    float m = a > b ? a : b; /* b where it is NaN */
    return a != a ? a : m;
}

STEPRNN_INLINE float smaller(float a, float b) {
    float m = a < b ? a : b;
    return a != a ? a : m;
}

STEPRNN_INLINE int32_t int_of(float x) {
    if (!(x < 2147483648.0f)) return x != x ? 0 : INT32_MAX;
    return x < -2147483648.0f ? INT32_MIN : (int32_t)x;
}

/* Towards minus infinity; 0 for what has no quotient. */
STEPRNN_INLINE int32_t quotient(int32_t a, int32_t b) {
    int32_t q;
    if (b == 0) return 0;
    if (b == -1) return (int32_t)(0u - (uint32_t)a);
    q = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

STEPRNN_INLINE int32_t rest(int32_t a, int32_t b) {
    return b == 0 ? 0 : (int32_t)((uint32_t)a - (uint32_t)quotient(a, b) * (uint32_t)b);
}
#endif
