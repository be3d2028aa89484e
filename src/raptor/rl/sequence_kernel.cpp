// The recurrent student forward and backward over packed sequences. S sequences go side by side in the lanes of M
// vectors, and what is handed from step to step stays in the first-level cache. The gradient by the weights is left to
// large matrix products, whose factors are stored here: rows of N numbers, step by step for the K steps of a block.
// Gates as in raptor.nn.policy.policy_step. T (type of number), S, and H, D, A (widths of the hidden state, the
// observation and the action) are defined where this is compiled.

using V = at::vec::Vectorized<T>;
using at::vec::fmadd;
constexpr int64_t W = V::size(), M = S / W;

inline V sigmoid(V x) { return V(1) / (V(1) + x.neg().exp_u20()); }

inline T total(V x) {
    alignas(64) T lanes[W];
    x.store(lanes);
    return std::accumulate(lanes, lanes + W, T(0));
}

// Per block of K steps, states: features, entering and following hidden state (3, H, N); error: action minus label
// (A, N). Per step, gates: r, z, n and what the hidden state adds to n before r (4, H, S).
void sequence_forward(
    const T* w_in, const T* b_in, const T* w_ih, const T* w_hh, const T* b_ih, const T* b_hh, const T* w_out,
    const T* b_out, const T* observation, const T* label, const T* keep, const T* counted, T* states, T* gates, T* error,
    T* squares, const int64_t steps, const int64_t K)
{
    alignas(64) T seen[D * S], x[H * S], h[H * S], next[H * S] = {}, wanted[A * S];
    const int64_t N = K * S;
    V squared(0);
    for (int64_t t = 0; t < steps; t++, observation += S * D, label += S * A, keep += S, gates += 4 * H * S) {
        T* features = states + t / K * 3 * H * N + t % K * S;
        T *entering = features + H * N, *following = entering + H * N, *errors = error + t / K * A * N + t % K * S;
        for (int64_t i = 0; i < S; i++)
            for (int64_t d = 0; d < D; d++) seen[d * S + i] = observation[i * D + d];
        for (int64_t i = 0; i < S; i++)
            for (int64_t a = 0; a < A; a++) wanted[a * S + i] = label[i * A + a];
        for (int64_t j = 0; j < H; j++) {
            V sum[M];
            std::fill(sum, sum + M, V(b_in[j]));
            for (int64_t d = 0; d < D; d++)
                for (int v = 0; v < M; v++)
                    sum[v] = fmadd(V(w_in[j * D + d]), V::loadu(seen + d * S + v * W), sum[v]);
            for (int v = 0; v < M; v++) {
                const V feature = at::vec::maximum(sum[v], V(0));
                feature.store(x + j * S + v * W), feature.store(features + j * N + v * W);
                const V entered = V::loadu(next + j * S + v * W) * V::loadu(keep + v * W);
                entered.store(h + j * S + v * W), entered.store(entering + j * N + v * W);
            }
        }
        for (int64_t j = 0; j < H; j++) {
            V r[M], z[M], n[M], m[M];
            for (int v = 0; v < M; v++) {
                r[v] = V(b_ih[j] + b_hh[j]), z[v] = V(b_ih[H + j] + b_hh[H + j]);
                n[v] = V(b_ih[2 * H + j]), m[v] = V(b_hh[2 * H + j]);
            }
            for (int64_t k = 0; k < H; k++) {
                const T *w_x = w_ih + j * H + k, *w_h = w_hh + j * H + k;
                for (int v = 0; v < M; v++) {
                    const V xs = V::loadu(x + k * S + v * W), hs = V::loadu(h + k * S + v * W);
                    r[v] = fmadd(V(w_h[0]), hs, fmadd(V(w_x[0]), xs, r[v]));
                    z[v] = fmadd(V(w_h[H * H]), hs, fmadd(V(w_x[H * H]), xs, z[v]));
                    n[v] = fmadd(V(w_x[2 * H * H]), xs, n[v]);
                    m[v] = fmadd(V(w_h[2 * H * H]), hs, m[v]);
                }
            }
            for (int v = 0; v < M; v++) {
                const V reset = sigmoid(r[v]), update = sigmoid(z[v]);
                const V tanh = V(2) * sigmoid(V(2) * fmadd(reset, m[v], n[v])) - V(1);
                const V hidden = fmadd(update, V::loadu(h + j * S + v * W) - tanh, tanh);
                hidden.store(next + j * S + v * W), hidden.store(following + j * N + v * W);
                T* gate = gates + j * S + v * W;
                reset.store(gate), update.store(gate + H * S), tanh.store(gate + 2 * H * S), m[v].store(gate + 3 * H * S);
            }
        }
        for (int64_t a = 0; a < A; a++)
            for (int64_t v = 0; v < S; v += W) {
                V e = V(b_out[a]) - V::loadu(wanted + a * S + v);
                for (int64_t j = 0; j < H; j++) e = fmadd(V(w_out[a * H + j]), V::loadu(next + j * S + v), e);
                e = e * V::loadu(counted + v);
                e.store(errors + a * N + v);
                squared = fmadd(e, e, squared);
            }
    }
    *squares += total(squared);
}

// One block. adjoint (H, S): derivative by the hidden state after it, and on return before it, of all that follows.
// slopes (5, H, N): derivatives by n, r, z, the hidden state's part of n, and the features before the ReLU; totals
// (5 H + A,) of these and of the error.
void sequence_backward(
    const T* w_ih, const T* w_hh, const T* w_out, const T* keep, const T* states, const T* gates, const T* error,
    T* adjoint, T* slopes, T* totals, const int64_t steps, const int64_t K)
{
    const int64_t N = K * S;
    alignas(64) T s[4 * H * S];
    V sums[5 * H + A];
    std::fill(sums, sums + 5 * H + A, V(0));
    for (int64_t t = steps - 1; t >= 0; t--) {
        const T *gate = gates + t * 4 * H * S, *features = states + t * S, *entering = features + H * N;
        T* slope = slopes + t * S;
        for (int64_t a = 0; a < A; a++)
            for (int64_t v = 0; v < S; v += W) sums[5 * H + a] = sums[5 * H + a] + V::loadu(error + a * N + t * S + v);
        for (int64_t j = 0; j < H; j++)
            for (int64_t v = 0; v < S; v += W) {
                V d = V::loadu(adjoint + j * S + v);
                for (int64_t a = 0; a < A; a++) d = fmadd(V(w_out[a * H + j]), V::loadu(error + a * N + t * S + v), d);
                const V r = V::loadu(gate + j * S + v), z = V::loadu(gate + (H + j) * S + v);
                const V n = V::loadu(gate + (2 * H + j) * S + v), m = V::loadu(gate + (3 * H + j) * S + v);
                const V by_n = d * (V(1) - z) * (V(1) - n * n);
                const V by_r = by_n * m * r * (V(1) - r);
                const V by_z = d * (V::loadu(entering + j * N + v) - n) * z * (V(1) - z);
                const V by[4] = {by_n, by_r, by_z, by_n * r};
                for (int64_t q = 0; q < 4; q++) {
                    by[q].store(s + (q * H + j) * S + v), by[q].store(slope + (q * H + j) * N + v);
                    sums[q * H + j] = sums[q * H + j] + by[q];
                }
                (d * z).store(adjoint + j * S + v);
            }
        for (int64_t j = 0; j < H; j++) {
            V h[3][M], x[3][M];
            for (int v = 0; v < M; v++)
                h[0][v] = V::loadu(adjoint + j * S + v * W), h[1][v] = h[2][v] = x[0][v] = x[1][v] = x[2][v] = V(0);
            for (int64_t k = 0; k < H; k++) {
                const T *w_x = w_ih + k * H + j, *w_h = w_hh + k * H + j;
                for (int v = 0; v < M; v++) {
                    const T* from = s + k * S + v * W;
                    const V by_n = V::loadu(from), by_r = V::loadu(from + H * S);
                    const V by_z = V::loadu(from + 2 * H * S), by_h = V::loadu(from + 3 * H * S);
                    h[0][v] = fmadd(V(w_h[0]), by_r, h[0][v]), x[0][v] = fmadd(V(w_x[0]), by_r, x[0][v]);
                    h[1][v] = fmadd(V(w_h[H * H]), by_z, h[1][v]), x[1][v] = fmadd(V(w_x[H * H]), by_z, x[1][v]);
                    h[2][v] = fmadd(V(w_h[2 * H * H]), by_h, h[2][v]), x[2][v] = fmadd(V(w_x[2 * H * H]), by_n, x[2][v]);
                }
            }
            for (int v = 0; v < M; v++) {
                (V::loadu(keep + t * S + v * W) * (h[0][v] + h[1][v] + h[2][v])).store(adjoint + j * S + v * W);
                const V by_x = (x[0][v] + x[1][v] + x[2][v]) & (V::loadu(features + j * N + v * W) > V(0));
                by_x.store(slope + (4 * H + j) * N + v * W);
                sums[4 * H + j] = sums[4 * H + j] + by_x;
            }
        }
    }
    for (int64_t i = 0; i < 5 * H + A; i++) totals[i] += total(sums[i]);
}
