// The sampler's CPU kernels. They are compiled on first use and called through ctypes (native.py), with plain pointers
// and strides in elements, so this file depends neither on PyTorch's headers nor on its ABI.
//
// Maps are [B, H, W, C] with adjacent channels. A token's C channels are `groups` groups of `share` neighbours, and each
// group is read at one position. The backward pass computes the positions again; they are not stored.
//
// In the backward pass, one thread owns a block of channels of an image and adds to the gradient of x one token after
// the other. There are no atomics, and the order of summation does not depend on the number of threads.

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace {

struct bfloat16 {
    uint16_t bits;
};

// The type of positions and sums. A narrower type could not represent fractions of large positions.
template <typename T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

// N neighbouring channels, the unit of loads and stores.
template <typename R, int N>
struct LanesOf {
    typedef R type __attribute__((vector_size(sizeof(R) * N)));
};
template <typename R, int N>
using Lanes = typename LanesOf<R, N>::type;

template <int N>
inline Lanes<float, N> load(const float* from) {
    Lanes<float, N> lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
}
template <int N>
inline Lanes<double, N> load(const double* from) {
    Lanes<double, N> lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
}
template <int N>
inline Lanes<float, N> load(const bfloat16* from) {
    Lanes<uint16_t, N> narrow;
    std::memcpy(&narrow, from, sizeof narrow);
    const auto bits = __builtin_convertvector(narrow, Lanes<uint32_t, N>) << 16;
    Lanes<float, N> lanes;
    std::memcpy(&lanes, &bits, sizeof lanes);
    return lanes;
}

template <int N>
inline void store(float* to, Lanes<float, N> lanes) {
    std::memcpy(to, &lanes, sizeof lanes);
}
template <int N>
inline void store(double* to, Lanes<double, N> lanes) {
    std::memcpy(to, &lanes, sizeof lanes);
}
template <int N>
inline void store(bfloat16* to, Lanes<float, N> lanes) {
    Lanes<uint32_t, N> bits;
    std::memcpy(&bits, &lanes, sizeof bits);
    // Rounds to nearest, ties to even. A NaN must not be rounded to an infinity.
    const auto rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const auto is_number = (Lanes<uint32_t, N>)(lanes == lanes);
    const auto narrow = __builtin_convertvector((rounded & is_number) | (0x7fc0 & ~is_number), Lanes<uint16_t, N>);
    std::memcpy(to, &narrow, sizeof narrow);
}

template <typename R, int N>
inline R sum_lanes(Lanes<R, N> lanes) {
    R sum = 0;
    for (int i = 0; i < N; ++i) sum += lanes[i];
    return sum;
}

// The number of groups that are located at a time; their positions stay in the first-level cache.
constexpr int64_t BLOCK = 64;

enum Pattern { ROW, COLUMN, CROSS, JOINT };

// The arguments of one call. Strides are those of images, rows and tokens; outputs and their gradients may be slices of
// wider maps.
struct Call {
    int64_t batch, height, width, groups, share, samples, pattern, keep, threads, tile_height, tile_width;
    int64_t x[3], offsets[3], out[3];

    int64_t channels() const { return groups * share; }
    int64_t directions() const { return pattern == CROSS ? 2 : 1; }
    int64_t tiles() const {
        return (height + tile_height - 1) / tile_height * ((width + tile_width - 1) / tile_width);
    }
    int64_t reads() const { return directions() * samples + keep; }
    // Groups of a thread's block in the backward pass: at least one cache line of channels.
    int64_t block() const { return share == 1 ? 32 : 16; }
};

// The reads of `count` groups of one token along one axis: for each group its two neighbours, as distances in elements
// from the axis's first token, with their weights and the derivatives of the weights. A neighbour outside the map has
// weight and derivative 0, and the distance of the nearest token, which is safe to load.
template <typename R>
struct AxisReads {
    int32_t low_at[BLOCK], high_at[BLOCK];
    R low[BLOCK], high[BLOCK], d_low[BLOCK], d_high[BLOCK];

    static Lanes<R, 16> load_padded(const R* from, int64_t count) {
        R padded[16] = {};
        for (int64_t i = 0; i < count; ++i) padded[i] = from[i];
        return load<16>(padded);
    }

    // Locates the reads of the token at position `here` on an axis of `size` tokens that are `stride` elements apart.
    // NAN_IS_OUTSIDE, used in the backward pass, treats a NaN as a position outside: it gives x no gradient.
    template <bool NAN_IS_OUTSIDE>
    void locate(const R* offsets, int64_t count, int64_t here, int64_t size, int64_t stride) {
        constexpr int N = 16;  // explicit vectors, because compilers do not vectorise this many conditions
        using Real = Lanes<R, N>;
        using Whole = Lanes<int32_t, N>;
        const Real zeros = {}, first = zeros - 2, end = zeros + R(size), ones = zeros + 1;
        const Whole none = {}, last = none + int32_t(size - 1), step = none + int32_t(stride);
        for (int64_t g = 0; g < count; g += N) {
            Real position = (count - g < N ? load_padded(offsets + g, count - g) : load<N>(offsets + g)) + R(here);
            // Comparisons with NaN are false. In the forward pass the NaN becomes an arbitrary integer but stays in the
            // fraction, and so in both weights: 0 * NaN is NaN.
            if constexpr (NAN_IS_OUTSIDE) position = position >= first ? position : first;
            else position = position < first ? first : position;
            position = position > end ? end : position;
            const Real truncated = __builtin_convertvector(__builtin_convertvector(position, Whole), Real);
            const Real lower = position < truncated ? truncated - ones : truncated;
            const Real upper = lower + ones, fraction = position - lower;
            const Real low_inside = (lower >= zeros) & (lower < end) ? ones : zeros;
            const Real high_inside = (upper >= zeros) & (upper < end) ? ones : zeros;
            store<N>(low + g, low_inside * (ones - fraction));
            store<N>(high + g, high_inside * fraction);
            store<N>(d_low + g, -low_inside);
            store<N>(d_high + g, high_inside);
            const Whole before = __builtin_convertvector(lower, Whole), after = before + 1;
            const Whole low_token = before < none ? none : before > last ? last : before;
            const Whole high_token = after < none ? none : after > last ? last : after;
            const Whole low_distance = low_token * step, high_distance = high_token * step;
            std::memcpy(low_at + g, &low_distance, sizeof low_distance);
            std::memcpy(high_at + g, &high_distance, sizeof high_distance);
        }
    }
};

// The division of a group into vectors of LANES channels. WHOLE: one vector is the whole group, which saves a loop.
template <int LANES, bool WHOLE>
struct Split {
    static constexpr int N = LANES;
    int64_t variable_share;
    int64_t share() const { return WHOLE ? LANES : variable_share; }
};

// The published sharings have their own kernels. Other sharings use general kernels, because each kernel adds seconds of
// compilation.
template <typename T, typename F>
inline void with_lanes(int64_t share, F call) {
    if constexpr (!std::is_same_v<T, double>) {
        if (share == 1) return call(Split<1, true>{share});
        if (share == 2) return call(Split<2, true>{share});
        if (share == 4) return call(Split<4, true>{share});
        if (share == 8) return call(Split<8, true>{share});
        if (share % 16 == 0) return call(Split<16, false>{share});
    }
    if (share % 4 == 0) return call(Split<4, false>{share});
    call(Split<1, false>{share});
}

template <typename L, typename T, typename R>
inline void read_axis(const T* x, const AxisReads<R>& reads, int64_t count, L lanes, T* __restrict out) {
    constexpr int N = L::N;
    const int64_t share = lanes.share();
    for (int64_t g = 0; g < count; ++g)
        for (int64_t c = g * share; c < (g + 1) * share; c += N)
            store<N>(out + c, reads.low[g] * load<N>(x + reads.low_at[g] + c) +
                                  reads.high[g] * load<N>(x + reads.high_at[g] + c));
}

template <typename L, typename T, typename R>
inline void read_joint(const T* x, const AxisReads<R>& row, const AxisReads<R>& column, int64_t count, L lanes,
                       T* __restrict out) {
    constexpr int N = L::N;
    const int64_t share = lanes.share();
    for (int64_t g = 0; g < count; ++g) {
        const T *low = x + row.low_at[g], *high = x + row.high_at[g];
        const int64_t left = column.low_at[g], right = column.high_at[g];
        const R a = column.low[g], b = column.high[g];
        for (int64_t c = g * share; c < (g + 1) * share; c += N)
            store<N>(out + c, row.low[g] * (a * load<N>(low + left + c) + b * load<N>(low + right + c)) +
                                  row.high[g] * (a * load<N>(high + left + c) + b * load<N>(high + right + c)));
    }
}

// The gradients of one token's reads, from the gradient `grad` of their outputs: added to grad_x, written to grad_offsets.
template <typename L, typename T, typename R>
inline void backward_axis(const T* grad, const R* grad_mean, const T* x, const AxisReads<R>& reads, int64_t count,
                          L lanes, R* grad_x, R* grad_offsets) {
    constexpr int N = L::N;
    const int64_t share = lanes.share();
    for (int64_t g = 0; g < count; ++g) {
        const int64_t low = reads.low_at[g], high = reads.high_at[g];
        Lanes<R, N> slope = {};
        for (int64_t c = g * share; c < (g + 1) * share; c += N) {
            Lanes<R, N> total = load<N>(grad + c);
            if (grad_mean) total += load<N>(grad_mean + c);
            slope += total * (reads.d_low[g] * load<N>(x + low + c) + reads.d_high[g] * load<N>(x + high + c));
            // One after the other, because at the map's edges both neighbours may be the same token.
            store<N>(grad_x + low + c, load<N>(grad_x + low + c) + reads.low[g] * total);
            store<N>(grad_x + high + c, load<N>(grad_x + high + c) + reads.high[g] * total);
        }
        grad_offsets[g] = sum_lanes<R, N>(slope);
    }
}

template <typename L, typename T, typename R>
inline void backward_joint(const T* grad, const R* grad_mean, const T* x, const AxisReads<R>& row,
                           const AxisReads<R>& column, int64_t count, L lanes, R* grad_x, R* grad_dx, R* grad_dy) {
    constexpr int N = L::N;
    const int64_t share = lanes.share();
    for (int64_t g = 0; g < count; ++g) {
        const int64_t corners[2][2] = {{row.low_at[g] + column.low_at[g], row.low_at[g] + column.high_at[g]},
                                       {row.high_at[g] + column.low_at[g], row.high_at[g] + column.high_at[g]}};
        const R down[2] = {row.low[g], row.high[g]}, d_down[2] = {row.d_low[g], row.d_high[g]};
        const R right[2] = {column.low[g], column.high[g]}, d_right[2] = {column.d_low[g], column.d_high[g]};
        Lanes<R, N> slope_x = {}, slope_y = {};
        for (int64_t c = g * share; c < (g + 1) * share; c += N) {
            Lanes<R, N> total = load<N>(grad + c);
            if (grad_mean) total += load<N>(grad_mean + c);
            for (int i = 0; i < 2; ++i)
                for (int j = 0; j < 2; ++j) {
                    const int64_t corner = corners[i][j] + c;
                    const Lanes<R, N> value = total * load<N>(x + corner);
                    slope_x += (down[i] * d_right[j]) * value;
                    slope_y += (d_down[i] * right[j]) * value;
                    store<N>(grad_x + corner, load<N>(grad_x + corner) + (down[i] * right[j]) * total);
                }
        }
        grad_dx[g] = sum_lanes<R, N>(slope_x);
        grad_dy[g] = sum_lanes<R, N>(slope_y);
    }
}

// out: [B, H, W, reads * C]. sums: [B, tiles, reads * C], the sum over the tokens of each tile, or null. A thread reads
// the map tile by tile, so that tokens read by neighbours are still in the first-level cache.
template <typename T>
void forward(const T* x, const Wide<T>* offsets, T* out, Wide<T>* sums, const Call& call) {
    using R = Wide<T>;
    const int64_t tiles = call.tiles();
    const int64_t channels = call.channels(), width = call.reads() * channels, half = call.samples * call.groups;
    with_lanes<T>(call.share, [&](auto lanes) {
        constexpr int N = decltype(lanes)::N;
#pragma omp parallel for num_threads(call.threads) schedule(static)
        for (int64_t tile = 0; tile < call.batch * tiles; ++tile) {
            const int64_t image = tile / tiles, across = (call.width + call.tile_width - 1) / call.tile_width;
            const int64_t top = tile % tiles / across * call.tile_height, left = tile % tiles % across * call.tile_width;
            const int64_t columns = call.width - left < call.tile_width ? call.width - left : call.tile_width;
            const int64_t rows = call.height - top < call.tile_height ? call.height - top : call.tile_height;
            const T* image_x = x + image * call.x[0];
            R* sum = sums ? sums + tile * width : nullptr;
            if (sum) std::memset(sum, 0, width * sizeof(R));
            AxisReads<R> reads, column_reads;
            for (int64_t t = 0; t < rows * columns; ++t) {
                const int64_t h = top + t / columns, w = left + t % columns;
                const T *row_x = image_x + h * call.x[1], *column_x = image_x + w * call.x[2];
                const R* token_offsets = offsets + image * call.offsets[0] + h * call.offsets[1] + w * call.offsets[2];
                T* token = out + image * call.out[0] + h * call.out[1] + w * call.out[2];
                T* to = token;
                for (int64_t k = 0; k < call.directions() * call.samples; ++k, to += channels)
                    for (int64_t g = 0; g < call.groups; g += BLOCK) {
                        const int64_t count = call.groups - g < BLOCK ? call.groups - g : BLOCK, c = g * call.share;
                        const R* group_offsets = token_offsets + k * call.groups + g;
                        if (call.pattern == JOINT) {
                            column_reads.template locate<false>(group_offsets, count, w, call.width, call.x[2]);
                            reads.template locate<false>(group_offsets + half, count, h, call.height, call.x[1]);
                            read_joint(image_x + c, reads, column_reads, count, lanes, to + c);
                        } else if (call.pattern == COLUMN || k >= call.samples) {
                            reads.template locate<false>(group_offsets, count, h, call.height, call.x[1]);
                            read_axis(column_x + c, reads, count, lanes, to + c);
                        } else {
                            reads.template locate<false>(group_offsets, count, w, call.width, call.x[2]);
                            read_axis(row_x + c, reads, count, lanes, to + c);
                        }
                    }
                if (call.keep) std::memcpy(to, row_x + w * call.x[2], channels * sizeof(T));
                if (sum)
                    for (int64_t c = 0; c < width; c += N) store<N>(sum + c, load<N>(sum + c) + load<N>(token + c));
            }
        }
    });
}

// grad: the gradient of out, with its layout; grad_mean: [B, reads * C], added to the gradient of every token, or null.
// Written are grad_x, [B, H, W, C] contiguous, and grad_offsets, contiguous with the size of offsets.
template <typename T>
void backward(const T* grad, const Wide<T>* grad_mean, const T* x, const Wide<T>* offsets, Wide<T>* grad_x,
              Wide<T>* grad_offsets, const Call& call) {
    using R = Wide<T>;
    const int64_t channels = call.channels(), width = call.reads() * channels, half = call.samples * call.groups;
    const int64_t positions = call.directions() * call.samples, tokens = call.height * call.width;
    const int64_t offset_width = (call.pattern == JOINT ? 2 : call.directions()) * half;
    const int64_t block = call.block(), blocks = (call.groups + block - 1) / block;
    with_lanes<T>(call.share, [&](auto lanes) {
        constexpr int N = decltype(lanes)::N;
#pragma omp parallel for num_threads(call.threads) schedule(static) collapse(2)
        for (int64_t image = 0; image < call.batch; ++image)
            for (int64_t b = 0; b < blocks; ++b) {
                const int64_t g = b * block, c = g * call.share;
                const int64_t count = call.groups - g < block ? call.groups - g : block, owned = count * call.share;
                const T* image_x = x + image * call.x[0] + c;
                R* image_grad = grad_x + image * tokens * channels + c;
                const R* mean = grad_mean ? grad_mean + image * width + c : nullptr;
                for (int64_t t = 0; t < tokens; ++t) {
                    R* to = image_grad + t * channels;
                    if (!call.keep) { std::memset(to, 0, owned * sizeof(R)); continue; }
                    const T* token_grad = grad + image * call.out[0] + (t / call.width) * call.out[1] +
                                    (t % call.width) * call.out[2] + positions * channels + c;
                    for (int64_t s = 0; s < owned; s += N) {
                        Lanes<R, N> total = load<N>(token_grad + s);
                        if (mean) total += load<N>(mean + positions * channels + s);
                        store<N>(to + s, total);
                    }
                }
                // One distance serves x and its gradient, because native.py passes a contiguous x.
                AxisReads<R> reads, column_reads;
                for (int64_t h = 0; h < call.height; ++h)
                    for (int64_t w = 0; w < call.width; ++w) {
                        const R* token_offsets =
                            offsets + image * call.offsets[0] + h * call.offsets[1] + w * call.offsets[2] + g;
                        R* token_grad_offsets =
                            grad_offsets + ((image * call.height + h) * call.width + w) * offset_width + g;
                        const T* token_grad = grad + image * call.out[0] + h * call.out[1] + w * call.out[2] + c;
                        for (int64_t k = 0; k < positions; ++k) {
                            const R* group_offsets = token_offsets + k * call.groups;
                            R* group_grads = token_grad_offsets + k * call.groups;
                            const T* read = token_grad + k * channels;
                            const R* read_mean = mean ? mean + k * channels : nullptr;
                            if (call.pattern == JOINT) {
                                column_reads.template locate<true>(group_offsets, count, w, call.width, channels);
                                reads.template locate<true>(group_offsets + half, count, h, call.height,
                                                            call.width * channels);
                                backward_joint(read, read_mean, image_x, reads, column_reads, count, lanes, image_grad,
                                               group_grads, group_grads + half);
                            } else {
                                const bool vertical = call.pattern == COLUMN || k >= call.samples;
                                const int64_t start = (vertical ? w : h * call.width) * channels;
                                reads.template locate<true>(group_offsets, count, vertical ? h : w,
                                                            vertical ? call.height : call.width,
                                                            vertical ? call.width * channels : channels);
                                backward_axis(read, read_mean, image_x + start, reads, count, lanes,
                                              image_grad + start, group_grads);
                            }
                        }
                    }
            }
    });
}

}  // namespace

#define EXPORT(NAME, T)                                                                                               \
    extern "C" void forward_##NAME(const T* x, const Wide<T>* offsets, T* out, Wide<T>* sums, const Call* call) {       \
        forward<T>(x, offsets, out, sums, *call);                                                                       \
    }                                                                                                                   \
    extern "C" void backward_##NAME(const T* grad, const Wide<T>* grad_mean, const T* x, const Wide<T>* offsets,        \
                                    Wide<T>* grad_x, Wide<T>* grad_offsets, const Call* call) {                         \
        backward<T>(grad, grad_mean, x, offsets, grad_x, grad_offsets, *call);                                          \
    }
EXPORT(float32, float)
EXPORT(float64, double)
EXPORT(bfloat16, bfloat16)
