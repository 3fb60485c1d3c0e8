// The geometry of a block of images, and how x and the weights come into shared memory.
//
// One source serves the IGC block x' = P W_d Pᵀ W_p x and, with IGC_SECONDARY 0, the group
// convolution y = W x. The channels come in *slabs*:
//
//   IGC:          slab l holds the I = in/L inputs of primary partition l. Its O = out/L outputs go
//                 on into the M secondary partitions, R = O/M to each, which have A = out/M channels.
//   convolution:  a slab holds I of the inputs of one group. Every slab adds to the same O outputs;
//                 written with M = O, R = 1, A = 1. IGC_SHARE CUDA blocks share a group's outputs.
//
// A CUDA block takes IGC_NP whole images. A thread owns a column of IGC_PX output positions below
// each other, and MS of the M partitions. Threads of a warp lie side by side in a row; if a row has
// fewer than 32 positions, the warp goes on in the next image, then in the rows below. All have the
// same partitions, so that one read of a weight serves the warp. Arrays are (C, N, H, W).
//
// These numbers (PX, MS, NP, STAGES, ...) are the *tile* of a kernel, which tiles.py chooses. In the
// kernels, a tile is also an array in shared memory: a slab's images with zeros around them.
//
// An example: the forward pass of the paper's block L = 24, M = 2 on images of 32x32, where
// PX = 4, MS = 2, NP = 1, STAGES = 3.
//
//   code         in the paper, or what it is                              here
//   SLABS, l     L, the primary partitions, and one of them               24
//   M, m         M, the secondary partitions, and one of them             2
//   I, O         channels of a primary partition before and after W_p     2, 2   (in the paper: M)
//   A, a         channels of a secondary partition, and one of them       24     (in the paper: L)
//   R            outputs of a slab in the same secondary partition        1
//   KH, KW, S    W_p is KH x KW at stride S                               3, 3, 1
//   OS           outputs of a slab that a thread computes, MS*R           2
//   PARTS        threads share out the M partitions, M/MS parts           1
//   ROW_GROUPS   threads below each other, HO/PX                          8
//
//   Who has what: there are 256 threads. Thread t has column t % 32 and the rows 4*(t/32) to
//   4*(t/32) + 3: a warp is a band of four rows. A thread keeps acc[24][2][4], all 48 channels of x'
//   at its four positions, in registers.
//   A turn of the loop takes one slab. For each of 2 inputs and 3 columns of the kernel, a thread
//   reads 6 pixels and 6 weights and does 24 multiply-adds: its 2 outputs at 4 positions, 3 rows of
//   the kernel. That gives y[2][4]. W_d then takes y into acc: 24 weights for each of the 2 outputs,
//   192 multiply-adds.
//   When: while slab l is computed, copies of the next two are under way.
//
//     turn      waits for, unpacks     barrier, then starts     computes with
//     (before)                         slabs 0, 1
//     0         slab 0 into tile 0     slab 2 into stage 2      tile 0, stage 0
//     1         slab 1 into tile 1     slab 3 into stage 0      tile 1, stage 1
//     2         slab 2 into tile 0     slab 4 into stage 1      tile 0, stage 2
//
//   One barrier a turn is enough. A thread that has passed the barrier of turn l knows that all threads
//   have computed turn l - 1. So it may refill the stage of turn l - 1, which it does at once, and in
//   turn l + 1 the tile of turn l - 1. The barrier also shows it the weights that others have copied.
//   Where things lie: a thread copies vectors of four numbers, here two of the slab's 512, u = 0 and 1:
//   number v = t + u*256. A channel of an image is PLANE = 256 vectors, so this one is of input
//   i = v/256, and begins at pixel at = 4*(v % 256): row at/32, column at % 32. In x, whose channels have
//   N images each, it is at (l*I + i)*N*H*W + n*H*W + at, n the image; in the tile at
//   i*IMAGE + (at/32 + 1)*36 + 4 + at % 32: a row of zeros above, LEFT = 4 zeros before it, PITCH = 36.

#include "common.cuh"

// Given by the host as macros IGC_...: `block_macros` in kernels.py has all of them.
constexpr int SLABS = IGC_SLABS, I = IGC_I, O = IGC_O, M = IGC_M, A = IGC_A, R = O / M;
constexpr int KH = IGC_KH, KW = IGC_KW, S = IGC_S, TAPS = KH * KW;
constexpr int PH = KH / 2, PW = KW / 2;  // padding above and below, and beside the image
constexpr int H = IGC_H, W = IGC_W, HO = IGC_HO, WO = IGC_WO;
constexpr int NP = IGC_NP, PX = IGC_PX, MS = IGC_MS, OS = MS * R;  // OS: outputs of a thread

// Threads: the part of the partitions (slow), then row group, image, column (fast).
constexpr int ROW_GROUPS = divide_up(HO, PX);
constexpr int PLACES = ROW_GROUPS * NP * WO, PADDED_PLACES = round_up(PLACES, WARP);
constexpr int PARTS = M / MS, THREADS = PARTS * PADDED_PLACES;
constexpr int WARPS_A_PART = PADDED_PLACES / WARP;

// A padded image in shared memory. A window that reaches over the right edge reads the zeros that
// stand before the next row.
constexpr int VECTOR_BYTES = (W * sizeof(storage)) % 16 == 0  ? 16
                             : (W * sizeof(storage)) % 8 == 0 ? 8
                             : (W * sizeof(storage)) % 4 == 0 ? 4
                                                              : 2;
template <int BYTES>
struct Bytes;
template <>
struct Bytes<16> { typedef uint4 type; };
template <>
struct Bytes<8> { typedef uint2 type; };
template <>
struct Bytes<4> { typedef unsigned type; };
template <>
struct Bytes<2> { typedef unsigned short type; };
typedef Bytes<VECTOR_BYTES>::type Vector;
constexpr int VECTOR = VECTOR_BYTES / sizeof(storage);
constexpr int ALIGN = VECTOR < 4 ? VECTOR : 4;
constexpr int LEFT = round_up(PW, ALIGN), OVERHANG = larger(0, (WO - 1) * S + KW - PW - W);
constexpr int PITCH = round_up(W + larger(LEFT, OVERHANG), ALIGN);
constexpr int ROWS = larger((ROW_GROUPS * PX - 1) * S + KH, PH + H);
// Images and row groups that share a warp lie in different banks: a row of threads spans WO*S banks, the
// next image begins that many banks further on, and the next row group after those of all NP images
// (or at an odd multiple of that, where it divides the 32 banks). `skewed` pads `size` numbers for it.
// No two threads of a warp then read from one bank, if S = 1 and WO is 4, 8, 16 or a multiple of 32.
// For other WO from 3 on, and for S = 2, where a row of threads reads every other number, two or three
// threads may; for WO = 2, eight.
__host__ __device__ constexpr int skewed(int size, int step) {
  const int cycle = step % WARP == 0 ? 4 : WARP % step == 0 ? 2 * step : WARP;
  return round_up(size + ((step - size) % cycle + cycle) % cycle, 4);
}
constexpr int STEP = PX * S;  // rows from one row group's first to the next's
constexpr int GROUP = skewed(STEP * PITCH, WO * S * NP);  // and numbers
__host__ __device__ constexpr int row_at(int row) {
  return row * PITCH + row / STEP * (GROUP - STEP * PITCH);
}
constexpr int IMAGE = skewed(row_at(ROWS - 1) + PITCH + OVERHANG + LEFT, WO * S);
constexpr int TILE = I * NP * IMAGE;

// Weights of a slab as threads read them and as pack.cu lays them out: for each part, input and
// column of the kernel, the KH*OS weights (ky, output) of that column; then for each output of the
// slab (partition m, r), the A weights of W_d that mix it. Every run is padded to whole chunks.
constexpr int COLUMN = chunked(KH * OS);
constexpr int PRIMARY = round_up(PARTS * I * KW * COLUMN, 4);
constexpr int MIX = chunked(A);
constexpr int SECONDARY = IGC_SECONDARY ? round_up(M * R * MIX, 4) : 0;
constexpr int WEIGHTS = PRIMARY + SECONDARY, WEIGHTS_A_THREAD = divide_up(WEIGHTS, 4 * THREADS);

// A ring of STAGES slabs, in use or under way: images as they are in x, and weights.
constexpr int STAGES = IGC_STAGES;
constexpr int PLANE = H * W / VECTOR, VECTORS = I * NP * PLANE, VECTORS_A_THREAD = divide_up(VECTORS, THREADS);
constexpr int AT_ONCE = VECTORS_A_THREAD < 4 ? VECTORS_A_THREAD : 4;
constexpr int RAW_BYTES = round_up(I * NP * H * W * (int)sizeof(storage), 16);
constexpr int RULES = SLABS * I * 4;  // numbers: four a channel

// Where a thread works.
struct Place {
  int part, column, row, image;  // its first row; the image within the CUDA block
  bool active;                   // false where there are more threads than places, or no image

  __device__ __forceinline__ Place(int images) {
    const int q = threadIdx.x % PADDED_PLACES;
    part = threadIdx.x / PADDED_PLACES;
    active = q < PLACES;
    const int place = active ? q : 0;
    column = place % WO;
    image = place / WO % NP;
    row = place / (WO * NP) * PX;
    active = active && image < images;
  }
};

// The u-th vector of a thread: which plane of the slab (input i of image n), and where in it.
struct Share {
  int plane, i, n, at;
  bool inside;

  __device__ __forceinline__ Share(int t, int u) {
    if constexpr (THREADS % PLANE == 0) {  // whole planes a turn: the same place in each of them
      plane = t / PLANE + u * (THREADS / PLANE), at = t % PLANE * VECTOR;
    } else {
      plane = (t + u * THREADS) / PLANE, at = (t + u * THREADS) % PLANE * VECTOR;
    }
    i = plane / NP, n = plane % NP;
    inside = VECTORS % (THREADS * AT_ONCE) == 0 || t + u * THREADS < VECTORS;
  }
};

// Brings slabs of x and of the weights from global to shared memory, STAGES - 1 ahead of their use.
struct Loader {
  const storage* x;      // of the block's first image, in the first channel of the next slab
  const float4* rules;   // in shared memory: (scale, shift, mean, -) of each channel of the slabs
  float floor;
  const float* packed;   // weights of the next slab, as pack.cu laid them out
  long long channel;     // numbers from one channel of x to the next
  int images;            // of the block's NP that exist: the last block may have fewer
  unsigned char* raw;    // STAGES times RAW_BYTES
  float* weights;        // STAGES times WEIGHTS
  int next = 0;          // the stage that the next slab goes to
  int here = STAGES - 1; // the stage of the slab in use, once it is unpacked

  // Start the copies of the next slab, l, and close their group; past the last the group is empty.
  __device__ __forceinline__ void start(int l) {
    if (l < SLABS) {
      const int t = fresh_thread(THREADS);
      unsigned char* to = raw + next * RAW_BYTES;
#pragma unroll(AT_ONCE)
      for (int u = 0; u < VECTORS_A_THREAD; ++u) {
        const Share s(t, u);
        if (s.inside && (NP == 1 || s.n < images)) {
          const storage* from = x + s.i * channel + s.n * (H * W) + s.at;
          if constexpr (VECTOR_BYTES >= 4)
            copy_async<VECTOR_BYTES>((Vector*)to + t + u * THREADS, from);
          else
            *((storage*)to + t + u * THREADS) = *from;
        }
      }
      float* slot = weights + next * WEIGHTS;
#pragma unroll(4)
      for (int u = 0; u < WEIGHTS_A_THREAD; ++u) {
        const int e = (t + u * THREADS) * 4;
        if (e < WEIGHTS) copy_async<16>(slot + e, packed + e);
      }
      x += I * channel, packed += WEIGHTS;
      next = next + 1 < STAGES ? next + 1 : 0;
    }
    copy_commit();
  }

  // Wait for slab l and bring this thread's share of it, read by the rule, into the padded tile.
  // A thread reads only what it copied itself, so that no barrier is needed before.
  __device__ __forceinline__ void unpack(int l, float* tile) {
    copy_wait<STAGES - 2>();
    here = here + 1 < STAGES ? here + 1 : 0;
    const int t = fresh_thread(THREADS);
    const unsigned char* from = raw + here * RAW_BYTES;
#pragma unroll 1
    for (int first = 0; first < VECTORS_A_THREAD; first += AT_ONCE) {
      union {
        Vector whole;
        storage each[VECTOR];
      } stored[AT_ONCE];
      float4 line[AT_ONCE];
#pragma unroll
      for (int u = 0; u < AT_ONCE; ++u) {  // all reads come first, and wait together
        const Share s(t, first + u);
        if (s.inside) {
          stored[u].whole = *((const Vector*)from + t + (first + u) * THREADS);
          if (IGC_RULE) line[u] = rules[l * I + s.i];
        }
      }
#pragma unroll
      for (int u = 0; u < AT_ONCE; ++u) {
        const Share s(t, first + u);
        float value[VECTOR];
#pragma unroll
        for (int e = 0; e < VECTOR; ++e) {
          value[e] = load(stored[u].each + e);
          if (IGC_RULE) value[e] = at_least(fmaf(line[u].x, value[e], line[u].y), floor);
          if (NP > 1 && s.n >= images) value[e] = 0.f;  // not an image
        }
        float* to = tile + s.plane * IMAGE + row_at(s.at / W + PH) + LEFT + s.at % W;
        if (!s.inside) continue;
        if constexpr (VECTOR % 4 == 0) {
#pragma unroll
          for (int e = 0; e < VECTOR; e += 4)
            *(float4*)(to + e) = make_float4(value[e], value[e + 1], value[e + 2], value[e + 3]);
        } else {
#pragma unroll
          for (int e = 0; e < VECTOR; ++e) to[e] = value[e];
        }
      }
    }
  }
};

// Fill shared memory with zeros: the borders of the tiles are never written again.
__device__ __forceinline__ void clear(float* from, int count) {
  for (int i = threadIdx.x; i < count; i += THREADS) from[i] = 0.f;
}

// Copy the rules of all slabs to shared memory: read from global memory, they would delay every slab.
__device__ __forceinline__ void bring_rules(float4* to, const float* rule) {
  if (IGC_RULE)
    for (int i = threadIdx.x; i < SLABS * I; i += THREADS) to[i] = __ldg((const float4*)rule + i);
}

// Read the pixels under a thread's column of positions for one input and one column of the kernel.
__device__ __forceinline__ void read_column(float (&pixel)[(PX - 1) * S + KH], const float* tile,
                                            const Place& at, int i, int kx) {
  const float* from =
      tile + (i * NP + at.image) * IMAGE + at.row / PX * GROUP + LEFT - PW + at.column * S + kx;
#pragma unroll
  for (int t = 0; t < (PX - 1) * S + KH; ++t) pixel[t] = from[row_at(t)];
}

// y += W_p z for one column of the kernel: y[j][px] of the thread's OS outputs and PX positions.
__device__ __forceinline__ void convolve_column(float (&y)[OS][PX], const float* weight,
                                                const float (&pixel)[(PX - 1) * S + KH]) {
#pragma unroll
  for (int e = 0; e < KH * OS; e += chunk(KH * OS)) {
    float w[chunk(KH * OS)];
    read(w, weight + e);
#pragma unroll
    for (int u = 0; u < chunk(KH * OS); ++u) {
      const int ky = (e + u) / OS, j = (e + u) % OS;
      if (ky >= KH) continue;  // padding
#pragma unroll
      for (int px = 0; px < PX; ++px) y[j][px] = fmaf(w[u], pixel[px * S + ky], y[j][px]);
    }
  }
}
