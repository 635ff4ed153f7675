// The sampler's CPU kernels. Compiled on first use and called through ctypes (native.py), so this file needs neither
// PyTorch's headers nor its ABI: plain pointers and strides in elements.
//
// Maps are [B, H, W, C] with adjacent channels. A token's C channels are `groups` runs of `share` neighbours, and every
// run is read at one position. Positions are found again in the backward pass rather than kept.
//
// Backward, one thread owns a block of channels of an image and adds to the gradient of x token after token: no atomics,
// and an order of summation that does not depend on the number of threads.

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace {

struct bfloat16 {
    uint16_t bits;
};

// What positions and sums are computed in: anything narrower would lose fractions and tokens.
template <typename T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

// N neighbouring channels, the unit in which maps are read and written.
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
    // To nearest, ties to even; a NaN must not be rounded into an infinity.
    const auto rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const auto is_number = (Lanes<uint32_t, N>)(lanes == lanes);
    const auto narrow = __builtin_convertvector((rounded & is_number) | (0x7fc0 & ~is_number), Lanes<uint16_t, N>);
    std::memcpy(to, &narrow, sizeof narrow);
}

template <typename R, int N>
inline R total(Lanes<R, N> lanes) {
    R sum = 0;
    for (int i = 0; i < N; ++i) sum += lanes[i];
    return sum;
}

// As many runs as are located at a time; their places stay in the first-level cache.
constexpr int64_t BLOCK = 64;

enum Pattern { ROW, COLUMN, CROSS, JOINT };

// One call. Strides of images, rows and tokens; outputs and gradients of outputs may be slices of wider tokens.
struct Call {
    int64_t batch, height, width, groups, share, samples, pattern, keep, threads, tile_height, tile_width;
    int64_t x[3], offsets[3], out[3];

    int64_t channels() const { return groups * share; }
    int64_t directions() const { return pattern == CROSS ? 2 : 1; }
    int64_t tiles() const {
        return (height + tile_height - 1) / tile_height * ((width + tile_width - 1) / tile_width);
    }
    int64_t reads() const { return directions() * samples + keep; }
    // Runs that a thread takes at a time, backward: at least a cache line of channels.
    int64_t block() const {
        return share == 1 ? 32 : 16;
    }
};

// Where `count` runs point on an axis of `size` tokens, `stride` elements apart, seen from token `here`: two neighbours
// each, as distances from the axis's first token, with their weights and the weights' derivatives. A neighbour outside
// the map has weight and derivative 0, and the distance of the nearest token, which may be read.
template <typename R>
struct Places {
    int32_t at_low[BLOCK], at_high[BLOCK];
    R low[BLOCK], high[BLOCK], d_low[BLOCK], d_high[BLOCK];

    static Lanes<R, 16> load_some(const R* from, int64_t count) {
        R padded[16] = {};
        for (int64_t i = 0; i < count; ++i) padded[i] = from[i];
        return load<16>(padded);
    }

    // Where NAN_IS_FAR, as backward, a NaN is taken for a position outside: it owes nothing to x.
    template <bool NAN_IS_FAR>
    void find(const R* offsets, int64_t count, int64_t here, int64_t size, int64_t stride) {
        constexpr int N = 16;  // by hand: compilers see too many branches here to make vectors of
        using Real = Lanes<R, N>;
        using Whole = Lanes<int32_t, N>;
        const Real zeros = {}, first = zeros - 2, end = zeros + R(size), ones = zeros + 1;
        const Whole none = {}, last = none + int32_t(size - 1), step = none + int32_t(stride);
        for (int64_t g = 0; g < count; g += N) {
            Real position = (count - g < N ? load_some(offsets + g, count - g) : load<N>(offsets + g)) + R(here);
            // Comparisons are false for NaN. Forward it becomes some integer but stays in the fraction, and from there
            // in both weights: 0 * NaN is NaN.
            if constexpr (NAN_IS_FAR) position = position >= first ? position : first;
            else position = position < first ? first : position;
            position = position > end ? end : position;
            const Real cut = __builtin_convertvector(__builtin_convertvector(position, Whole), Real);
            const Real lower = position < cut ? cut - ones : cut, upper = lower + ones, fraction = position - lower;
            const Real low_inside = (lower >= zeros) & (lower < end) ? ones : zeros;
            const Real high_inside = (upper >= zeros) & (upper < end) ? ones : zeros;
            store<N>(low + g, low_inside * (ones - fraction));
            store<N>(high + g, high_inside * fraction);
            store<N>(d_low + g, -low_inside);
            store<N>(d_high + g, high_inside);
            const Whole before = __builtin_convertvector(lower, Whole), after = before + 1;
            const Whole near = before < none ? none : before > last ? last : before;
            const Whole far = after < none ? none : after > last ? last : after;
            const Whole low_at = near * step, high_at = far * step;
            std::memcpy(at_low + g, &low_at, sizeof low_at);
            std::memcpy(at_high + g, &high_at, sizeof high_at);
        }
    }
};

// How a run is made up of lanes. WHOLE: one of them is the whole run, and a loop less.
template <int LANES, bool WHOLE>
struct Split {
    static constexpr int N = LANES;
    int64_t any_share;
    int64_t share() const { return WHOLE ? LANES : any_share; }
};

// The published sharings have kernels of their own; of others there are few, as each takes the compiler seconds.
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
inline void read_axis(const T* x, const Places<R>& at, int64_t count, L lanes, T* __restrict out) {
    constexpr int N = L::N;
    const int64_t share = lanes.share();
    for (int64_t g = 0; g < count; ++g)
        for (int64_t c = g * share; c < (g + 1) * share; c += N)
            store<N>(out + c, at.low[g] * load<N>(x + at.at_low[g] + c) + at.high[g] * load<N>(x + at.at_high[g] + c));
}

template <typename L, typename T, typename R>
inline void read_joint(const T* x, const Places<R>& row, const Places<R>& column, int64_t count, L lanes,
                       T* __restrict out) {
    constexpr int N = L::N;
    const int64_t share = lanes.share();
    for (int64_t g = 0; g < count; ++g) {
        const T *low = x + row.at_low[g], *high = x + row.at_high[g];
        const int64_t left = column.at_low[g], right = column.at_high[g];
        const R a = column.low[g], b = column.high[g];
        for (int64_t c = g * share; c < (g + 1) * share; c += N)
            store<N>(out + c, row.low[g] * (a * load<N>(low + left + c) + b * load<N>(low + right + c)) +
                                  row.high[g] * (a * load<N>(high + left + c) + b * load<N>(high + right + c)));
    }
}

// What a read with the gradient `grad` owes to x (added) and to its offsets (written).
template <typename L, typename T, typename R>
inline void owe_axis(const T* grad, const R* grad_mean, const T* x, const Places<R>& at, int64_t count, L lanes,
                     R* grad_x, R* grad_offsets) {
    constexpr int N = L::N;
    const int64_t share = lanes.share();
    for (int64_t g = 0; g < count; ++g) {
        const int64_t low = at.at_low[g], high = at.at_high[g];
        Lanes<R, N> slope = {};
        for (int64_t c = g * share; c < (g + 1) * share; c += N) {
            Lanes<R, N> owed = load<N>(grad + c);
            if (grad_mean) owed += load<N>(grad_mean + c);
            slope += owed * (at.d_low[g] * load<N>(x + low + c) + at.d_high[g] * load<N>(x + high + c));
            // One after the other: both are the same token at the map's edges.
            store<N>(grad_x + low + c, load<N>(grad_x + low + c) + at.low[g] * owed);
            store<N>(grad_x + high + c, load<N>(grad_x + high + c) + at.high[g] * owed);
        }
        grad_offsets[g] = total<R, N>(slope);
    }
}

template <typename L, typename T, typename R>
inline void owe_joint(const T* grad, const R* grad_mean, const T* x, const Places<R>& row, const Places<R>& column,
                      int64_t count, L lanes, R* grad_x, R* grad_dx, R* grad_dy) {
    constexpr int N = L::N;
    const int64_t share = lanes.share();
    for (int64_t g = 0; g < count; ++g) {
        const int64_t corners[2][2] = {{row.at_low[g] + column.at_low[g], row.at_low[g] + column.at_high[g]},
                                       {row.at_high[g] + column.at_low[g], row.at_high[g] + column.at_high[g]}};
        const R down[2] = {row.low[g], row.high[g]}, d_down[2] = {row.d_low[g], row.d_high[g]};
        const R right[2] = {column.low[g], column.high[g]}, d_right[2] = {column.d_low[g], column.d_high[g]};
        Lanes<R, N> slope_x = {}, slope_y = {};
        for (int64_t c = g * share; c < (g + 1) * share; c += N) {
            Lanes<R, N> owed = load<N>(grad + c);
            if (grad_mean) owed += load<N>(grad_mean + c);
            for (int i = 0; i < 2; ++i)
                for (int j = 0; j < 2; ++j) {
                    const int64_t corner = corners[i][j] + c;
                    const Lanes<R, N> value = owed * load<N>(x + corner);
                    slope_x += (down[i] * d_right[j]) * value;
                    slope_y += (d_down[i] * right[j]) * value;
                    store<N>(grad_x + corner, load<N>(grad_x + corner) + (down[i] * right[j]) * owed);
                }
        }
        grad_dx[g] = total<R, N>(slope_x);
        grad_dy[g] = total<R, N>(slope_y);
    }
}

// out: [B, H, W, reads * C]. sums: [B, tiles, reads * C], each tile's sum over its tokens, or null. A thread takes the map
// tile by tile, so that what neighbours read is still in the first-level cache.
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
            Places<R> places, others;
            for (int64_t t = 0; t < rows * columns; ++t) {
                const int64_t h = top + t / columns, w = left + t % columns;
                const T *row_x = image_x + h * call.x[1], *column_x = image_x + w * call.x[2];
                const R* token_offsets = offsets + image * call.offsets[0] + h * call.offsets[1] + w * call.offsets[2];
                T* token = out + image * call.out[0] + h * call.out[1] + w * call.out[2];
                T* to = token;
                for (int64_t k = 0; k < call.directions() * call.samples; ++k, to += channels)
                    for (int64_t g = 0; g < call.groups; g += BLOCK) {
                        const int64_t count = call.groups - g < BLOCK ? call.groups - g : BLOCK, c = g * call.share;
                        const R* moved = token_offsets + k * call.groups + g;
                        if (call.pattern == JOINT) {
                            others.template find<false>(moved, count, w, call.width, call.x[2]);
                            places.template find<false>(moved + half, count, h, call.height, call.x[1]);
                            read_joint(image_x + c, places, others, count, lanes, to + c);
                        } else if (call.pattern == COLUMN || k >= call.samples) {
                            places.template find<false>(moved, count, h, call.height, call.x[1]);
                            read_axis(column_x + c, places, count, lanes, to + c);
                        } else {
                            places.template find<false>(moved, count, w, call.width, call.x[2]);
                            read_axis(row_x + c, places, count, lanes, to + c);
                        }
                    }
                if (call.keep) std::memcpy(to, row_x + w * call.x[2], channels * sizeof(T));
                if (sum)
                    for (int64_t c = 0; c < width; c += N) store<N>(sum + c, load<N>(sum + c) + load<N>(token + c));
            }
        }
    });
}

// grad: of out, as laid out there; grad_mean: [B, reads * C], added to the gradient of every token, or null.
// grad_x: [B, H, W, C] contiguous, written. grad_offsets: contiguous, as many as offsets, written.
template <typename T>
void backward(const T* grad, const Wide<T>* grad_mean, const T* x, const Wide<T>* offsets, Wide<T>* grad_x,
              Wide<T>* grad_offsets, const Call& call) {
    using R = Wide<T>;
    const int64_t channels = call.channels(), width = call.reads() * channels, half = call.samples * call.groups;
    const int64_t moves = call.directions() * call.samples, tokens = call.height * call.width;
    const int64_t offset_width = (call.pattern == JOINT ? 2 : call.directions()) * half;
    const int64_t block = call.block(), blocks = (call.groups + block - 1) / block;
    with_lanes<T>(call.share, [&](auto lanes) {
        constexpr int N = decltype(lanes)::N;
#pragma omp parallel for num_threads(call.threads) schedule(static) collapse(2)
        for (int64_t image = 0; image < call.batch; ++image)
            for (int64_t piece = 0; piece < blocks; ++piece) {
                const int64_t g = piece * block, c = g * call.share;
                const int64_t count = call.groups - g < block ? call.groups - g : block, owned = count * call.share;
                const T* image_x = x + image * call.x[0] + c;
                R* image_grad = grad_x + image * tokens * channels + c;
                const R* mean = grad_mean ? grad_mean + image * width + c : nullptr;
                for (int64_t t = 0; t < tokens; ++t) {
                    R* to = image_grad + t * channels;
                    if (!call.keep) { std::memset(to, 0, owned * sizeof(R)); continue; }
                    const T* kept = grad + image * call.out[0] + (t / call.width) * call.out[1] +
                                    (t % call.width) * call.out[2] + moves * channels + c;
                    for (int64_t s = 0; s < owned; s += N) {
                        Lanes<R, N> owed = load<N>(kept + s);
                        if (mean) owed += load<N>(mean + moves * channels + s);
                        store<N>(to + s, owed);
                    }
                }
                // The distances found are those within x; the gradient's are the same where x is contiguous (native.py).
                Places<R> places, others;
                for (int64_t h = 0; h < call.height; ++h)
                    for (int64_t w = 0; w < call.width; ++w) {
                        const R* token_offsets =
                            offsets + image * call.offsets[0] + h * call.offsets[1] + w * call.offsets[2] + g;
                        R* token_grad_offsets = grad_offsets + ((image * call.height + h) * call.width + w) * offset_width + g;
                        const T* token_grad = grad + image * call.out[0] + h * call.out[1] + w * call.out[2] + c;
                        for (int64_t k = 0; k < moves; ++k) {
                            const R* moved = token_offsets + k * call.groups;
                            R* owed = token_grad_offsets + k * call.groups;
                            const T* read = token_grad + k * channels;
                            const R* read_mean = mean ? mean + k * channels : nullptr;
                            if (call.pattern == JOINT) {
                                others.template find<true>(moved, count, w, call.width, channels);
                                places.template find<true>(moved + half, count, h, call.height, call.width * channels);
                                owe_joint(read, read_mean, image_x, places, others, count, lanes, image_grad,
                                          owed, owed + half);
                            } else {
                                const bool vertical = call.pattern == COLUMN || k >= call.samples;
                                const int64_t start = (vertical ? w : h * call.width) * channels;
                                places.template find<true>(moved, count, vertical ? h : w,
                                                           vertical ? call.height : call.width,
                                                           vertical ? call.width * channels : channels);
                                owe_axis(read, read_mean, image_x + start, places, count, lanes,
                                         image_grad + start, owed);
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
