// Batch normalisation (arXiv:1502.03167) with the ReLU that may follow it, and its derivative.
//
// If it can be helped, no number of a batch is computed here: a rule (C, 4) and a derivative (C, 8) say
// how the next kernel is to read. igc_ref/backends/operators/lazy.py explains both tables.
// Batches are (C, N, H, W): `length` = N*H*W numbers of a channel side by side. Sums are taken in
// parts, each by one CUDA block, and parts are added in a fixed order, in double precision.

#include "common.cuh"

constexpr int THREADS = 256;

// Add up two numbers over the block; all threads get both.
template <typename T>
__device__ __forceinline__ void block_sums(T& first, T& second) {
  __shared__ T parts[2][THREADS / WARP];
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2) {
    first += __shfl_xor_sync(ALL_LANES, first, distance);
    second += __shfl_xor_sync(ALL_LANES, second, distance);
  }
  if (threadIdx.x % WARP == 0) {
    parts[0][threadIdx.x / WARP] = first;
    parts[1][threadIdx.x / WARP] = second;
  }
  __syncthreads();
  first = second = 0;
#pragma unroll
  for (int w = 0; w < THREADS / WARP; ++w) first += parts[0][w], second += parts[1][w];
}

// Note the moments of a part of a channel: a pivot, the sums of x - pivot and of its square.
extern "C" __global__ void __launch_bounds__(THREADS)
find_moments(float* moments, const storage* x, long long length, int part) {
  const storage* from = x + blockIdx.y * length + (long long)blockIdx.x * part;
  const long long left = length - (long long)blockIdx.x * part;
  const int count = left < part ? (int)left : part;
  const float pivot = load(from);
  float sum = 0.f, squares = 0.f;
  for (int i = threadIdx.x; i < count; i += THREADS) {
    const float off = load(from + i) - pivot;
    sum += off, squares = fmaf(off, off, squares);
  }
  block_sums(sum, squares);
  float* moment = moments + ((long long)blockIdx.x * gridDim.y + blockIdx.y) * 3;
  if (threadIdx.x == 0) moment[0] = pivot, moment[1] = sum, moment[2] = squares;
}

// Make the rule of a batch norm from the moments of its parts (train) or the running statistics.
extern "C" __global__ void __launch_bounds__(THREADS)
make_rule(float* rule, const float* moments, int parts, long long length, int part,
          const float* gamma, const float* beta, float* running_mean, float* running_var,
          float momentum, float eps, int train) {
  const int c = blockIdx.x, C = gridDim.x;
  const float gain = gamma[c], bias = beta[c];  // read early: nothing waits for them later
  const float old_mean = running_mean[c], old_var = running_var[c];
  double mean = old_mean;
  float var = old_var;
  if (train) {
    const double origin = moments[c * 3];
    double sum = 0, squares = 0;
    for (int b = threadIdx.x; b < parts; b += THREADS) {
      const float* moment = moments + ((long long)b * C + c) * 3;
      const long long left = length - (long long)b * part;
      const double count = (double)(left < part ? left : part), shift = moment[0] - origin;
      sum += moment[1] + count * shift;
      squares += moment[2] + 2 * shift * moment[1] + count * shift * shift;
    }
    block_sums(sum, squares);
    const double off = sum / (double)length, spread = squares / (double)length - off * off;
    mean = origin + off, var = (float)(spread > 0 ? spread : 0 * spread);  // NaN stays
  }
  if (threadIdx.x > 0) return;
  if (train) {
    running_mean[c] = old_mean + (1.f - momentum) * ((float)mean - old_mean);
    running_var[c] = old_var + (1.f - momentum) * (var - old_var);
  }
  var += 0.f * var;  // an overflow is no number, so that the loss shows it
  const float inv_std = 1.f / sqrtf(var + eps), scale = gain * inv_std;
  rule[c * 4] = scale, rule[c * 4 + 1] = (float)(bias - mean * scale);
  rule[c * 4 + 2] = (float)mean, rule[c * 4 + 3] = inv_std;
}

// Note the sums of a part of a channel: of g and of g*(x - mean), g = dy where the ReLU passed.
extern "C" __global__ void __launch_bounds__(THREADS)
find_sums(float* sums, const storage* dy, const storage* x, const float* rule, float floor,
          long long length, int part) {
  const long long start = blockIdx.y * length + (long long)blockIdx.x * part;
  const long long left = length - (long long)blockIdx.x * part;
  const int count = left < part ? (int)left : part;
  const float4 line = __ldg((const float4*)rule + blockIdx.y);
  float sum = 0.f, product = 0.f;
  for (int i = threadIdx.x; i < count; i += THREADS) {
    const float v = load(x + start + i);
    const float passed = fmaf(line.x, v, line.y) > floor ? load(dy + start + i) : 0.f;
    sum += passed, product = fmaf(passed, v - line.z, product);
  }
  block_sums(sum, product);
  float* out = sums + ((long long)blockIdx.x * gridDim.y + blockIdx.y) * 2;
  if (threadIdx.x == 0) out[0] = sum, out[1] = product;
}

// Make the derivative of a batch norm from the sums of its parts; `unscale` undoes a loss scale.
extern "C" __global__ void __launch_bounds__(THREADS)
make_derivative(float* derivative, float* dgamma, float* dbeta, const float* sums, int parts,
                long long length, const float* rule, const float* gamma, float unscale, int train) {
  const int c = blockIdx.x, C = gridDim.x;
  const float4 line = __ldg((const float4*)rule + c);  // read early: nothing waits for it later
  const double inv_std = line.w, a = gamma[c] * inv_std;
  double sum = 0, product = 0;
  for (int b = threadIdx.x; b < parts; b += THREADS) {
    sum += sums[((long long)b * C + c) * 2];
    product += sums[((long long)b * C + c) * 2 + 1];
  }
  block_sums(sum, product);
  if (threadIdx.x > 0) return;
  dbeta[c] = (float)(sum * unscale);
  dgamma[c] = (float)(product * inv_std * unscale);
  float* row = derivative + c * 8;
  row[0] = line.x, row[1] = line.y, row[2] = line.z, row[3] = (float)a;
  row[4] = train ? (float)(-a * inv_std * inv_std * product / (double)length) : 0.f;
  row[5] = train ? (float)(-a * sum / (double)length) : 0.f;
  row[6] = row[7] = 0.f;
}

// Write out what a rule reads: for an operator that has no rule of its own.
extern "C" __global__ void __launch_bounds__(THREADS)
apply_rule(storage* y, const storage* x, const float* rule, float floor, long long length) {
  const long long start = blockIdx.y * length;
  const float4 line = __ldg((const float4*)rule + blockIdx.y);
  for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < length;
       i += (long long)gridDim.x * THREADS)
    store(y + start + i, at_least(fmaf(line.x, load(x + start + i), line.y), floor));
}

// Write out what a derivative reads.
extern "C" __global__ void __launch_bounds__(THREADS)
apply_derivative(storage* dx, const storage* dy, const storage* x, const float* derivative,
                 float floor, long long length) {
  const long long start = blockIdx.y * length;
  const float4 line = __ldg((const float4*)derivative + blockIdx.y * 2);
  const float4 slope = __ldg((const float4*)derivative + blockIdx.y * 2 + 1);
  for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < length;
       i += (long long)gridDim.x * THREADS) {
    const float v = load(x + start + i);
    const float passed = fmaf(line.x, v, line.y) > floor ? load(dy + start + i) : 0.f;
    store(dx + start + i, fmaf(line.w, passed, fmaf(slope.x, v - line.z, slope.y)));
  }
}
