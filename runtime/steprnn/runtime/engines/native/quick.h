/* exp, sigmoid and tanh where one number is computed at a time: the bits of functions.h, with a branch where that
   computes both sides, and one factor of 2^n where that needs two. */
#ifndef STEPRNN_QUICK_H
#define STEPRNN_QUICK_H
#include "functions.h"

/* e^x of -86 < x < 86: no result is subnormal or infinite, so that 2^n goes into the exponent. */
STEPRNN_QUICK float quick_exponential(float x) {
    float t = x * 1.44269504f + 12582912.0f, n = t - 12582912.0f;
    float f = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = (p * (f * f) + f) + 1.0f;
    return float_of(bits_of(p) + (bits_of(t) << 23)); /* the last bits of t are n */
}

STEPRNN_QUICK float quick_sigmoid(float x) {
    uint32_t bits = bits_of(x);
    float e, d, lost, y;
    if ((bits & 0x7fffffffu) >= 0x42ac0000u) return sigmoid(x); /* 86 or more, or no number */
    e = quick_exponential(float_of(bits | 0x80000000u));
    d = 1.0f + e;
    lost = e - (d - 1.0f);
    if (bits > 0x80000000u) { /* below 0 */
        y = e / d;
        return y - y * (lost * (1.0f - y));
    }
    y = 1.0f / d;
    return y - y * (lost * y);
}

STEPRNN_QUICK float quick_tangent(float x) {
    uint32_t bits = bits_of(x), a = bits & 0x7fffffffu;
    float s, p;
    if (a >= 0x422c0000u) return tangent(x); /* 43 or more, or no number */
    if (a < 0x3f200000u) {                   /* 0.625 */
        s = x * x;
        p = -5.70498872745e-3f;
        p = p * s + 2.06390887954e-2f;
        p = p * s - 5.37397155531e-2f;
        p = p * s + 1.33314422036e-1f;
        p = p * s - 3.33332819422e-1f;
        return (p * s) * x + x;
    }
    p = float_of(a);
    p = 1.0f - 2.0f / (quick_exponential(p + p) + 1.0f);
    return float_of(bits_of(p) | (bits & 0x80000000u)); /* p is not negative */
}
#endif
