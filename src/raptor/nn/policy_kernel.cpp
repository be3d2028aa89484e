// One step of the recurrent student and its vector-Jacobian product, for vehicles side by side in the lanes of vectors.
// S vehicles at a time go through the whole network, so that what lies between its layers stays in the first-level
// cache. Gates as in raptor.nn.policy.policy_step. T (type of number), H, D, A (widths of the hidden state, the
// observation and the action) and PADDED (multiple to which rows of the gradient are padded, one of the length of a
// vector) are defined where this is compiled. What belongs to vehicles has one row per component.

using V = at::vec::Vectorized<T>;
using at::vec::fmadd;
constexpr int64_t W = V::size(), M = W >= 16 ? 4 : 2, S = M * W;  // M vectors of 4 rows of sums fit the registers
constexpr int64_t padded(int64_t width) { return (width + PADDED - 1) / PADDED * PADDED; }
constexpr int64_t HP = padded(H), DP = padded(D);

inline V sigmoid(V x) { return V(1) / (V(1) + x.neg().exp_u20()); }

// m rows of y (S lanes each) += w times x (inputs, S); w has its rows and columns so far apart.
template <int64_t m>
inline void tile(const T* w, int64_t row, int64_t column, const T* x, T* y, int64_t inputs)
{
    V sum[m][M];
    for (int64_t i = 0; i < m; i++)
        for (int64_t v = 0; v < M; v++) sum[i][v] = V::loadu(y + i * S + v * W);
    for (int64_t k = 0; k < inputs; k++, w += column, x += S) {
        V lanes[M];
        for (int64_t v = 0; v < M; v++) lanes[v] = V::loadu(x + v * W);
        for (int64_t i = 0; i < m; i++) {
            const V factor(w[i * row]);
            for (int64_t v = 0; v < M; v++) sum[i][v] = fmadd(factor, lanes[v], sum[i][v]);
        }
    }
    for (int64_t i = 0; i < m; i++)
        for (int64_t v = 0; v < M; v++) sum[i][v].store(y + i * S + v * W);
}

template <int64_t rows>
inline void product(const T* w, int64_t row, int64_t column, const T* x, T* y, int64_t inputs)
{
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4) tile<4>(w + i * row, row, column, x, y + i * S, inputs);
    if constexpr (rows % 4) tile<rows % 4>(w + i * row, row, column, x, y + i * S, inputs);
}

// m rows of g += slopes (m, S) times x (S, n W), whose rows are `width` apart.
template <int64_t m, int64_t n>
inline void outer_tile(const T* slope, const T* x, T* g, int64_t width)
{
    V sum[m][n];
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) sum[i][j] = V::loadu(g + i * width + j * W);
    for (int64_t lane = 0; lane < S; lane++, x += width) {
        V row[n];
        for (int64_t j = 0; j < n; j++) row[j] = V::loadu(x + j * W);
        for (int64_t i = 0; i < m; i++) {
            const V factor(slope[i * S + lane]);
            for (int64_t j = 0; j < n; j++) sum[i][j] = fmadd(factor, row[j], sum[i][j]);
        }
    }
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) sum[i][j].store(g + i * width + j * W);
}

template <int64_t rows, int64_t width>
inline void outer(const T* slope, const T* x, T* g)
{
    constexpr int64_t n = width % (2 * W) ? 1 : 2;
    for (int64_t j = 0; j < width; j += n * W) {
        int64_t i = 0;
        for (; i + 8 <= rows; i += 8) outer_tile<8, n>(slope + i * S, x + j, g + i * width + j, width);
        if constexpr (rows % 8) outer_tile<rows % 8, n>(slope + i * S, x + j, g + i * width + j, width);
    }
}

// The transpose of x (rows, S), with columns of zeros up to `width`.
template <int64_t rows, int64_t width>
inline void transpose(const T* x, T* y)
{
    for (int64_t k = 0; k + W <= rows; k += W)
        for (int64_t v = 0; v < S; v += W) at::vec::transpose_mxn<T, W, W>(x + k * S + v, S, y + v * width + k, width);
    for (int64_t lane = 0; lane < S; lane++)
        for (int64_t k = rows / W * W; k < width; k++) y[lane * width + k] = k < rows ? x[k * S + lane] : T(0);
}

// Rows of `count` lanes of what has N vehicles, and back; lanes that are missing are zeros.
inline void take(const T* from, T* to, int64_t rows, int64_t N, int64_t count)
{
    for (int64_t i = 0; i < rows; i++, from += N, to += S) {
        if (count == S) for (int64_t v = 0; v < S; v += W) V::loadu(from + v).store(to + v);
        else for (int64_t v = 0; v < S; v++) to[v] = v < count ? from[v] : T(0);
    }
}

inline void give(const T* from, T* to, int64_t rows, int64_t N, int64_t count)
{
    for (int64_t i = 0; i < rows; i++, from += S, to += N) {
        if (count == S) for (int64_t v = 0; v < S; v += W) V::loadu(from + v).store(to + v);
        else std::copy(from, from + count, to);
    }
}

inline void fill(T* y, const T* bias, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t v = 0; v < S; v += W) V(bias[i]).store(y + i * S + v);
}

// S vehicles within the network; gate holds r, z, n and what the hidden state adds to n before r.
struct Lanes {
    alignas(64) T seen[D * S], x[H * S], h[H * S], following[H * S], gate[4 * H * S], action[A * S];

    void fly(const T* w_in, const T* b_in, const T* w_ih, const T* w_hh, const T* b_ih, const T* b_hh)
    {
        fill(x, b_in, H);
        product<H>(w_in, D, 1, seen, x, D);
        for (int64_t i = 0; i < H * S; i += W) at::vec::maximum(V::loadu(x + i), V(0)).store(x + i);
        fill(gate, b_ih, 3 * H), fill(gate + 3 * H * S, b_hh + 2 * H, H);
        for (int64_t i = 0; i < 2 * H; i++)
            for (int64_t v = 0; v < S; v += W) (V::loadu(gate + i * S + v) + V(b_hh[i])).store(gate + i * S + v);
        product<3 * H>(w_ih, H, 1, x, gate, H);
        product<2 * H>(w_hh, H, 1, h, gate, H);
        product<H>(w_hh + 2 * H * H, H, 1, h, gate + 3 * H * S, H);
        for (int64_t i = 0; i < H * S; i += W) {
            T* at = gate + i;
            const V r = sigmoid(V::loadu(at)), z = sigmoid(V::loadu(at + H * S)), m = V::loadu(at + 3 * H * S);
            const V n = V(2) * sigmoid(V(2) * fmadd(r, m, V::loadu(at + 2 * H * S))) - V(1);
            r.store(at), z.store(at + H * S), n.store(at + 2 * H * S);
            fmadd(z, V::loadu(h + i) - n, n).store(following + i);
        }
    }
};

// observation (D, N), hidden and following (H, N), action (A, N).
void policy_forward(
    const T* w_in, const T* b_in, const T* w_ih, const T* w_hh, const T* b_ih, const T* b_hh, const T* w_out,
    const T* b_out, const T* observation, const T* hidden, T* action, T* following, const int64_t N)
{
    Lanes lanes;
    for (int64_t i = 0; i < N; i += S) {
        const int64_t count = std::min(S, N - i);
        take(observation + i, lanes.seen, D, N, count), take(hidden + i, lanes.h, H, N, count);
        lanes.fly(w_in, b_in, w_ih, w_hh, b_ih, b_hh);
        fill(lanes.action, b_out, A);
        product<A>(w_out, H, 1, lanes.following, lanes.action, H);
        give(lanes.action, action + i, A, N, count), give(lanes.following, following + i, H, N, count);
    }
}

// by_...: derivatives by action, following (times `scale` (N,)), observation and hidden state. Added to are gradient,
// of w_in (H, DP), w_ih (3 H, HP), w_hh (3 H, HP) and w_out (A, HP), and totals (5 H + A,) of the derivatives by the
// features before the ReLU, by r, z, n before their functions, by the hidden state's part of n, and by the action.
void policy_backward(
    const T* w_in, const T* b_in, const T* w_ih, const T* w_hh, const T* b_ih, const T* b_hh, const T* w_out,
    const T* observation, const T* hidden, const T* by_action, const T* by_following, const T* scale, T* by_observation,
    T* by_hidden, T* gradient, T* totals, const int64_t N)
{
    Lanes lanes;
    T *g_in = gradient, *g_ih = g_in + H * DP, *g_hh = g_ih + 3 * H * HP, *g_out = g_hh + 3 * H * HP;
    alignas(64) T slope[5 * H * S], d[H * S], seen[D * S], factor[S], turned[S * std::max(HP, DP)];
    T *by_x = slope, *by_r = by_x + H * S, *by_z = by_r + H * S, *by_n = by_z + H * S, *by_m = by_n + H * S;
    V sums[5 * H + A];
    std::fill(sums, sums + 5 * H + A, V(0));
    for (int64_t i = 0; i < N; i += S) {
        const int64_t count = std::min(S, N - i);
        take(observation + i, lanes.seen, D, N, count), take(hidden + i, lanes.h, H, N, count);
        lanes.fly(w_in, b_in, w_ih, w_hh, b_ih, b_hh);
        take(by_action + i, lanes.action, A, N, count), take(by_following + i, d, H, N, count);
        take(scale + i, factor, 1, N, count);
        transpose<H, HP>(lanes.following, turned);
        outer<A, HP>(lanes.action, turned, g_out);
        for (int64_t j = 0; j < H * S; j += W) (V::loadu(d + j) * V::loadu(factor + j % S)).store(d + j);
        product<H>(w_out, 1, H, lanes.action, d, A);
        for (int64_t j = 0; j < H * S; j += W) {
            const T* at = lanes.gate + j;
            const V r = V::loadu(at), z = V::loadu(at + H * S), n = V::loadu(at + 2 * H * S), m = V::loadu(at + 3 * H * S);
            const V after = V::loadu(d + j), slope_n = after * (V(1) - z) * (V(1) - n * n), slope_m = slope_n * r;
            slope_n.store(by_n + j), slope_m.store(by_m + j);
            (slope_m * m * (V(1) - r)).store(by_r + j);
            (after * (V::loadu(lanes.h + j) - n) * z * (V(1) - z)).store(by_z + j);
            (after * z).store(d + j), V(0).store(by_x + j);
        }
        product<H>(w_ih, 1, H, by_r, by_x, 3 * H);
        product<H>(w_hh, 1, H, by_r, d, 2 * H);
        product<H>(w_hh + 2 * H * H, 1, H, by_m, d, H);
        for (int64_t j = 0; j < H * S; j += W) (V::loadu(by_x + j) & (V::loadu(lanes.x + j) > V(0))).store(by_x + j);
        std::fill(seen, seen + D * S, T(0));
        product<D>(w_in, 1, D, by_x, seen, H);
        give(seen, by_observation + i, D, N, count), give(d, by_hidden + i, H, N, count);
        for (int64_t j = 0; j < 5 * H + A; j++)
            for (int64_t v = 0; v < S; v += W)
                sums[j] = sums[j] + V::loadu((j < 5 * H ? slope + j * S : lanes.action + (j - 5 * H) * S) + v);
        transpose<H, HP>(lanes.x, turned);
        outer<3 * H, HP>(by_r, turned, g_ih);
        transpose<H, HP>(lanes.h, turned);
        outer<2 * H, HP>(by_r, turned, g_hh), outer<H, HP>(by_m, turned, g_hh + 2 * H * HP);
        transpose<D, DP>(lanes.seen, turned);
        outer<H, DP>(by_x, turned, g_in);
    }
    for (int64_t j = 0; j < 5 * H + A; j++) {
        alignas(64) T lanes_of[W];
        sums[j].store(lanes_of);
        totals[j] += std::accumulate(lanes_of, lanes_of + W, T(0));
    }
}
