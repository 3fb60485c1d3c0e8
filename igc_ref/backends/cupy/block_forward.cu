// Forward pass of the IGC block, x' = P W_d Pᵀ W_p x, or of a group convolution (block.cuh).
//
// A CUDA block goes through the slabs. For each it convolves (y = W_p z, in registers) and at once
// adds what y contributes to every output, acc += W_d y: y itself is never stored. Permutations are
// indices: y[l][j] of primary partition l is column r*L + l of secondary partition m = j/R, r = j%R,
// and output a of that partition is channel a*M + m of x'. (block.cuh has an example with numbers.)
//
// Names, which are not those of the mathematics everywhere: the argument `y` is the output x'. The
// array `z` is y[l], the thread's outputs of W_p for one slab (a convolution sums straight into acc).
// The z of the mathematics, windows of x, are columns of the tile in shared memory. acc[a][m] is
// channel a*M + m of x' = P W_d Pᵀ y. `at` is the thread's place.
//
// On the way in, a pending batch norm and ReLU are applied (rule); on the way out, each CUDA block
// notes moments of its part of every channel: a pivot (one of its numbers), and the sums of x' - pivot
// and of its square, for the batch norm that follows. blockIdx.x counts groups of NP images, blockIdx.y
// a convolution's groups and shares.

#include "block.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 1)
block_forward(storage* y, float* moments, const storage* x, const float* rule, float floor,
              const float* packed, int N) {
  extern __shared__ __align__(16) unsigned char memory[];
  float* tiles = (float*)memory;  // two, so that one is filled while the other is read
  float* weights = tiles + 2 * TILE;
  float* rules = weights + STAGES * WEIGHTS;
  unsigned char* raw = (unsigned char*)(rules + RULES);

  const int share = blockIdx.y, group = share / IGC_SHARE, first = blockIdx.x * NP;
  const int images = min(NP, N - first);
  const long long channel = (long long)N * (H * W);
  const Place at(images);

  Loader loader;
  loader.x = x + group * SLABS * I * channel + (long long)first * (H * W);
  loader.rules = (float4*)rules, loader.floor = floor;
  loader.packed = packed + share * SLABS * WEIGHTS;
  loader.channel = channel, loader.images = images;
  loader.raw = raw, loader.weights = weights;
#pragma unroll
  for (int l = 0; l < STAGES - 1; ++l) loader.start(l);
  clear(tiles, 2 * TILE);
  bring_rules((float4*)rules, rule + group * RULES);
  __syncthreads();

  float acc[A][MS][PX];
#pragma unroll
  for (int a = 0; a < A; ++a)
#pragma unroll
    for (int m = 0; m < MS; ++m)
#pragma unroll
      for (int px = 0; px < PX; ++px) acc[a][m][px] = 0.f;

#pragma unroll 1
  for (int l = 0; l < SLABS; ++l) {
    const float* tile = tiles + l % 2 * TILE;
    loader.unpack(l, tiles + l % 2 * TILE);
    const float* slot = weights + loader.here * WEIGHTS;
    __syncthreads();  // the tile and the weights of this slab are there; those of the last are read
    loader.start(l + STAGES - 1);

#if IGC_SECONDARY
    float z[OS][PX];
#pragma unroll
    for (int j = 0; j < OS; ++j)
#pragma unroll
      for (int px = 0; px < PX; ++px) z[j][px] = 0.f;
#else
    float(&z)[OS][PX] = acc[0];
#endif
#pragma unroll(I <= 4 ? I : 2)
    for (int i = 0; i < I; ++i)
#pragma unroll
      for (int kx = 0; kx < KW; ++kx) {
        float pixel[(PX - 1) * S + KH];
        read_column(pixel, tile, at, i, kx);
        convolve_column(z, slot + ((at.part * I + i) * KW + kx) * COLUMN, pixel);
      }
#if IGC_SECONDARY
#pragma unroll
    for (int j = 0; j < OS; ++j) {
#pragma unroll
      for (int e = 0; e < A; e += chunk(A)) {
        float mix[chunk(A)];
        read(mix, slot + PRIMARY + (at.part * OS + j) * MIX + e);
#pragma unroll
        for (int a = e; a < e + chunk(A) && a < A; ++a)
#pragma unroll
          for (int px = 0; px < PX; ++px)
            acc[a][j / R][px] = fmaf(mix[a - e], z[j][px], acc[a][j / R][px]);
      }
    }
#endif
  }
  copy_wait<0>();

  const int outputs = gridDim.y * A * M, top = share * A * M + at.part * MS;
  storage* to = y + ((long long)top * N + first + at.image) * (HO * WO) + at.row * WO + at.column;
#pragma unroll
  for (int a = 0; a < A; ++a)
#pragma unroll
    for (int m = 0; m < MS; ++m)
#pragma unroll
      for (int px = 0; px < PX; ++px)
        if (at.active && at.row + px < HO)
          store(to + (long long)(a * M + m) * N * (HO * WO) + px * WO, acc[a][m][px]);

  // The tiles are not needed any more: pivots [A][M], then each warp's sums [A][MS][2].
  __syncthreads();
  float* pivots = tiles;
  float* sums = tiles + round_up(A * M, 4);
  if (threadIdx.x % PADDED_PLACES == 0)
#pragma unroll
    for (int a = 0; a < A; ++a)
#pragma unroll
      for (int m = 0; m < MS; ++m) pivots[a * M + at.part * MS + m] = acc[a][m][0];
  __syncthreads();
  WarpSums warp(sums + threadIdx.x / WARP * (A * MS * 2));
#pragma unroll
  for (int a = 0; a < A; ++a)
#pragma unroll
    for (int m = 0; m < MS; ++m) {
      const float pivot = pivots[a * M + at.part * MS + m];
      float sum = 0.f, squares = 0.f;
#pragma unroll
      for (int px = 0; px < PX; ++px) {
        const float off = at.active && at.row + px < HO ? acc[a][m][px] - pivot : 0.f;
        sum += off, squares = fmaf(off, off, squares);
      }
      warp.add((a * MS + m) * 2, A * MS * 2, sum);
      warp.add((a * MS + m) * 2 + 1, A * MS * 2, squares);
    }
  __syncthreads();
  for (int e = threadIdx.x; e < A * M * 2; e += THREADS) {
    const int c = e / 2, part = c % M / MS, value = (c / M * MS + c % MS) * 2 + e % 2;
    float sum = 0.f;
#pragma unroll
    for (int w = 0; w < WARPS_A_PART; ++w)
      sum += sums[(part * WARPS_A_PART + w) * (A * MS * 2) + value];
    float* moment = moments + ((long long)blockIdx.x * outputs + share * A * M + c) * 3;
    moment[1 + e % 2] = sum;
    if (e % 2 == 0) moment[0] = pivots[c];
  }
}
