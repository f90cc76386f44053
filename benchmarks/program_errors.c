/* The largest error of each function of a step program, over every float, in units in the last place.

   cc -O3 -ffp-contract=off -march=native -I runtime/steprnn/runtime/engines/native benchmarks/program_errors.c -lm
   a.out [NAME ...]

   Exact values are those of the C library in double precision, whose own error is a thousandth of a unit at
   most. A unit is the distance between the floats around the exact value; a subnormal result counts too. */
#include "functions.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static double soft_plus_exact(double x) { return (x < 0 ? 0 : x) + log1p(exp(-fabs(x))); }
static double sigmoid_exact(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }

static double unit(double exact) {
    int exponent;
    frexp(exact, &exponent);
    return ldexp(1.0, (exponent < -125 ? -125 : exponent) - 24);
}

#define MEASURE(name, ours, exact_of)                                                      \
    static void measure_##name(void) {                                                     \
        double worst = 0;                                                                  \
        float at = 0;                                                                      \
        uint32_t bits = 0;                                                                 \
        do {                                                                               \
            float x = float_of(bits), y = ours(x);                                         \
            double exact = exact_of((double)x), error;                                     \
            if (isnan(x) || isnan(exact) || isinf(exact)) {                                \
                if (isnan(y) != (isnan(x) || isnan(exact)) || (isinf(exact) && y != (float)exact)) { \
                    printf("| %s | WRONG at %a: %a |\n", #name, (double)x, (double)y);     \
                    return;                                                                \
                }                                                                          \
                continue;                                                                  \
            }                                                                              \
            if (fabs(exact) > FLT_MAX * (1 + 1e-7)) error = isinf(y) ? 0 : 1e9;            \
            else if (isinf(y)) error = fabs(exact) > FLT_MAX * (1 - 1e-7) ? 0.5 : 1e9;     \
            else error = fabs((double)y - exact) / unit(exact);                            \
            if (error > worst) worst = error, at = x;                                      \
        } while (++bits);                                                                  \
        printf("| %s | %.2f, at %.9g |\n", #name, worst, (double)at);                      \
        fflush(stdout);                                                                    \
    }

MEASURE(exp, exponential, exp)
MEASURE(tanh, tangent, tanh)
MEASURE(sigmoid, sigmoid, sigmoid_exact)
MEASURE(log, logarithm, log)
MEASURE(root, root, sqrt)
MEASURE(softplus, soft_plus, soft_plus_exact)
MEASURE(erf, error_function, erf)

int main(int count, char **name) {
    static const struct {
        const char *name;
        void (*measure)(void);
    } all[] = {{"exp", measure_exp}, {"tanh", measure_tanh}, {"sigmoid", measure_sigmoid},
               {"log", measure_log}, {"root", measure_root}, {"softplus", measure_softplus},
               {"erf", measure_erf}};
    size_t i;
    int j;
    for (i = 0; i < sizeof all / sizeof *all; i++)
        for (j = 1; j < count || j == 1; j++)
            if (count == 1 || !strcmp(name[j], all[i].name)) all[i].measure();
    return 0;
}
