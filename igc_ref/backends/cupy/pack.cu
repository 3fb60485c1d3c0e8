// Lays weights out as the block kernels read them (block.cuh), so that these copy 16 bytes at a time.
//
// W_p is stored as (L, O, I, ky, kx), a convolution's weight as (shares, O, slabs * I, ky, kx), where
// `shares` counts those of all groups, and W_d as (M, A, A): row a, and column r*L + l for output (m, r)
// of slab l. The result is (shares, slabs, WEIGHTS). How the WEIGHTS numbers of a slab are ordered depends
// on the tile, so the forward and the backward pass have their own.

#include "common.cuh"

constexpr int THREADS = 256;

// Row blockIdx.y of `table` is one layer and tile: the addresses of the result, of W_p and of W_d (0
// for a convolution), then the shares and SLABS, I, O, M, A, KH, KW, MS and WEIGHTS of block.cuh.
extern "C" __global__ void __launch_bounds__(THREADS)
pack(const long long* table) {
  const long long* row = table + blockIdx.y * 13;
  float* packed = (float*)row[0];
  const float *primary = (const float*)row[1], *secondary = (const float*)row[2];
  const int shares = (int)row[3], slabs = (int)row[4], I = (int)row[5], O = (int)row[6];
  const int M = (int)row[7], A = (int)row[8], KH = (int)row[9], KW = (int)row[10];
  const int MS = (int)row[11], weights = (int)row[12];
  const int e = blockIdx.x * THREADS + threadIdx.x, v = e % weights, l = e / weights % slabs;
  const int share = e / weights / slabs;
  if (share >= shares) return;
  const int R = O / M, OS = MS * R, column = chunked(KH * OS), mix = chunked(A);
  const int start = round_up(O / OS * I * KW * column, 4);  // of the weights of W_d
  float value = 0.f;  // of the padding
  if (v < start) {
    const int kx = v / column % KW, i = v / (column * KW) % I, part = v / (column * KW * I);
    const int ky = v % column / OS, o = part * OS + v % column % OS;
    const int input = secondary ? (l * O + o) * I + i : ((share * O + o) * slabs + l) * I + i;
    if (ky < KH && o < O) value = primary[(input * KH + ky) * KW + kx];
  } else {
    const int a = (v - start) % mix, o = (v - start) / mix, m = o / R, r = o % R;
    if (a < A && o < O) value = secondary[(m * A + a) * A + r * slabs + l];
  }
  packed[e] = value;
}
