/* The step in one pass over memory: the equations of equations.py by hand, held to them by the tests.
   P is the type of the parameters and gradients, S that of the arithmetic, Q that of what may be compact. */
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define BLOCK 1024 /* elements handled at once: where a window closes, what one loop leaves the next finds in the cache */

enum { START, DISPLACED, STEP }; /* Call.window: how a window's displacement is known */
enum { GRADIENT, BEFORE, IMPORTANCE, ANCHOR, FISHER, CHANGE, WINDOW_START, DISPLACEMENT, SCORE, MEASURE, QUANTITIES };

/* One call's argument. Arrays have `count` entries, one for each parameter; quantities are flat. */
typedef struct {
  int64_t count, total, threads;
  const int64_t *theta, *grad;  /* addresses of the parameters and of their gradients */
  const int64_t *offset, *size; /* where each lies in the flat quantities, and how many elements it has */
  const double *rate;           /* weight of the pending gradient's square, or learning rate */
  const int64_t *flat;          /* addresses of the quantities, 0 where one does not exist */
  double strength, scale, damping, factor, limit;
  int64_t pends, updates, closes, keeps, weighs, penalised, window, euclidean, rectified, measures;
  int64_t seed;                 /* of stochastic rounding */
  int64_t nonfinite;            /* out: whether a gradient, or the square of one, is not finite */
} Call;

#ifndef LAYOUT_ONLY

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

/* Eq. 6: F ← αg² + (1 − α)F */
INLINE S fisher_ema(S fisher, S gradient, double alpha) {
  return fisher * (S)(1.0 - alpha) + (S)alpha * gradient * gradient;
}

/* Eq. 7: ΔL ← ΔL + g·(θ(t) − θ(t+1)) */
INLINE S loss_change(S change, S gradient, S decrease) { return change + gradient * decrease; }

/* A weight that is not finite is nowhere, and no step has led there. */
INLINE S way(S from, S to) {
  const S gone = from - to;
  return gone - gone == 0 ? gone : 0;
}

/* s = ΔL / (½F·Δθ² + ε) */
INLINE S path_score(S change, S measure, S moved, S factor, S damping) {
  return change / (moved * moved * measure * factor + damping);
}

/* Eq. 8: 2λΩ(θ − θ*) */
INLINE S penalty_gradient(S importance, S theta, S anchor, double strength) {
  return (theta - anchor) * importance * (S)(2.0 * strength);
}

/* θ ← (θ + cθ*) / (1 + c), c = lr·2λΩ */
INLINE S proximal_step(S importance, S theta, S anchor, double strength, double lr) {
  const S kept = 1 / (importance * (S)(2.0 * strength * lr) + 1);
  return kept < (S)0.5 ? anchor + kept * (theta - anchor) : theta - (theta - anchor) * (1 - kept);
}

#define FLAT(type, name, which) type *restrict name = (type *)(intptr_t)call->flat[which] + call->offset[p] + first
#define AT(k) noise((uint32_t)(call->offset[p] + first + i), (uint32_t)call->seed * 4 + (k))

/* Bring the pending step in (its gradient and weights are kept), then keep the one about to be taken. */
INLINE int settle_and_keep(const Call *call, int64_t p, int64_t first, int64_t n, const int window, const int pends,
                           const int updates, const int keeps, const int penalised, const int weighs, const int scaled) {
  const P *restrict theta = (const P *)(intptr_t)call->theta[p] + first;
  P *restrict grad = (P *)(intptr_t)call->grad[p] + first;
  FLAT(Q, gradient, GRADIENT);
  FLAT(S, before, BEFORE);
  FLAT(Q, fisher, FISHER);
  FLAT(Q, change, CHANGE);
  FLAT(Q, displacement, DISPLACEMENT);
  FLAT(Q, score, SCORE);
  FLAT(const Q, importance, IMPORTANCE);
  FLAT(const S, anchor, ANCHOR);
  const double alpha = call->rate[p], strength = call->strength;
  const S factor = (S)call->factor, damping = (S)call->damping, scale = (S)call->scale, limit = (S)call->limit;
  const int euclidean = (int)call->euclidean, rectified = (int)call->rectified;
  int bad = 0;
#pragma omp simd reduction(| : bad)
  for (int64_t i = 0; i < n; i++) {
    const S t = LOAD_P(theta[i]);
    S b = pends || !weighs ? before[i] : 0;
    if (pends) {
      const S g = LOAD_Q(gradient[i]), decrease = way(b, t);
      S f = updates || window == STEP ? LOAD_Q(fisher[i]) : 0;
      if (updates) {
        const Q kept = STORE_A(fisher_ema(f, g, alpha), 0);
        fisher[i] = kept;
        f = LOAD_Q(kept);
      }
      if (window == STEP) {
        S gained = path_score(loss_change(0, g, decrease), euclidean ? 1 : f, decrease, factor, damping);
        gained = rectified && gained < 0 ? 0 : gained;
        score[i] = STORE_A(LOAD_Q(score[i]) + gained, 1);
      } else change[i] = STORE_A(loss_change(LOAD_Q(change[i]), g, decrease), 2);
      if (window == DISPLACED) displacement[i] = STORE_A(LOAD_Q(displacement[i]) + decrease, 3);
    }
    if (keeps) {
      const S x = LOAD_P(grad[i]), g = scaled ? x / scale : x;
      bad |= !((g < 0 ? -g : g) <= limit); /* NaN is not */
      gradient[i] = STORE_Q(g);
      if (weighs) before[i] = b = t;
      if (penalised) {
        const S pull = penalty_gradient(LOAD_Q(importance[i]), b, anchor[i], strength);
        grad[i] = STORE_P(x + (scaled ? pull * scale : pull));
      }
    }
  }
  return bad;
}

/* Score the window; the next one begins where the weights are now. */
INLINE void close_window(const Call *call, int64_t p, int64_t first, int64_t n, const int displaced) {
  const P *restrict theta = (const P *)(intptr_t)call->theta[p] + first;
  FLAT(const Q, fisher, FISHER);
  FLAT(Q, change, CHANGE);
  FLAT(S, start, WINDOW_START);
  FLAT(Q, displacement, DISPLACEMENT);
  FLAT(Q, score, SCORE);
  FLAT(Q, measured, MEASURE); /* the Fisher as the window began */
  const S factor = (S)call->factor, damping = (S)call->damping;
  const int euclidean = (int)call->euclidean, rectified = (int)call->rectified, measures = (int)call->measures;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const S moved = displaced ? LOAD_Q(displacement[i]) : way(start[i], LOAD_P(theta[i]));
    const S measure = euclidean ? 1 : measures ? LOAD_Q(measured[i]) : LOAD_Q(fisher[i]);
    S gained = path_score(LOAD_Q(change[i]), measure, moved, factor, damping);
    gained = rectified && gained < 0 ? 0 : gained;
    score[i] = STORE_A(LOAD_Q(score[i]) + gained, 1);
    change[i] = 0;
    if (displaced) displacement[i] = 0;
    else start[i] = LOAD_P(theta[i]);
    if (measures) measured[i] = fisher[i];
  }
}

/* Flags: window; pends, updates, keeps, penalised, weighs, scaled. */
#define GO(w, pe, u, k, q, h, s) return settle_and_keep(call, p, first, n, w, pe, u, k, q, h, s)
#define PENDING(w) \
  if (window == w) { \
    if (!keeps) { if (updates) GO(w, 1, 1, 0, 0, 0, 0); GO(w, 1, 0, 0, 0, 0, 0); } \
    if (updates) { if (penalised) GO(w, 1, 1, 1, 1, 1, 0); GO(w, 1, 1, 1, 0, 1, 0); } \
    if (penalised) GO(w, 1, 0, 1, 1, 1, 0); \
    GO(w, 1, 0, 1, 0, 1, 0); \
  }

/* The loop without what this call does not do: with its conditions fixed, the compiler makes vectors of it. */
INLINE int in_one_loop(const Call *call, int64_t p, int64_t first, int64_t n, int pends, int keeps) {
  const int window = (int)call->window, updates = call->updates != 0, penalised = call->penalised != 0;
  if (pends) { PENDING(START) PENDING(DISPLACED) PENDING(STEP) }
  if (!keeps) return 0;
  if (call->scale == 1) {
    if (call->weighs) { if (penalised) GO(START, 0, 0, 1, 1, 1, 0); GO(START, 0, 0, 1, 0, 1, 0); }
    if (penalised) GO(START, 0, 0, 1, 1, 0, 0);
    GO(START, 0, 0, 1, 0, 0, 0);
  }
  if (call->weighs) { if (penalised) GO(START, 0, 0, 1, 1, 1, 1); GO(START, 0, 0, 1, 0, 1, 1); }
  if (penalised) GO(START, 0, 0, 1, 1, 0, 1);
  GO(START, 0, 0, 1, 0, 0, 1);
}

static int step_block(const Call *call, int64_t p, int64_t first, int64_t n) {
  const int pends = call->pends != 0, keeps = call->keeps != 0, closes = call->closes && call->window != STEP;
  if (pends && keeps && !closes && call->weighs && call->scale == 1) return in_one_loop(call, p, first, n, 1, 1);
  in_one_loop(call, p, first, n, pends, 0);
  if (closes) call->window == DISPLACED ? close_window(call, p, first, n, 1) : close_window(call, p, first, n, 0);
  return in_one_loop(call, p, first, n, 0, keeps);
}

static int pull_block(const Call *call, int64_t p, int64_t first, int64_t n) {
  P *restrict theta = (P *)(intptr_t)call->theta[p] + first;
  FLAT(const Q, importance, IMPORTANCE);
  FLAT(const S, anchor, ANCHOR);
  const double strength = call->strength, lr = call->rate[p];
#pragma omp simd
  for (int64_t i = 0; i < n; i++)
    theta[i] = STORE_P(proximal_step(LOAD_Q(importance[i]), LOAD_P(theta[i]), anchor[i], strength, lr));
  return 0;
}

/* All elements of all parameters in blocks, in equal shares for the threads. */
static void over_blocks(Call *call, int (*block)(const Call *, int64_t, int64_t, int64_t)) {
  int bad = 0;
#pragma omp parallel num_threads((int)call->threads) reduction(| : bad)
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
      for (int64_t i = low; i < high; i += BLOCK) bad |= block(call, p, i, high - i < BLOCK ? high - i : BLOCK);
      seen += call->size[p];
    }
  }
  call->nonfinite = bad;
}

void rwalk_step(Call *call) { over_blocks(call, step_block); }
void rwalk_pull(Call *call) { over_blocks(call, pull_block); }

#endif
