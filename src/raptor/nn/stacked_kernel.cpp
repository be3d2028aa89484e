// Outputs of multi-layer perceptrons, each for rows of its own, with ReLU between the layers. A few rows at a time go
// through all layers, so that what lies between them stays in the first-level cache, and each sum stays in a register.
// T (type of number), WIDTHS (of the observation, of the hidden layers, of the output) and PADDED (multiple to which the
// outputs of a layer are padded, one of the length of a vector) are defined where this is compiled.

using V = at::vec::Vectorized<T>;
constexpr int64_t W = V::size(), NUM_LAYERS = sizeof(WIDTHS) / sizeof(WIDTHS[0]) - 1;
constexpr int64_t M = 6, N = 4;  // rows and vectors of sums side by side: as many as there are registers for

constexpr int64_t padded(int64_t width) { return (width + PADDED - 1) / PADDED * PADDED; }

constexpr int64_t widest() {
    int64_t most = 0;
    for (int64_t width : WIDTHS) most = std::max(most, padded(width));
    return most;
}

// Sums of m rows and n vectors of columns: bias, and x (m, inputs) times w (inputs, columns).
template <int64_t m, int64_t n>
inline void tile(const T* w, const T* bias, const T* x, T* y, int64_t inputs, int64_t columns, int64_t stride, bool relu)
{
    V sum[m][n];
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) sum[i][j] = V::loadu(bias + j * W);
    for (int64_t k = 0; k < inputs; k++, w += columns) {
        V row[n];
        for (int64_t j = 0; j < n; j++) row[j] = V::loadu(w + j * W);
        for (int64_t i = 0; i < m; i++) {
            const V factor(x[i * stride + k]);
            for (int64_t j = 0; j < n; j++) sum[i][j] = at::vec::fmadd(factor, row[j], sum[i][j]);
        }
    }
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            (relu ? at::vec::maximum(sum[i][j], V(0)) : sum[i][j]).store(y + i * widest() + j * W);
}

template <int64_t m>
inline void layers(const T* packed, const T* x, T* y)
{
    alignas(64) T between[2][m * widest()];
    int64_t stride = WIDTHS[0];
    for (int64_t layer = 0; layer < NUM_LAYERS; layer++) {
        const int64_t inputs = WIDTHS[layer], columns = padded(WIDTHS[layer + 1]);
        const T* bias = packed + inputs * columns;
        T* to = between[layer % 2];
        const bool relu = layer + 1 < NUM_LAYERS;
        int64_t j = 0;
        for (; j + N * W <= columns; j += N * W) tile<m, N>(packed + j, bias + j, x, to + j, inputs, columns, stride, relu);
        for (; j < columns; j += W) tile<m, 1>(packed + j, bias + j, x, to + j, inputs, columns, stride, relu);
        packed = bias + columns, x = to, stride = widest();
    }
    for (int64_t i = 0; i < m; i++)
        for (int64_t a = 0; a < WIDTHS[NUM_LAYERS]; a++) y[i * WIDTHS[NUM_LAYERS] + a] = x[i * widest() + a];
}

// networks (num, size): of each layer the weight (inputs, padded outputs), then the bias; x (num, rows, inputs); y (num, rows, outputs).
void stacked_forward(const T* networks, const T* x, T* y, const int64_t num, const int64_t rows, const int64_t size)
{
    for (int64_t t = 0; t < num; t++, networks += size) {
        int64_t row = 0;
        for (; row + M <= rows; row += M, x += M * WIDTHS[0], y += M * WIDTHS[NUM_LAYERS]) layers<M>(networks, x, y);
        for (; row < rows; row++, x += WIDTHS[0], y += WIDTHS[NUM_LAYERS]) layers<1>(networks, x, y);
    }
}
