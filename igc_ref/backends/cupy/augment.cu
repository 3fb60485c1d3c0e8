// From the data set in device memory to a batch: pick, normalise, pad, crop, mirror, in one pass.
//
// images (count, C, H, W) are bytes; x is (C, N, H, W). Image n of step s is number
// order[s*step + first + n]: ranks that share a batch of `whole` images begin at different ones. Its
// window starts at (top, left) of the image padded with zeros, and may be mirrored. The labels are
// those of the whole batch. Compiled without fused multiply-adds, so that the numbers are those of
// the operators one after another.

#include "common.cuh"

constexpr int THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS)
take_batch(storage* x, long long* labels, const unsigned char* images, const long long* all_labels,
           const int* order, const signed char* top, const signed char* left,
           const unsigned char* mirror, const int* counter, int step, const float* scale,
           const float* shift, int whole, int first, int N, int C, int H, int W, int padding) {
  const int e = blockIdx.x * THREADS + threadIdx.x;
  if (e < whole) labels[e] = all_labels[order[*counter * step + e]];
  if (e >= N * C * H * W) return;
  const int column = e % W, row = e / W % H, n = e / (W * H) % N, c = e / (W * H * N);
  const int place = *counter * step + first + n;
  const long long image = order[place];
  const int i = row + top[place] - padding;
  const int j = (mirror[place] ? W - 1 - column : column) + left[place] - padding;
  float value = 0.f;
  if (0 <= i && i < H && 0 <= j && j < W)
    value = images[((image * C + c) * H + i) * W + j] * scale[c] - shift[c];
  store(x + e, value);
}
