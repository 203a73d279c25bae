/* The halves of a step, both at once, the close of a window and the proximal step. P is the type of the parameters, S that of the
   arithmetic, Q that of what may be compact. The equations, made from functional.py, stand above. */

#define FLAT(type, name) type *restrict name = (type *)call->name + call->offset[p] + first
#define THETA(type) type *restrict theta = (type *)(intptr_t)call->theta[p] + first
#define AT(k) noise((uint32_t)(call->offset[p] + first + i), (uint32_t)call->seed * 4 + (k))

INLINE void read_block(const Call *call, int64_t p, int64_t first, int64_t n, const int penalised,
                             const int scaled) {
  THETA(const P);
  P *restrict grad = (P *)(intptr_t)call->grad[p] + first;
  FLAT(Q, gradient);
  FLAT(S, before);
  FLAT(const Q, importance);
  FLAT(const S, anchor);
  const S scale = (S)call->scale;
  const double strength = call->strength;
  Q waiting_gradient[BLOCK];
  S waiting_before[BLOCK];
  const int bypass = (int)call->bypass;
  Q *restrict g = bypass ? waiting_gradient : gradient;
  S *restrict b = bypass ? waiting_before : before;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const S x = LOAD_P(grad[i]), t = LOAD_P(theta[i]), plain = scaled ? x / scale : x;
    g[i] = STORE_Q(plain);
    b[i] = t;
    if (penalised) {
      const S pull = penalty_gradient(LOAD_Q(importance[i]), t, anchor[i], strength);
      grad[i] = STORE_P(x + (scaled ? pull * scale : pull));
    }
  }
  if (bypass) {
    bypass_copy(gradient, g, n * (int64_t)sizeof(Q));
    bypass_copy(before, b, n * (int64_t)sizeof(S));
  }
}

static void read_body(const Call *call, int64_t p, int64_t first, int64_t n) {
  const int scaled = call->scale != 1.0;
  if (call->penalised) scaled ? read_block(call, p, first, n, 1, 1) : read_block(call, p, first, n, 1, 0);
  else scaled ? read_block(call, p, first, n, 0, 1) : read_block(call, p, first, n, 0, 0);
}

INLINE void account_block(const Call *call, int64_t p, int64_t first, int64_t n, const int updates,
                                const int window, const int euclidean, const int by_parts) {
  THETA(const P);
  FLAT(const Q, gradient);
  FLAT(const S, before);
  FLAT(Q, fisher);
  FLAT(Q, change);
  FLAT(const S, start);
  FLAT(Q, displacement);
  FLAT(Q, score);
  const double alpha = call->rate[p], damping = call->damping, factor = call->factor;
  const int rectified = (int)call->rectified;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const S g = LOAD_Q(gradient[i]), decrease = before[i] - LOAD_P(theta[i]);
    S f = LOAD_Q(fisher[i]);
    if (updates) {
      const Q kept = STORE_A(fisher_ema(f, g, alpha), 0);
      fisher[i] = kept;
      f = LOAD_Q(kept);
    }
    if (window == CLOSED) {
      const S distance = euclidean ? euclidean_distance(decrease, factor)
                                   : riemannian_distance(f, decrease, factor);
      S gained = path_score(loss_change((S)0, g, decrease), distance, damping);
      gained = rectified && gained < 0 ? 0 : gained;
      score[i] = STORE_A(LOAD_Q(score[i]) + gained, 1);
    } else if (!by_parts) {
      change[i] = STORE_A(loss_change(LOAD_Q(change[i]), g, decrease), 2);
      if (window == DISPLACED) displacement[i] = STORE_A(LOAD_Q(displacement[i]) + decrease, 3);
    } else { /* as advance does */
      const S arrived = loss_change(LOAD_Q(change[i]), g, before[i] - start[i]);
      change[i] = STORE_A(loss_change(arrived, g, start[i] - LOAD_P(theta[i])), 2);
    }
  }
}

#define CASE(u, w, e, b) if (updates == u && call->window == w && (w != CLOSED || euclidean == e) && by_parts == b) { \
    account_block(call, p, first, n, u, w, e, b); return; }
static void account_body(const Call *call, int64_t p, int64_t first, int64_t n) {
  const int updates = call->updates != 0, euclidean = call->euclidean != 0, by_parts = call->by_parts != 0;
  CASE(1, OPEN, 0, 1) CASE(0, OPEN, 0, 1) CASE(1, OPEN, 0, 0) CASE(0, OPEN, 0, 0)
  CASE(1, DISPLACED, 0, 0) CASE(0, DISPLACED, 0, 0)
  CASE(1, CLOSED, 0, 0) CASE(0, CLOSED, 0, 0) CASE(1, CLOSED, 1, 0) CASE(0, CLOSED, 1, 0)
}

/* Both halves before the step: what the last one did is seen by where the weights are now. */
INLINE void advance_block(const Call *call, int64_t p, int64_t first, int64_t n, const int penalised,
                                const int opens, const int catches_up, const int updates) {
  THETA(const P);
  P *restrict grad = (P *)(intptr_t)call->grad[p] + first;
  FLAT(S, gradient);
  FLAT(S, start);
  FLAT(S, change);
  FLAT(S, fisher);
  FLAT(const S, importance);
  FLAT(const S, anchor);
  const double strength = call->strength, alpha = call->rate[p], late = call->late[p];
  S waiting_gradient[BLOCK], waiting_start[BLOCK];
  const int bypass = opens && call->bypass;
  S *restrict g = bypass ? waiting_gradient : gradient;
  S *restrict s = bypass ? waiting_start : start;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const S x = LOAD_P(grad[i]), t = LOAD_P(theta[i]);
    S f = catches_up || updates ? fisher[i] : 0;
    if (opens) s[i] = t;
    else {
      const S last = g[i], moved = s[i] - t;
      change[i] = loss_change(loss_change(change[i], last, moved), x, t - s[i]);
      if (catches_up) f = fisher_ema(f, last, late);
    }
    if (updates) f = fisher_ema(f, x, alpha);
    if (catches_up || updates) fisher[i] = f;
    g[i] = x;
    if (penalised) grad[i] = STORE_P(x + penalty_gradient(importance[i], t, anchor[i], strength));
  }
  if (bypass) {
    bypass_copy(gradient, g, n * (int64_t)sizeof(S));
    bypass_copy(start, s, n * (int64_t)sizeof(S));
  }
}

#define GO(a, o, l, u) if (penalised == a && opens == o && late == l && updates == u) { \
    advance_block(call, p, first, n, a, o, l, u); return; }
static void advance_body(const Call *call, int64_t p, int64_t first, int64_t n) {
  const int penalised = call->penalised != 0, opens = call->opens != 0, late = call->catches_up != 0;
  const int updates = call->updates != 0;
  GO(1, 0, 0, 0) GO(1, 0, 1, 1) GO(1, 0, 0, 1) GO(1, 0, 1, 0) GO(1, 1, 0, 0) GO(1, 1, 0, 1)
  GO(0, 0, 0, 0) GO(0, 0, 1, 1) GO(0, 0, 0, 1) GO(0, 0, 1, 0) GO(0, 1, 0, 0) GO(0, 1, 0, 1)
}

static void settle_body(const Call *call, int64_t p, int64_t first, int64_t n) {
  THETA(const P);
  FLAT(S, gradient);
  FLAT(const S, start);
  FLAT(S, change);
  FLAT(S, fisher);
  const int late = call->catches_up != 0;
  const double weight = call->late[p];
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const S last = gradient[i];
    change[i] = loss_change(change[i], last, start[i] - LOAD_P(theta[i]));
    if (late) fisher[i] = fisher_ema(fisher[i], last, weight);
    gradient[i] = 0;
  }
}

INLINE void close_block(const Call *call, int64_t p, int64_t first, int64_t n, const int euclidean,
                              const int displaced, const int settles) {
  THETA(const P);
  FLAT(const Q, gradient);
  FLAT(const Q, fisher);
  FLAT(Q, change);
  FLAT(const S, start);
  FLAT(const Q, displacement);
  FLAT(Q, score);
  const double damping = call->damping, factor = call->factor;
  const int rectified = (int)call->rectified;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const S moved = displaced ? (S)LOAD_Q(displacement[i]) : start[i] - LOAD_P(theta[i]);
    const S distance = euclidean ? euclidean_distance(moved, factor)
                                 : riemannian_distance(LOAD_Q(fisher[i]), moved, factor);
    S total = LOAD_Q(change[i]);
    if (settles) total = loss_change(total, LOAD_Q(gradient[i]), moved);
    S gained = path_score(total, distance, damping);
    gained = rectified && gained < 0 ? 0 : gained;
    score[i] = STORE_A(LOAD_Q(score[i]) + gained, 1);
    change[i] = 0;
  }
}

#define END(e, d, s) if (euclidean == e && displaced == d && settles == s) { \
    close_block(call, p, first, n, e, d, s); return; }
static void close_body(const Call *call, int64_t p, int64_t first, int64_t n) {
  const int euclidean = call->euclidean != 0, displaced = call->window == DISPLACED, settles = call->settles != 0;
  END(0, 0, 1) END(0, 0, 0) END(0, 1, 0) END(1, 0, 1) END(1, 0, 0) END(1, 1, 0)
}

static void pull_body(const Call *call, int64_t p, int64_t first, int64_t n) {
  THETA(P);
  FLAT(const Q, importance);
  FLAT(const S, anchor);
  const double strength = call->strength, lr = call->rate[p];
#pragma omp simd
  for (int64_t i = 0; i < n; i++)
    theta[i] = STORE_P(proximal_step(LOAD_Q(importance[i]), LOAD_P(theta[i]), anchor[i], strength, lr));
}

void rwalk_read(const Call *call) { walk(call, read_body); }
void rwalk_account(const Call *call) { walk(call, account_body); }
void rwalk_advance(const Call *call) { walk(call, advance_body); }
void rwalk_settle(const Call *call) { walk(call, settle_body); }
void rwalk_close(const Call *call) { walk(call, close_body); }
void rwalk_pull(const Call *call) { walk(call, pull_body); }
