/* Whether quick.h has the bits of functions.h, for every STRIDE-th float: quick STRIDE. */
#include "quick.h"
#include <stdio.h>
#include <stdlib.h>

static int differ(const char *name, float x, float a, float b) {
    if (bits_of(a) == bits_of(b) || (a != a && b != b)) return 0;
    printf("%s(%a): %a and %a\n", name, (double)x, (double)a, (double)b);
    return 1;
}

int main(int count, char **argument) {
    uint64_t bits, stride = count > 1 ? strtoull(argument[1], NULL, 10) : 1;
    for (bits = 0; bits < 4294967296u; bits += stride) {
        float x = float_of((uint32_t)bits);
        if (differ("sigmoid", x, sigmoid(x), quick_sigmoid(x))) return 1;
        if (differ("tanh", x, tangent(x), quick_tangent(x))) return 1;
    }
    return 0;
}
