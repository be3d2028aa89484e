/* Elementary functions of single precision without a library, the same bits on every machine. */
#ifndef RAPTOR_MATH_H
#define RAPTOR_MATH_H

#include <stdint.h>

/* e^x to 2e-7 of its value, for x in [-87, 87]; beyond, that of the nearest bound. NaN gives NaN. */
static inline float raptor_exp(float x)
{
    union { float value; uint32_t bits; } power;
    float n, r;
    int32_t whole;
    x = x > 87.0f ? 87.0f : x;
    x = x < -87.0f ? -87.0f : x;
    if (!(x == x)) return x;
    n = x * 1.44269504f;
    whole = (int32_t)(n < 0.0f ? n - 0.5f : n + 0.5f);
    n = (float)whole;
    r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* in [-ln 2 / 2, ln 2 / 2] */
    power.bits = (uint32_t)(whole + 127) << 23;
    return power.value * (1.0f + r * (1.0f + r * (0.5f + r * (1.66666667e-1f + r * (4.16666667e-2f + r * (8.33333333e-3f
        + r * (1.38888889e-3f + r * 1.98412698e-4f)))))));
}

static inline float raptor_sigmoid(float x) { return 1.0f / (1.0f + raptor_exp(-x)); }

static inline float raptor_tanh(float x) { return 2.0f * raptor_sigmoid(2.0f * x) - 1.0f; }

/* x within [low, high]; NaN gives low. */
static inline float raptor_clip(float x, float low, float high) { return x >= low ? (x <= high ? x : high) : low; }

#endif
