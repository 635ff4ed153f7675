"""The Triton kernels of ``triton_backend``, which launches them and describes their results."""

import triton
import triton.language as tl

# A map is a pointer and its strides (_b, _h, _w, _c: image, row, column, channel; along an axis _l and
# _t: line, token). Token indices have 32 bits, element indices 64, because a batch may have more than 2^31 elements.
# do_not_specialize hides from Triton that the stride of channels is 1. Otherwise it would give each thread 8 adjacent
# channels, for the few reads that are contiguous, and a warp's many other reads would access 8 times as many addresses.
# The same applies to the stride of tokens with a single offset.


@triton.jit
def _locate(here, offset, size, COMPUTE: tl.constexpr):
    """Lower neighbour, fraction of the way to the next one, and whether the offset has a gradient there."""
    position = offset.to(COMPUTE) + here
    # Both neighbours are zeros at -2, so every position out of reach is replaced by -2, and integers never overflow.
    reachable = (position >= -2) & (position <= size)
    bounded = tl.where(reachable, position, -2.0)
    low = tl.floor(bounded)
    fraction = tl.where(position == position, bounded - low, position)  # a NaN is out of reach and stays NaN
    return low.to(tl.int32), fraction, reachable


@triton.jit
def _lerp(low, high, fraction):
    """The same as torch.lerp, which is exact at both ends."""
    step = high - low
    return tl.where(fraction < 0.5, low + fraction * step, high - (1.0 - fraction) * step)


@triton.jit
def _read_pair(line, low, size, stride, mask, COMPUTE: tl.constexpr):
    """The tokens ``low`` and ``low + 1`` of lines of ``size`` tokens, zero outside. line: pointers to their token 0."""
    pointers = line + low.to(tl.int64) * stride
    first = tl.load(pointers, mask & (low >= 0) & (low < size), other=0.0)
    second = tl.load(pointers + stride, mask & (low >= -1) & (low < size - 1), other=0.0)
    return first.to(COMPUTE), second.to(COMPUTE)


@triton.jit
def _at(image, row, column, stride_b, stride_h, stride_w):
    """The distance of a token from the first one, in elements."""
    return image.to(tl.int64) * stride_b + row.to(tl.int64) * stride_h + column.to(tl.int64) * stride_w


@triton.jit
def _padded_channels(SHARING: tl.constexpr, GROUPS: tl.constexpr, PADDED: tl.constexpr):
    """The channels of the program's groups, which are padded to a power of two, and a mask. [1, channels] each."""
    lane = (tl.program_id(2) * (GROUPS * PADDED) + tl.arange(0, GROUPS * PADDED))[None, :]
    return lane // PADDED * SHARING + lane % PADDED, lane % PADDED < SHARING


@triton.jit
def _store_group_sums(
    pointers, stride, values, mask, groups,
    TOKENS: tl.constexpr, GROUPS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Sums the values, [tokens, channels], over the channels of each group. pointers, mask: [tokens, 1]."""
    group = (tl.program_id(2) * GROUPS + tl.arange(0, GROUPS))[None, :]
    sums = tl.sum(tl.reshape(values, [TOKENS, GROUPS, PADDED]), axis=2).to(pointers.dtype.element_ty)
    tl.store(pointers + group * stride, sums, mask & (group < groups))


@triton.jit(do_not_specialize=["x_c", "o_t", "o_c", "out_c"])
def axis_forward_kernel(
    x, x_b, x_l, x_t, x_c,
    offsets, o_b, o_l, o_t, o_c,
    out, out_b, out_l, out_t, out_c,
    lines, size, channels,
    COMPUTE: tl.constexpr, SHARING: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0) // lines
    line = tl.program_id(0) % lines
    here = (tl.program_id(1) * TOKENS + tl.arange(0, TOKENS))[:, None]
    channel = (tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    mask = (here < size) & (channel < channels)

    offset = tl.load(offsets + _at(image, line, here, o_b, o_l, o_t) + channel // SHARING * o_c, mask, other=0.0)
    low, fraction, _ = _locate(here, offset, size, COMPUTE)
    first, second = _read_pair(
        x + (image.to(tl.int64) * x_b + line.to(tl.int64) * x_l) + channel * x_c, low, size, x_t, mask, COMPUTE
    )
    read = _lerp(first, second, fraction).to(out.dtype.element_ty)
    tl.store(out + _at(image, line, here, out_b, out_l, out_t) + channel * out_c, read, mask)


@triton.jit(do_not_specialize=["x_c", "dy_w", "dy_c", "dx_w", "dx_c", "out_c"])
def joint_forward_kernel(
    x, x_b, x_h, x_w, x_c,
    dy, dy_b, dy_h, dy_w, dy_c,
    dx, dx_b, dx_h, dx_w, dx_c,
    out, out_b, out_h, out_w, out_c,
    height, width, channels,
    COMPUTE: tl.constexpr, SHARING: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0) // height
    row = tl.program_id(0) % height
    column = (tl.program_id(1) * TOKENS + tl.arange(0, TOKENS))[:, None]
    channel = (tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    mask = (column < width) & (channel < channels)

    group = channel // SHARING
    offset_y = tl.load(dy + _at(image, row, column, dy_b, dy_h, dy_w) + group * dy_c, mask, other=0.0)
    offset_x = tl.load(dx + _at(image, row, column, dx_b, dx_h, dx_w) + group * dx_c, mask, other=0.0)
    low_y, fraction_y, _ = _locate(row, offset_y, height, COMPUTE)
    low_x, fraction_x, _ = _locate(column, offset_x, width, COMPUTE)

    line = x + image.to(tl.int64) * x_b + low_y.to(tl.int64) * x_h + channel * x_c
    above = mask & (low_y >= 0) & (low_y < height)
    below = mask & (low_y >= -1) & (low_y < height - 1)
    top_left, top_right = _read_pair(line, low_x, width, x_w, above, COMPUTE)
    bottom_left, bottom_right = _read_pair(line + x_h, low_x, width, x_w, below, COMPUTE)
    top = _lerp(top_left, top_right, fraction_x)
    bottom = _lerp(bottom_left, bottom_right, fraction_x)
    read = _lerp(top, bottom, fraction_y).to(out.dtype.element_ty)
    tl.store(out + _at(image, row, column, out_b, out_h, out_w) + channel * out_c, read, mask)


@triton.jit(do_not_specialize=["x_c", "o_t", "o_c", "g_c", "mean_c", "go_t", "go_c"])
def axis_offset_gradient_kernel(
    x, x_b, x_l, x_t, x_c,
    offsets, o_b, o_l, o_t, o_c,
    grad, g_b, g_l, g_t, g_c,
    mean, mean_b, mean_c, has_mean: tl.constexpr,
    grad_offsets, go_b, go_l, go_t, go_c,
    lines, size, channels,
    COMPUTE: tl.constexpr, SHARING: tl.constexpr,
    TOKENS: tl.constexpr, GROUPS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0) // lines
    line = tl.program_id(0) % lines
    here = (tl.program_id(1) * TOKENS + tl.arange(0, TOKENS))[:, None]
    channel, valid = _padded_channels(SHARING, GROUPS, PADDED)
    mask = (here < size) & valid & (channel < channels)

    offset = tl.load(offsets + _at(image, line, here, o_b, o_l, o_t) + channel // SHARING * o_c, mask, other=0.0)
    low, _, reachable = _locate(here, offset, size, COMPUTE)
    first, second = _read_pair(
        x + (image.to(tl.int64) * x_b + line.to(tl.int64) * x_l) + channel * x_c, low, size, x_t, mask, COMPUTE
    )
    cotangent = tl.load(grad + _at(image, line, here, g_b, g_l, g_t) + channel * g_c, mask, other=0.0).to(COMPUTE)
    if has_mean:
        cotangent += tl.load(mean + image.to(tl.int64) * mean_b + channel * mean_c, mask, other=0.0).to(COMPUTE)
    slope = tl.where(reachable & mask, cotangent * (second - first), 0.0)
    grad_offsets += _at(image, line, here, go_b, go_l, go_t)
    _store_group_sums(grad_offsets, go_c, slope, here < size, channels // SHARING, TOKENS, GROUPS, PADDED)


@triton.jit(do_not_specialize=["x_c", "dy_w", "dy_c", "dx_w", "dx_c", "g_c", "mean_c", "gy_w", "gy_c", "gx_w", "gx_c"])
def joint_offset_gradient_kernel(
    x, x_b, x_h, x_w, x_c,
    dy, dy_b, dy_h, dy_w, dy_c,
    dx, dx_b, dx_h, dx_w, dx_c,
    grad, g_b, g_h, g_w, g_c,
    mean, mean_b, mean_c, has_mean: tl.constexpr,
    grad_dy, gy_b, gy_h, gy_w, gy_c,
    grad_dx, gx_b, gx_h, gx_w, gx_c,
    height, width, channels,
    COMPUTE: tl.constexpr, SHARING: tl.constexpr,
    TOKENS: tl.constexpr, GROUPS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0) // height
    row = tl.program_id(0) % height
    column = (tl.program_id(1) * TOKENS + tl.arange(0, TOKENS))[:, None]
    channel, valid = _padded_channels(SHARING, GROUPS, PADDED)
    mask = (column < width) & valid & (channel < channels)

    group = channel // SHARING
    offset_y = tl.load(dy + _at(image, row, column, dy_b, dy_h, dy_w) + group * dy_c, mask, other=0.0)
    offset_x = tl.load(dx + _at(image, row, column, dx_b, dx_h, dx_w) + group * dx_c, mask, other=0.0)
    low_y, fraction_y, reachable_y = _locate(row, offset_y, height, COMPUTE)
    low_x, fraction_x, reachable_x = _locate(column, offset_x, width, COMPUTE)

    line = x + image.to(tl.int64) * x_b + low_y.to(tl.int64) * x_h + channel * x_c
    above = mask & (low_y >= 0) & (low_y < height)
    below = mask & (low_y >= -1) & (low_y < height - 1)
    top_left, top_right = _read_pair(line, low_x, width, x_w, above, COMPUTE)
    bottom_left, bottom_right = _read_pair(line + x_h, low_x, width, x_w, below, COMPUTE)
    cotangent = tl.load(grad + _at(image, row, column, g_b, g_h, g_w) + channel * g_c, mask, other=0.0).to(COMPUTE)
    if has_mean:
        cotangent += tl.load(mean + image.to(tl.int64) * mean_b + channel * mean_c, mask, other=0.0).to(COMPUTE)

    down = _lerp(bottom_left, bottom_right, fraction_x) - _lerp(top_left, top_right, fraction_x)
    right = _lerp(top_right - top_left, bottom_right - bottom_left, fraction_y)
    down = tl.where(reachable_y & mask, cotangent * down, 0.0)
    right = tl.where(reachable_x & mask, cotangent * right, 0.0)
    grad_dy += _at(image, row, column, gy_b, gy_h, gy_w)
    grad_dx += _at(image, row, column, gx_b, gx_h, gx_w)
    _store_group_sums(grad_dy, gy_c, down, column < width, channels // SHARING, TOKENS, GROUPS, PADDED)
    _store_group_sums(grad_dx, gx_c, right, column < width, channels // SHARING, TOKENS, GROUPS, PADDED)


@triton.jit(do_not_specialize=["o_c", "g_c", "mean_c"])
def axis_input_gradient_kernel(
    offsets, o_b, o_l, o_t, o_c,
    grad, g_b, g_l, g_t, g_c,
    mean, mean_b, mean_c, has_mean: tl.constexpr,
    grad_x, gx_b, gx_l, gx_t, gx_c,
    lines, size, channels,
    COMPUTE: tl.constexpr, SHARING: tl.constexpr, TARGETS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Every program owns some tokens of a line, for some channels, and finds the tokens of the line that read them.

    A line is short, so comparing all pairs costs less than writing to scattered addresses. The sum stays in registers:
    no store is loaded again, so neither compiler nor memory can change the order of the additions.
    """
    image = tl.program_id(0) // lines
    line = tl.program_id(0) % lines
    start = tl.program_id(1) * TARGETS
    target = tl.arange(0, TARGETS)[:, None]
    channel = (tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    mask = channel < channels

    offsets += image.to(tl.int64) * o_b + line.to(tl.int64) * o_l + channel // SHARING * o_c
    grad += image.to(tl.int64) * g_b + line.to(tl.int64) * g_l + channel * g_c
    if has_mean:
        added = tl.load(mean + image.to(tl.int64) * mean_b + channel * mean_c, mask, other=0.0).to(COMPUTE)
    total = tl.zeros([TARGETS, CHANNELS], COMPUTE)
    for here in range(size):
        low, fraction, _ = _locate(here, tl.load(offsets, mask, other=0.0), size, COMPUTE)
        cotangent = tl.load(grad, mask, other=0.0).to(COMPUTE)
        if has_mean:
            cotangent += added
        # With `start` on the left-hand side, the right-hand side is constant, and the compiler finds that every
        # comparison occurs twice.
        second = tl.where(low - start == target - 1, fraction * cotangent, 0.0)
        total += tl.where(low - start == target, (1.0 - fraction) * cotangent, second)
        offsets += o_t
        grad += g_t

    grad_x += _at(image, line, start + target, gx_b, gx_l, gx_t) + channel * gx_c
    mask = mask & (start + target < size)
    tl.store(grad_x, tl.load(grad_x, mask, other=0.0) + total.to(grad_x.dtype.element_ty), mask)


@triton.jit(do_not_specialize=["dy_c", "dx_c", "g_c", "mean_c", "gx_c"])
def joint_input_gradient_kernel(
    dy, dy_b, dy_h, dy_w, dy_c,
    dx, dx_b, dx_h, dx_w, dx_c,
    grad, g_b, g_h, g_w, g_c,
    mean, mean_b, mean_c, has_mean: tl.constexpr,
    grad_x, gx_b, gx_h, gx_w, gx_c,
    height, width, channels,
    COMPUTE: tl.constexpr, SHARING: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Every program owns some channels of an image and loops over its tokens, with one lane per channel.

    Two tokens may read the same neighbour, so the loads for one token must see the stores of the token before it. They
    do, because
    - every element of these vectors has its own lane (CHANNELS = 32 = one warp), so there is only one layout, and the
      same lane loads and stores an address, for which memory keeps the order of the program;
    - no other lane or program has that channel of that image;
    - the four neighbours of one token differ, so all four may be loaded before the first is stored;
    - the barrier prevents the compiler from moving a load of the next token before the stores of this one. Triton would
      do that only in a pipelined loop, and it pipelines loops over matrix products or on request.
    """
    image = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    mask = channel < channels
    group = channel // SHARING
    dy += image * dy_b + group * dy_c
    dx += image * dx_b + group * dx_c
    grad += image * g_b + channel * g_c
    grad_x += image * gx_b + channel * gx_c
    if has_mean:
        added = tl.load(mean + image * mean_b + channel * mean_c, mask, other=0.0).to(COMPUTE)

    for row in range(height):
        dy_here, dx_here, grad_here = dy, dx, grad
        next_dy = tl.load(dy_here, mask, other=0.0)
        next_dx = tl.load(dx_here, mask, other=0.0)
        next_grad = tl.load(grad_here, mask, other=0.0)
        for column in range(width):
            low_y, fraction_y, _ = _locate(row, next_dy, height, COMPUTE)
            low_x, fraction_x, _ = _locate(column, next_dx, width, COMPUTE)
            cotangent = next_grad.to(COMPUTE)
            if has_mean:
                cotangent += added
            # The next token is loaded while this one is added: with few programs, latency determines the time.
            dy_here += dy_w
            dx_here += dx_w
            grad_here += g_w
            more = channel < tl.where(column + 1 < width, channels, 0)
            next_dy = tl.load(dy_here, more, other=0.0)
            next_dx = tl.load(dx_here, more, other=0.0)
            next_grad = tl.load(grad_here, more, other=0.0)

            above = mask & (low_y >= 0) & (low_y < height)
            below = mask & (low_y >= -1) & (low_y < height - 1)
            left = (low_x >= 0) & (low_x < width)
            right = (low_x >= -1) & (low_x < width - 1)
            top = grad_x + low_y.to(tl.int64) * gx_h + low_x.to(tl.int64) * gx_w
            bottom = top + gx_h
            top_left = tl.load(top, above & left, other=0.0)
            top_right = tl.load(top + gx_w, above & right, other=0.0)
            bottom_left = tl.load(bottom, below & left, other=0.0)
            bottom_right = tl.load(bottom + gx_w, below & right, other=0.0)
            upper = (1.0 - fraction_y) * cotangent
            lower = fraction_y * cotangent
            tl.store(top, top_left + (1.0 - fraction_x) * upper, above & left)
            tl.store(top + gx_w, top_right + fraction_x * upper, above & right)
            tl.store(bottom, bottom_left + (1.0 - fraction_x) * lower, below & left)
            tl.store(bottom + gx_w, bottom_right + fraction_x * lower, below & right)
            tl.debug_barrier()
        dy += dy_h
        dx += dx_h
        grad += g_h
