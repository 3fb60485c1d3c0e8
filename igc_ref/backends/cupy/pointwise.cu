// What stands between blocks and after the last: residual sums, ReLU's derivative, channel shuffles,
// concatenation, average pooling.
//
// Batches are (C, N, H, W): `length` = N*H*W numbers of a channel side by side; blockIdx.y is the
// channel. An operand is read by its rule (normalise.cu): (scale, shift, mean, 1/std) and a floor.

#include "common.cuh"

constexpr int THREADS = 256;

__device__ __forceinline__ float read_by(const float4& line, float floor, const storage* x) {
  return at_least(fmaf(line.x, load(x), line.y), floor);
}

// y = max(a + b, lowest), both operands read by their rules.
extern "C" __global__ void __launch_bounds__(THREADS)
add(storage* y, const storage* a, const float* a_rule, float a_floor, const storage* b,
    const float* b_rule, float b_floor, float lowest, long long length) {
  const long long start = blockIdx.y * length;
  const float4 a_line = __ldg((const float4*)a_rule + blockIdx.y);
  const float4 b_line = __ldg((const float4*)b_rule + blockIdx.y);
  for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < length;
       i += (long long)gridDim.x * THREADS) {
    const float sum =
        read_by(a_line, a_floor, a + start + i) + read_by(b_line, b_floor, b + start + i);
    store(y + start + i, at_least(sum, lowest));
  }
}

// dx = dy where y > 0, else 0.
extern "C" __global__ void __launch_bounds__(THREADS)
gate(storage* dx, const storage* dy, const storage* y, long long length) {
  const long long start = blockIdx.y * length;
  for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < length;
       i += (long long)gridDim.x * THREADS)
    store(dx + start + i, load(y + start + i) > 0.f ? load(dy + start + i) : 0.f);
}

// Channel l*(C/groups) + j of x, read by its rule, is channel j*groups + l of y.
extern "C" __global__ void __launch_bounds__(THREADS)
shuffle(storage* y, const storage* x, const float* rule, float floor, int groups,
        long long length) {
  const int c = blockIdx.y, size = gridDim.y / groups, place = c % size * groups + c / size;
  const long long from = c * length, to = place * length;
  const float4 line = __ldg((const float4*)rule + c);
  for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < length;
       i += (long long)gridDim.x * THREADS)
    store(y + to + i, read_by(line, floor, x + from + i));
}

// Channel `from` + c of x, read by its rule, is channel `to` + c of y.
extern "C" __global__ void __launch_bounds__(THREADS)
move(storage* y, const storage* x, const float* rule, float floor, int from, int to,
     long long length) {
  const long long source = (from + blockIdx.y) * length, target = (to + blockIdx.y) * length;
  const float4 line = __ldg((const float4*)rule + from + blockIdx.y);
  for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < length;
       i += (long long)gridDim.x * THREADS)
    store(y + target + i, read_by(line, floor, x + source + i));
}

// y[n, c] = the mean over the positions of x[c, n], read by its rule; a warp a plane.
extern "C" __global__ void __launch_bounds__(THREADS)
average(float* y, const storage* x, const float* rule, float floor, int N, int positions) {
  const int n = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP, c = blockIdx.y;
  if (n >= N) return;
  const storage* from = x + ((long long)c * N + n) * positions;
  const float4 line = __ldg((const float4*)rule + c);
  float sum[1] = {0.f};
  for (int i = threadIdx.x % WARP; i < positions; i += WARP) sum[0] += read_by(line, floor, from + i);
  const float total = warp_sums(sum);
  if (threadIdx.x % WARP == 0) y[(long long)n * gridDim.y + c] = total / positions;
}

// y = the mean over every window of kh x kw pixels of x, read by its rule; `length` is y's.
extern "C" __global__ void __launch_bounds__(THREADS)
average_windows(storage* y, const storage* x, const float* rule, float floor, int kh, int kw, int H,
                int W, long long length) {
  const int columns = W / kw, positions = H / kh * columns;
  const float4 line = __ldg((const float4*)rule + blockIdx.y);
  const long long images = blockIdx.y * (length / positions);
  for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < length;
       i += (long long)gridDim.x * THREADS) {
    const int at = i % positions, row = at / columns * kh, column = at % columns * kw;
    const storage* from = x + (images + i / positions) * H * W + row * W + column;
    float sum = 0.f;
    for (int q = 0; q < kh * kw; ++q) sum += read_by(line, floor, from + q / kw * W + q % kw);
    store(y + blockIdx.y * length + i, sum / (kh * kw));
  }
}

// dx = dy / (kh * kw) all over its window, and 0 beyond the last one; `length` is dx's.
extern "C" __global__ void __launch_bounds__(THREADS)
spread_windows(storage* dx, const storage* dy, int kh, int kw, int H, int W, long long length) {
  const int rows = H / kh, columns = W / kw;
  const long long images = blockIdx.y * (length / (H * W));
  for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < length;
       i += (long long)gridDim.x * THREADS) {
    const int at = i % (H * W), row = at / W / kh, column = at % W / kw;
    const bool inside = row < rows && column < columns;
    const storage* from = dy + ((images + i / (H * W)) * rows + row) * columns + column;
    store(dx + blockIdx.y * length + i, inside ? load(from) / (kh * kw) : 0.f);
  }
}

// dx[c, n] = scale * dy[n, c] / positions everywhere.
extern "C" __global__ void __launch_bounds__(THREADS)
spread(storage* dx, const float* dy, float scale, int N, int positions) {
  const long long start = (long long)blockIdx.y * N * positions;
  for (int i = blockIdx.x * THREADS + threadIdx.x; i < N * positions; i += gridDim.x * THREADS)
    store(dx + start + i, scale * dy[(long long)(i / positions) * gridDim.y + blockIdx.y] / positions);
}
