/* What the kernels share: their argument, bfloat16, stores that bypass the cache, and the walk over all parameters. */
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__AVX__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define BLOCK 1024 /* elements handled at once; what is bound for memory directly waits in the first-level cache */

/* One call's argument. Arrays have `count` entries, one for each parameter; quantities are flat. */
typedef struct {
  int64_t count, total, threads;
  const int64_t *theta, *grad;   /* addresses of the parameters and of their gradients */
  const int64_t *offset, *size;  /* where each lies in the flat quantities, and how many elements it has */
  const double *rate;            /* weight of the new squared gradient, or learning rate */
  const double *late;            /* weight of the kept gradient's square, where that has yet to enter the Fisher */
  void *gradient, *before, *importance, *anchor, *fisher, *change, *start, *displacement, *score;
  double strength, scale, damping, factor;
  int64_t penalised, updates, catches_up, opens, settles, by_parts, window, euclidean, rectified, bypass;
  int64_t seed;                  /* of stochastic rounding */
} Call;

enum { OPEN, DISPLACED, CLOSED }; /* Call.window: keep the loss change; and the displacement; score at once */

typedef uint16_t bf16;

INLINE float from_bf16(bf16 half) {
  uint32_t bits = (uint32_t)half << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

/* To bfloat16, up or down as 16 random bits have it, so that on average nothing is lost. */
INLINE bf16 round_at_random(float value, uint32_t noise) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return value != value ? 0x7fc0 : (bf16)((bits + noise) >> 16);
}

INLINE bf16 round_to_nearest(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return round_at_random(value, 0x7fff + ((bits >> 16) & 1));
}

/* 16 random bits for an element: the same on every machine and in every process. */
INLINE uint32_t noise(uint32_t index, uint32_t seed) {
  uint32_t x = index * 0x9e3779b1u ^ seed;
  x = (x ^ x >> 16) * 0x85ebca6bu;
  x = (x ^ x >> 13) * 0xc2b2ae35u;
  return (x ^ x >> 16) & 0xffff;
}

/* Copy past the cache: a plain store would first read what it overwrites. */
INLINE void bypass_copy(void *target, const void *source, int64_t bytes) {
  char *to = target;
  const char *from = source;
#if defined(__AVX__)
  int64_t head = (int64_t)(-(uintptr_t)to & 63);
  if (head > bytes) head = bytes;
  memcpy(to, from, head);
  int64_t done = head;
  for (; done + 64 <= bytes; done += 64) {
    _mm256_stream_si256((__m256i *)(to + done), _mm256_loadu_si256((const __m256i *)(from + done)));
    _mm256_stream_si256((__m256i *)(to + done + 32), _mm256_loadu_si256((const __m256i *)(from + done + 32)));
  }
  memcpy(to + done, from + done, bytes - done);
#else
  memcpy(to, from, bytes);
#endif
}

typedef void (*Body)(const Call *call, int64_t parameter, int64_t first, int64_t n);

/* All elements of all parameters in blocks, in equal shares for the threads. */
static void walk(const Call *call, Body body) {
#pragma omp parallel num_threads((int)call->threads)
  {
#ifdef _OPENMP
    int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
#else
    int64_t thread = 0, threads = 1;
#endif
    int64_t from = call->total / threads * thread, seen = 0;
    int64_t to = thread + 1 == threads ? call->total : call->total / threads * (thread + 1);
    for (int64_t p = 0; p < call->count && seen < to; p++) {
      int64_t low = from > seen ? from - seen : 0;
      int64_t high = to - seen < call->size[p] ? to - seen : call->size[p];
      for (int64_t i = low; i < high; i += BLOCK) body(call, p, i, high - i < BLOCK ? high - i : BLOCK);
      seen += call->size[p];
    }
#if defined(__AVX__)
    _mm_sfence();
#endif
  }
}
