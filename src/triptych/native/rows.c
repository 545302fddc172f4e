/* Row by row work between the matrix products, in one pass each. Plain C that compilers vectorise.
 *
 * Matrices are bfloat16 (the upper half of a float32), contiguous, row by row. Every function takes the number
 * of rows and columns last. The loops over rows run in OpenMP's threads.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;
#define INLINE static inline __attribute__((always_inline))

INLINE float wide(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* To the nearest, ties to even, as torch rounds. */
INLINE bf16 narrow(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bf16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* exp(x) for x <= 0: 2^n times a polynomial on [-ln2/2, ln2/2]; relative error below 5e-5, an eightieth of what
 * the rounding to bfloat16 adds. */
INLINE float exp_negative(float x) {
    x = x < -87.0f ? -87.0f : x;
    float n = rintf(x * 1.44269504f);
    float r = x - n * 0.69314718f;
    float p = 1.0f + r * (1.0f + r * (0.5f + r * (0.16666667f + r * 0.04166667f)));
    int32_t power = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &power, 4);
    return p * scale;
}

/* x * Phi(x), with erf by Abramowitz and Stegun 7.1.26. */
INLINE float gelu(float x) {
    float z = fabsf(x) * 0.70710678f;
    float t = 1.0f / (1.0f + 0.3275911f * z);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    float tail = p * t * exp_negative(-z * z);
    return 0.5f * (x + fabsf(x) * (1.0f - tail));
}

/* q = round(x / s) + 128 with s = max|row| / 127. */
void tt_quantize(const bf16 *x, uint8_t *q, float *s, ptrdiff_t rows, ptrdiff_t columns) {
#pragma omp parallel for schedule(static)
    for (ptrdiff_t i = 0; i < rows; i++) {
        const bf16 *from = x + i * columns;
        uint8_t *to = q + i * columns;
        float top = 1e-8f;
#pragma omp simd reduction(max : top)
        for (ptrdiff_t j = 0; j < columns; j++) {
            float a = fabsf(wide(from[j]));
            top = a > top ? a : top;
        }
        s[i] = top / 127.0f;
        float inverse = 127.0f / top;
#pragma omp simd
        for (ptrdiff_t j = 0; j < columns; j++) to[j] = (uint8_t)((int32_t)rintf(wide(from[j]) * inverse) + 128);
    }
}

/* out = act(y * s + bias) + residual; gelu != 0: the exact GELU. residual may be NULL; out may be y. */
void tt_finish(const bf16 *y, const float *s, const float *bias, const bf16 *residual, int with_gelu, bf16 *out,
               ptrdiff_t rows, ptrdiff_t columns) {
#pragma omp parallel for schedule(static)
    for (ptrdiff_t i = 0; i < rows; i++) {
        const bf16 *from = y + i * columns;
        bf16 *to = out + i * columns;
        float scale = s[i];
        if (with_gelu) {
#pragma omp simd
            for (ptrdiff_t j = 0; j < columns; j++) to[j] = narrow(gelu(wide(from[j]) * scale + bias[j]));
        } else if (residual) {
            const bf16 *add = residual + i * columns;
#pragma omp simd
            for (ptrdiff_t j = 0; j < columns; j++) to[j] = narrow(wide(from[j]) * scale + bias[j] + wide(add[j]));
        } else {
#pragma omp simd
            for (ptrdiff_t j = 0; j < columns; j++) to[j] = narrow(wide(from[j]) * scale + bias[j]);
        }
    }
}

/* x = exp(scale * (x - max of the row)), inverse[i] = 1 / sum of the row: a softmax whose last step, a product,
 * is left to whoever multiplies with the values anyway. */
void tt_softmax(bf16 *x, float *inverse, float scale, ptrdiff_t rows, ptrdiff_t columns) {
#pragma omp parallel for schedule(static)
    for (ptrdiff_t i = 0; i < rows; i++) {
        bf16 *row = x + i * columns;
        float top = -3.4e38f, sum = 0.0f;
#pragma omp simd reduction(max : top)
        for (ptrdiff_t j = 0; j < columns; j++) {
            float a = wide(row[j]);
            top = a > top ? a : top;
        }
#pragma omp simd reduction(+ : sum)
        for (ptrdiff_t j = 0; j < columns; j++) {
            float e = exp_negative((wide(row[j]) - top) * scale);
            sum += e;
            row[j] = narrow(e);
        }
        inverse[i] = 1.0f / sum;
    }
}

/* out[row * stride_row + head * columns + j] = x[head, row, j] * inverse[head, row]: heads put side by side. */
void tt_merge_heads(const bf16 *x, const float *inverse, bf16 *out, ptrdiff_t stride, ptrdiff_t heads, ptrdiff_t rows,
                    ptrdiff_t columns) {
#pragma omp parallel for schedule(static)
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t h = 0; h < heads; h++) {
            const bf16 *from = x + (h * rows + i) * columns;
            bf16 *to = out + i * stride + h * columns;
            float scale = inverse[h * rows + i];
#pragma omp simd
            for (ptrdiff_t j = 0; j < columns; j++) to[j] = narrow(wide(from[j]) * scale);
        }
}

#define MOST_TOKENS 16
#define MOST_COLUMNS 128
#define TOGETHER 4

/* Attention within short texts of equal length: out[t, h] = softmax(q[t, h] k[h]^T / sqrt(columns)) v[h], in float32
 * inside. qkv[t, 3, h, columns], out[t, h, columns]; at most MOST_TOKENS tokens a text, so that the scores of a row are
 * one vector, and columns a multiple of that, at most MOST_COLUMNS. */
void tt_attend(const bf16 *qkv, bf16 *out, ptrdiff_t texts, ptrdiff_t tokens, ptrdiff_t heads, ptrdiff_t columns) {
    const ptrdiff_t width = heads * columns;
    const float scale = 1.0f / sqrtf((float)columns);
#pragma omp parallel for schedule(static) if (texts * heads > 100)
    for (ptrdiff_t i = 0; i < texts * heads; i++) {
        const bf16 *from = qkv + i / heads * tokens * 3 * width + i % heads * columns;
        bf16 *to = out + i / heads * tokens * width + i % heads * columns;
        float q[MOST_TOKENS][MOST_COLUMNS], v[MOST_TOKENS][MOST_COLUMNS], k[MOST_COLUMNS][MOST_TOKENS];
        memset(q, 0, sizeof q);
        memset(k, 0, sizeof k);
        for (ptrdiff_t t = 0; t < tokens; t++) {
            const bf16 *row = from + t * 3 * width;
#pragma omp simd
            for (ptrdiff_t j = 0; j < columns; j++) {
                q[t][j] = wide(row[j]) * scale;
                v[t][j] = wide(row[2 * width + j]);
            }
            for (ptrdiff_t j = 0; j < columns; j++) k[j][t] = wide(row[width + j]);
        }
        for (ptrdiff_t t = 0; t < tokens; t += TOGETHER) {
            float e[TOGETHER][MOST_TOKENS] = {{0}}, inverse[TOGETHER];
            for (ptrdiff_t j = 0; j < columns; j++)
                for (int r = 0; r < TOGETHER; r++)
#pragma omp simd
                    for (int s = 0; s < MOST_TOKENS; s++) e[r][s] += q[t + r][j] * k[j][s];
            for (int r = 0; r < TOGETHER; r++) {
                float top = -3.4e38f, sum = 0.0f;
#pragma omp simd reduction(max : top)
                for (int s = 0; s < MOST_TOKENS; s++) {
                    e[r][s] = s < tokens ? e[r][s] : -3.4e38f;
                    top = e[r][s] > top ? e[r][s] : top;
                }
#pragma omp simd reduction(+ : sum)
                for (int s = 0; s < MOST_TOKENS; s++) {
                    e[r][s] = s < tokens ? exp_negative(e[r][s] - top) : 0.0f;
                    sum += e[r][s];
                }
                inverse[r] = 1.0f / sum;
            }
            for (ptrdiff_t j = 0; j < columns; j += MOST_TOKENS) {
                float sum[TOGETHER][MOST_TOKENS] = {{0}};
                for (ptrdiff_t s = 0; s < tokens; s++)
                    for (int r = 0; r < TOGETHER; r++)
#pragma omp simd
                        for (int l = 0; l < MOST_TOKENS; l++) sum[r][l] += e[r][s] * v[s][j + l];
                for (int r = 0; r < TOGETHER && t + r < tokens; r++)
#pragma omp simd
                    for (int l = 0; l < MOST_TOKENS; l++) to[(t + r) * width + j + l] = narrow(sum[r][l] * inverse[r]);
            }
        }
    }
}
