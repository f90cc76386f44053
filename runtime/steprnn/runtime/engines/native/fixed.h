/* The gates of LSTM and GRU, and what the exact sums before them become, in integers: for processors without a
   floating-point unit, and the same bits on all. docs/program-format.md defines each.

   A fixed number is an int32 that counts 2^-16. */
#ifndef STEPRNN_FIXED_H
#define STEPRNN_FIXED_H
#include "loops.h"

#define FIXED_MOST 0x20000000 /* 8192; what is beyond counts as this, so that three of them add up in an int32 */

/* 2^16 * (sigmoid(i / 32) - 1/2), to the nearest. */
static const uint16_t fixed_sigmoid[385] = {
    0, 512, 1024, 1535, 2045, 2555, 3063, 3570, 4075, 4578, 5079, 5577, 6073, 6566, 7056, 7542, 8025, 8505,
    8980, 9452, 9919, 10382, 10840, 11294, 11743, 12186, 12625, 13058, 13486, 13909, 14326, 14737, 15143, 15542,
    15936, 16324, 16706, 17082, 17452, 17816, 18173, 18525, 18870, 19209, 19542, 19869, 20189, 20504, 20813,
    21115, 21411, 21702, 21986, 22265, 22538, 22804, 23066, 23321, 23571, 23815, 24054, 24287, 24516, 24738,
    24956, 25168, 25376, 25578, 25776, 25969, 26157, 26340, 26519, 26694, 26864, 27029, 27191, 27348, 27502,
    27651, 27797, 27938, 28076, 28211, 28341, 28469, 28592, 28713, 28830, 28944, 29055, 29163, 29268, 29370,
    29470, 29566, 29660, 29751, 29840, 29926, 30010, 30091, 30170, 30247, 30322, 30394, 30465, 30533, 30600,
    30664, 30727, 30788, 30847, 30904, 30960, 31014, 31067, 31118, 31167, 31215, 31262, 31307, 31351, 31394,
    31435, 31476, 31515, 31553, 31589, 31625, 31659, 31693, 31726, 31757, 31788, 31817, 31846, 31874, 31901,
    31928, 31953, 31978, 32002, 32025, 32048, 32070, 32091, 32112, 32132, 32151, 32170, 32188, 32206, 32223,
    32240, 32256, 32271, 32287, 32301, 32316, 32329, 32343, 32356, 32368, 32381, 32392, 32404, 32415, 32426,
    32436, 32447, 32456, 32466, 32475, 32484, 32493, 32501, 32509, 32517, 32525, 32532, 32540, 32547, 32553,
    32560, 32566, 32573, 32579, 32584, 32590, 32596, 32601, 32606, 32611, 32616, 32620, 32625, 32629, 32634,
    32638, 32642, 32646, 32649, 32653, 32657, 32660, 32663, 32667, 32670, 32673, 32676, 32678, 32681, 32684,
    32686, 32689, 32691, 32694, 32696, 32698, 32700, 32702, 32704, 32706, 32708, 32710, 32712, 32714, 32715,
    32717, 32718, 32720, 32721, 32723, 32724, 32726, 32727, 32728, 32729, 32731, 32732, 32733, 32734, 32735,
    32736, 32737, 32738, 32739, 32740, 32741, 32741, 32742, 32743, 32744, 32745, 32745, 32746, 32747, 32747,
    32748, 32749, 32749, 32750, 32750, 32751, 32751, 32752, 32752, 32753, 32753, 32754, 32754, 32755, 32755,
    32755, 32756, 32756, 32757, 32757, 32757, 32758, 32758, 32758, 32759, 32759, 32759, 32759, 32760, 32760,
    32760, 32760, 32761, 32761, 32761, 32761, 32762, 32762, 32762, 32762, 32762, 32762, 32763, 32763, 32763,
    32763, 32763, 32763, 32764, 32764, 32764, 32764, 32764, 32764, 32764, 32764, 32765, 32765, 32765, 32765,
    32765, 32765, 32765, 32765, 32765, 32765, 32765, 32766, 32766, 32766, 32766, 32766, 32766, 32766, 32766,
    32766, 32766, 32766, 32766, 32766, 32766, 32766, 32766, 32767, 32767, 32767, 32767, 32767, 32767, 32767,
    32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767,
    32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767, 32767, 32768,
    32768, 32768, 32768, 32768, 32768, 32768};

/* x towards 0, at most 8192 either way; `none` becomes 1 where x is NaN. */
STEPRNN_QUICK int32_t fixed_of(uint32_t bits, uint32_t *none) {
    uint32_t shift = 142u - (bits >> 23 & 255u), size;
    if (shift - 3u <= 28u) size = (0x80000000u | bits << 8) >> shift;
    else if (shift - 3u < 0x80000000u) return 0; /* below 2^-16 */
    else {                                       /* 8192 or more */
        if ((bits & 0x7fffffffu) > 0x7f800000u) *none = 1;
        size = FIXED_MOST;
    }
    return bits >> 31 ? -(int32_t)size : (int32_t)size;
}

/* The nearest float32; NaN where there is none. */
STEPRNN_QUICK uint32_t float_of_fixed(int32_t x, uint32_t none) {
    if (none) return 0x7fc00000u;
#if defined(SOFT_FLOATS)
    {
        uint32_t size = x < 0 ? 0u - (uint32_t)x : (uint32_t)x, lead;
        if (size - 1u < 0xffffffu) { /* exactly, by shifts */
            lead = leading_zeros(size);
            return ((uint32_t)x & 0x80000000u) + ((141u - lead) << 23) + (size << (lead - 8));
        }
    }
#endif
    return x ? bits_of((float)x) - 0x08000000u : 0u; /* 16 of its exponent */
}

/* 2^-16 * (a * b), to the nearest, a tie upwards; the result fits. */
STEPRNN_QUICK int32_t fixed_product(int64_t product) {
    return (int32_t)(uint32_t)((uint64_t)(product + 32768) >> 16);
}

/* sigmoid(x) - 1/2, or of 2 * x where `twice` is 1: a line between each two of the table. |x| is at most 2^31 - 1. */
STEPRNN_QUICK int32_t fixed_half(int32_t x, uint32_t twice) {
    uint32_t size = x < 0 ? 0u - (uint32_t)x : (uint32_t)x, i = size >> (11u - twice), y = 32768;
    if (i < 384u) {
        uint32_t low = fixed_sigmoid[i], part = (size << twice) & 2047u;
        y = low + (((fixed_sigmoid[i + 1] - low) * part + 1024u) >> 11);
    }
    return x < 0 ? -(int32_t)y : (int32_t)y;
}
STEPRNN_QUICK int32_t fixed_gate(int32_t x) { return 32768 + fixed_half(x, 0); }
STEPRNN_QUICK int32_t fixed_tangent(int32_t x) { return 2 * fixed_half(x, 1); }
STEPRNN_QUICK uint32_t is_beyond(int32_t x) { return x >= FIXED_MOST || x <= -FIXED_MOST; }

STEPRNN_INLINE void fixed_lstm(const memory *m, const uint32_t *op) {
    const uint32_t *in[5];
    uint32_t *next_c = m->arena + (op[7] & IN_BLOCK), *next_h = m->arena + (op[8] & IN_BLOCK), i;
    for (i = 0; i < 5; i++) in[i] = read_at(m, op[2 + i]);
    for (i = 0; i < op[1]; i++) {
        uint32_t none = 0;
        int32_t kept = fixed_gate(fixed_of(in[1][i], &none)), taken = fixed_gate(fixed_of(in[0][i], &none));
        int32_t g = fixed_tangent(fixed_of(in[2][i], &none)), o = fixed_gate(fixed_of(in[3][i], &none));
        int32_t c = fixed_of(in[4][i], &none);
        none |= is_beyond(c);
        c = fixed_product((int64_t)kept * c + (int64_t)taken * g);
        none |= is_beyond(c);
        next_c[i] = float_of_fixed(c, none);
        next_h[i] = float_of_fixed(fixed_product((int64_t)o * fixed_tangent(c)), none);
    }
}

STEPRNN_INLINE void fixed_gru(const memory *m, const uint32_t *op) {
    const uint32_t *in[7];
    uint32_t *next_h = m->arena + (op[9] & IN_BLOCK), i, j;
    for (i = 0; i < 7; i++) in[i] = read_at(m, op[2 + i]);
    for (i = 0; i < op[1]; i++) {
        uint32_t none = 0;
        int32_t v[7], z, r, g;
        for (j = 0; j < 7; j++) v[j] = fixed_of(in[j][i], &none);
        none |= is_beyond(v[6]);
        z = fixed_gate(v[0] + v[3]);
        r = fixed_gate(v[1] + v[4]);
        g = fixed_tangent(v[2] + fixed_product((int64_t)r * v[5]));
        next_h[i] = float_of_fixed(g + fixed_product((int64_t)z * (v[6] - g)), none);
    }
}

/* How far a sum of k products of 8 bits is raised, so that it stays below 2^31. */
STEPRNN_INLINE uint32_t fixed_raise(uint32_t k) {
    uint32_t raise = 0;
    while (raise < 16 && k << raise <= 0x10000u) raise++; /* k is at most 131,072 */
    return raise;
}

/* sum * (unit * scale), to the nearest, a tie upwards, at most 8192 either way: of both factors' digits the upper 31
   bits of their product are kept, and of the sum's digits times those the upper 32. */
STEPRNN_QUICK int32_t fixed_sum(int32_t sum, uint32_t unit, uint32_t scale, uint32_t raise) {
    uint32_t digits = (uint32_t)((uint64_t)(0x80000000u | unit << 8) * (0x80000000u | scale << 8) >> 33);
    int64_t high = (int64_t)(sum * (int32_t)((uint32_t)1 << raise)) * (int32_t)digits;
    uint32_t shift = 235u + raise - (unit >> 23 & 255u) - (scale >> 23 & 255u);
    int32_t y = (int32_t)(uint32_t)((uint64_t)high >> 32), most;
    if (shift - 1u < 30u) /* y is within 2^30, which makes it no less than 0 on the way */
        return (int32_t)(((uint32_t)y + 0x40000000u + ((uint32_t)1 << (shift - 1))) >> shift) -
               (int32_t)(0x40000000u >> shift);
    if (shift - 1u < 0x80000000u) return 0;
    shift = 0u - shift; /* 0 or more to the left */
    shift = shift > 29u ? 29u : shift;
    most = FIXED_MOST >> shift;
    y = y > most ? most : (y < -most ? -most : y);
    return y * (int32_t)((uint32_t)1 << shift);
}

/* What the exact sums of `count` columns from `column` on become in y. */
STEPRNN_INLINE void finish_fixed(const memory *m, const uint32_t *op, uint32_t column, uint32_t count,
                                 const int32_t *sums, float unit, uint32_t *y) {
    uint32_t addends = op[1] >> 24, raise = fixed_raise(op[P_K]), i, lost = unit != unit;
    int64_t stride = (int32_t)op[P_Y_STRIDE];
    const uint32_t *scales = m->block + op[P_SCALES] + column;
    const uint32_t *a = addends > 0 ? read_at(m, op[P_REST]) + column : NULL;
    const uint32_t *b = addends > 1 ? read_at(m, op[P_REST + 1]) + column : NULL;
    y += stride * (int64_t)column;
    for (i = 0; i < count; i++, y += stride) {
        uint32_t none = lost;
        int32_t v = fixed_sum(sums[i], bits_of(unit), scales[i], raise);
        if (a) v += fixed_of(a[i], &none);
        if (b) v += fixed_of(b[i], &none);
        *y = float_of_fixed(v, none);
    }
}
#endif
