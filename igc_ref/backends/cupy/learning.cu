// From features to new weights: linear layer, loss, sums of weight gradients, optimiser.
//
// All in 32 bits, all sums in a fixed order. A training step that is replayed as a CUDA graph finds
// what changes from step to step in device memory: `counter` is the number of the step.

#include "common.cuh"

constexpr int THREADS = 256, WARPS = THREADS / WARP;

// y[n, o] = sum_c x[n, c] * weight[o, c] + bias[o]; a warp a number.
extern "C" __global__ void __launch_bounds__(THREADS)
linear(float* y, const float* x, const float* weight, const float* bias, int N, int in, int out) {
  const int e = blockIdx.x * WARPS + threadIdx.x / WARP;
  if (e >= N * out) return;
  const int n = e / out, o = e % out;
  float sum[1] = {0.f};
  for (int c = threadIdx.x % WARP; c < in; c += WARP)
    sum[0] = fmaf(x[(long long)n * in + c], weight[(long long)o * in + c], sum[0]);
  const float total = warp_sums(sum);
  if (threadIdx.x % WARP == 0) y[e] = total + bias[o];
}

// dx[n, c] = sum_o dy[n, o] * weight[o, c].
extern "C" __global__ void __launch_bounds__(THREADS)
linear_dx(float* dx, const float* dy, const float* weight, int N, int in, int out) {
  const int e = blockIdx.x * THREADS + threadIdx.x;
  if (e >= N * in) return;
  const int n = e / in, c = e % in;
  float sum = 0.f;
  for (int o = 0; o < out; ++o) sum = fmaf(dy[n * out + o], weight[(long long)o * in + c], sum);
  dx[e] = sum;
}

// dweight[o, c] = sum_n dy[n, o] * x[n, c]; column `in`, where x is 1, is dbias[o].
// A block has 32 columns of one row; its warps share out the images.
extern "C" __global__ void __launch_bounds__(THREADS)
linear_dweight(float* dweight, float* dbias, const float* dy, const float* x, int N, int in, int out) {
  __shared__ float parts[WARPS][WARP];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int c = blockIdx.x * WARP + lane, o = blockIdx.y;
  float sum = 0.f;
  if (c <= in)
    for (int n = warp; n < N; n += WARPS)
      sum = fmaf(dy[n * out + o], c < in ? x[(long long)n * in + c] : 1.f, sum);
  parts[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || c > in) return;
  sum = 0.f;
#pragma unroll
  for (int w = 0; w < WARPS; ++w) sum += parts[w][lane];
  if (c < in)
    dweight[(long long)o * in + c] = sum;
  else
    dbias[o] = sum;
}

// For each row of logits: its loss -log softmax(logits)[label], or with label smoothing the mean over
// labels in part, whether the greatest logit (the first of equals) is the label's, and the gradient of
// the mean loss. A warp a row.
extern "C" __global__ void __launch_bounds__(THREADS)
softmax_cross_entropy(float* losses, int* correct, float* dlogits, const float* logits,
                      const long long* labels, int N, int classes, float smoothing) {
  const int n = blockIdx.x * WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (n >= N) return;
  const float* row = logits + (long long)n * classes;
  float best = lane < classes ? row[lane] : row[0];
  int first = lane < classes ? lane : 0;
  for (int k = lane + WARP; k < classes; k += WARP)
    if (row[k] > best) best = row[k], first = k;
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(ALL_LANES, best, distance);
    const int index = __shfl_xor_sync(ALL_LANES, first, distance);
    if (other > best || (other == best && index < first)) best = other, first = index;
  }
  float sum[1] = {0.f};
  for (int k = lane; k < classes; k += WARP) sum[0] += expf(row[k] - best);
  const float total = warp_sums(sum);
  const bool known = 0 <= labels[n] && labels[n] < classes;
  const int label = known ? (int)labels[n] : 0;
  const float other = smoothing / classes, right = 1.f - smoothing + other;  // the target
  for (int k = lane; k < classes; k += WARP)
    dlogits[(long long)n * classes + k] = (expf(row[k] - best) / total - (k == label ? right : other)) / N;
  float extra = 0.f;
  if (smoothing > 0.f) {  // 0 times a logit that is far below, at -inf, would be no number
    float below[1] = {0.f};
    for (int k = lane; k < classes; k += WARP) below[0] += row[k] - best;
    extra = smoothing * (row[label] - best - warp_sums(below) / classes);
  }
  if (lane > 0) return;
  losses[n] = known ? logf(total) - (row[label] - best) + extra : __int_as_float(0x7fffffff);  // NaN: stop
  correct[n] = known && first == label;
}

// The mean of the rows' losses, and how many were right. One block.
extern "C" __global__ void __launch_bounds__(THREADS)
mean_loss(float* loss, int* correct, const float* losses, const int* rows_correct, int N) {
  __shared__ float loss_parts[WARPS];
  __shared__ float correct_parts[WARPS];
  float sums[2] = {0.f, 0.f};
  for (int n = threadIdx.x; n < N; n += THREADS) sums[0] += losses[n], sums[1] += rows_correct[n];
  const float total = warp_sums(sums);
  if (threadIdx.x % WARP == 0) loss_parts[threadIdx.x / WARP] = total;
  if (threadIdx.x % WARP == 1) correct_parts[threadIdx.x / WARP] = total;
  __syncthreads();
  if (threadIdx.x > 0) return;
  float sum = 0.f, total_correct = 0.f;
#pragma unroll
  for (int w = 0; w < WARPS; ++w) sum += loss_parts[w], total_correct += correct_parts[w];
  *loss = sum / N, *correct = (int)total_correct;
}

// out[e] = unscale * sum_b shares[b][e]: what the blocks of a backward pass found for a weight. First
// the `each` blocks of a unit of images are added up, then units: the sums of units, found elsewhere,
// give the same bits with each = 1. 32 weights a block, whose warps share out the units. Row
// blockIdx.y of `table` is (out, shares, blocks, size, each, stride): two addresses, how many rows and
// columns the shares have, and numbers from one row to the next.
extern "C" __global__ void __launch_bounds__(THREADS)
add_up(const long long* table, float unscale) {
  __shared__ float parts[WARPS][WARP];
  const long long* row = table + blockIdx.y * 6;
  float* out = (float*)row[0];
  const float* shares = (const float*)row[1];
  const int blocks = (int)row[2], size = (int)row[3], each = (int)row[4];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, e = blockIdx.x * WARP + lane;
  if (blockIdx.x * WARP >= size) return;
  float sum = 0.f;
  if (e < size)
    for (int first = warp * each; first < blocks; first += WARPS * each) {
      float unit = 0.f;
#pragma unroll 8
      for (int b = first; b < first + each && b < blocks; ++b) unit += shares[b * row[5] + e];
      sum += unit;
    }
  parts[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || e >= size) return;
  sum = 0.f;
#pragma unroll
  for (int w = 0; w < WARPS; ++w) sum += parts[w][lane];
  out[e] = unscale * sum;
}

// One step of Nesterov's accelerated gradient for every parameter p = blockIdx.y at once:
// g = gradient + decay*weight; v = momentum*v + g; weight -= lr*(g + momentum*v).
// A row of `table` is (weight, gradient, velocity, count): three addresses and a length.
extern "C" __global__ void __launch_bounds__(THREADS)
sgd(const long long* table, const float* lr, const int* counter, float momentum, float decay) {
  const long long* row = table + blockIdx.y * 4;
  float* weight = (float*)row[0];
  const float* gradient = (const float*)row[1];
  float* velocity = (float*)row[2];
  const float rate = lr[*counter];
  for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < row[3];
       i += (long long)gridDim.x * THREADS) {
    const float g = fmaf(decay, weight[i], gradient[i]);
    const float v = fmaf(momentum, velocity[i], g);
    velocity[i] = v;
    weight[i] -= rate * fmaf(momentum, v, g);
  }
}

// The step is over: note its loss and its correct answers, and count it.
extern "C" __global__ void finish_step(float* losses, int* all_correct, int* counter, const float* loss,
                                       const int* correct) {
  losses[*counter] = *loss, all_correct[*counter] = *correct;
  ++*counter;
}
