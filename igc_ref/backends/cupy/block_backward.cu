// Backward pass of the IGC block or of a group convolution (block.cuh), all gradients at once.
//
//   dz̄ = Pᵀ d, dW_d = blockmask(dz̄ ȳᵀ), dȳ = W_dᵀ dz̄, dy = P dȳ, dW_p = blockmask(dy zᵀ),
//   dz = W_pᵀ dy, folded back into dx.
//
// Names: z are the windows of x, columns of `tile`; ȳ = Pᵀ y, and z̄ = W_d ȳ, so that x' = P z̄. `d` is
// the gradient of x', and `out` is x' itself, for the derivative below. `dzbar` is dz̄; `dy` and `y` are
// those of one slab l; all three at a thread's own positions. `dy_tile` is dy of all threads. `g` is
// dz folded back into pixels, which is dx.
//
// A thread keeps dz̄ for its column of positions and its partitions in registers, and goes through the
// slabs l as the forward pass does: its part of dy[l] goes into a tile in shared memory, for the
// neighbours; y[l] is computed again; what dW_d and dW_p gain is summed over the warp; then the
// threads share out the pixels of dx[l], each reading the outputs that saw it.
//
// On the way in, the derivative of the batch norm and ReLU that followed is applied to d (derivative:
// a*(d where relu passed) + b*(x' - mean) + c). On the way out, CUDA blocks note their sums of dx and
// of dx*(x - mean) over the pixels that relu passed: the derivative of the batch norm before needs them.
// Every CUDA block writes a share of the weight gradients; nothing is added atomically.

#include "block.cuh"

// Which outputs read a pixel, in one direction: output o reads pixel o*S + k - P with tap k of the
// K = KH or KW taps, and P = PH or PW. Write the pixel as p*S + r with 0 <= r < S. Output p + D reads it
// with tap k if and only if (p + D)*S + k - P = p*S + r, that is D*S = r + P - k; if S does not divide
// r + P - k, no output reads it with tap k. With K = 3 and S = 2, pixels with r = 0 are read with tap 1
// by output p alone, those with r = 1 with tap 2 by p and with tap 0 by p + 1. As r + P - k goes from
// P - (K - 1) to S - 1 + P, D goes from -ABOVE to BELOW, and in a row from -BEFORE to AFTER.
constexpr int ABOVE = (KH - 1 - PH) / S, BELOW = (S - 1 + PH) / S;
constexpr int BEFORE = (KW - 1 - PW) / S, AFTER = (S - 1 + PW) / S;
// A task is dx for IS inputs, at the pixels p*S + r of PXD positions p below each other.
constexpr int IS = IGC_IS, PXD = IGC_PXD;
constexpr int D_GROUPS = divide_up(HO, PXD), D_PLACES = D_GROUPS * NP * WO;
constexpr int D_PADDED = round_up(D_PLACES, WARP), D_WARPS = D_PADDED / WARP;
constexpr int TASKS = I / IS * D_PADDED;

// The tile of dy: padded like that of x, with only as much border as dx asks for. A warp that reads it
// for dx spans D_TOGETHER row groups, PXD rows apart, of each of its images. If row groups start an
// odd multiple of WO banks apart and images D_TOGETHER * WO, all 32 lanes read banks of their own.
__host__ __device__ constexpr int without_conflicts(int pitch) {
  while (WARP % WO == 0 && WO % PXD == 0 && PXD * pitch % (2 * WO) != WO) ++pitch;
  return pitch;
}
constexpr int D_TOGETHER = larger(1, WARP / WO / NP);
constexpr int D_LEFT = larger(BEFORE, AFTER);
constexpr int D_PITCH = D_TOGETHER > 1 ? without_conflicts(WO + D_LEFT) : WO + D_LEFT;
constexpr int D_ROWS = ABOVE + larger(D_GROUPS * PXD, HO) + BELOW;
constexpr int D_IMAGE = skewed(D_ROWS * D_PITCH + D_LEFT + AFTER, WO * D_TOGETHER);
constexpr int D_TILE = IGC_DX ? O * NP * D_IMAGE : 0;

// Inputs that one output of W_p has, and weights of W_p in a share.
constexpr int FAN_IN = IGC_SECONDARY ? I : SLABS * I;
constexpr int SHARE_SIZE = O * (IGC_SECONDARY ? SLABS : 1) * FAN_IN * TAPS;

// Sums over warps: for each warp the gains of dW_p (input, kx, ky, output) and of dW_d (output, a).
constexpr int PIXELS = I * TAPS * OS, GAINS = PIXELS + (IGC_SECONDARY ? OS * A : 0);
constexpr int WARP_SUMS = THREADS / WARP * GAINS, DX_SUMS = IGC_SUMS ? I * D_WARPS * 2 : 0;
constexpr int SUMS = round_up(WARP_SUMS + DX_SUMS, 4);
// The loop over the inputs is unrolled, and all gains of a slab are one list to the warp; but where
// that would be more code than the instruction cache holds (72: a guess), each input has its own list.
constexpr bool UNROLL = PIXELS <= 72;
constexpr int INPUTS = UNROLL ? I : 1, PIXEL_LIST = UNROLL ? GAINS : TAPS * OS;
// Slabs whose sums have room: all, and they are added up once at the end, or one.
constexpr int KEPT = IGC_KEPT;

// Add up over the warps what the weights gain in `count` slabs, always in the same order, and write it
// in the order of the weights. Gain v of a part is, as `add` lists them in the kernel,
//   W_p: v = ((i*KW + kx)*KH + ky)*OS + j, which is W_p[l][o][i][ky][kx], o = part*OS + j;
//   W_d: v = PIXELS + j*A + a. Output o belongs to partition m = o / R = part*MS + j / R, where Pᵀ puts
//        it at place (o % R)*L + l of A = R*L. As R divides OS, o % R = j % R: W_d[m][a][(j % R)*L + l].
__device__ __forceinline__ void flush(int first, int count, const float* gains, float* gradients) {
  // This block's part of the gradients: all of W_p, of which each share has a part, then all of W_d.
  gradients += blockIdx.x * ((long long)gridDim.y * SHARE_SIZE + (IGC_SECONDARY ? M * A * A : 0));
  float* primary = gradients + blockIdx.y * SHARE_SIZE;
  float* secondary = gradients + SHARE_SIZE;
  for (int e = fresh_thread(); e < count * PARTS * GAINS; e += THREADS) {
    const int l = first + e / (PARTS * GAINS), part = e / GAINS % PARTS, v = e % GAINS;
    const float* from = gains + l % KEPT * SUMS + part * WARPS_A_PART * GAINS + v;
    float sum = 0.f;
#pragma unroll
    for (int w = 0; w < WARPS_A_PART; ++w) sum += from[w * GAINS];
    if (v < PIXELS) {
      const int o = part * OS + v % OS, ky = v / OS % KH, kx = v / (OS * KH) % KW;
      const int i = v / (OS * TAPS), row = IGC_SECONDARY ? (l * O + o) * I : o * SLABS * I + l * I;
      primary[(row + i) * TAPS + ky * KW + kx] = sum;
    } else {
      const int j = (v - PIXELS) / A, a = (v - PIXELS) % A, m = part * MS + j / R;
      secondary[(m * A + a) * A + j % R * SLABS + l] = sum;
    }
  }
}

// The same for the two sums of dx of each input.
__device__ __forceinline__ void flush_sums(int first, int count, const float* gains, float* sums) {
  const long long block = (long long)blockIdx.x * (gridDim.y / IGC_SHARE) + blockIdx.y / IGC_SHARE;
  sums += block * (SLABS * I * 2);
  for (int e = fresh_thread(); IGC_SUMS && e < count * I * 2; e += THREADS) {
    const int l = first + e / (I * 2), v = e % (I * 2);
    float sum = 0.f;
#pragma unroll
    for (int w = 0; w < D_WARPS; ++w) sum += gains[l % KEPT * SUMS + WARP_SUMS + w * I * 2 + v];
    sums[l * I * 2 + v] = sum;
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
block_backward(storage* dx, float* gradients, float* sums, const storage* d, const storage* out,
               const float* derivative, float d_floor, const storage* x, const float* rule,
               float floor, const float* packed, int N) {
  extern __shared__ __align__(16) unsigned char memory[];
  float* tile = (float*)memory;
  float* dy_tile = tile + TILE;
  float* weights = dy_tile + D_TILE;
  float* gains = weights + STAGES * WEIGHTS;
  float* rules = gains + KEPT * SUMS;
  unsigned char* raw = (unsigned char*)(rules + RULES);

  const int share = blockIdx.y, group = share / IGC_SHARE, first = blockIdx.x * NP;
  const int images = min(NP, N - first);
  const long long channel = (long long)N * (H * W);
  dx += share % IGC_SHARE * (gridDim.y / IGC_SHARE * SLABS * I * channel);  // a share's part of it
  const Place at(images);

  Loader loader;
  loader.x = x + group * SLABS * I * channel + (long long)first * (H * W);
  loader.rules = (float4*)rules, loader.floor = floor;
  loader.packed = packed + share * SLABS * WEIGHTS;
  loader.channel = channel, loader.images = images;
  loader.raw = raw, loader.weights = weights;
#pragma unroll
  for (int l = 0; l < STAGES - 1; ++l) loader.start(l);
  bring_rules((float4*)rules, rule + group * RULES);

  // dz̄ = Pᵀ d: output a of partition m is channel a*M + m. There is one branch around all loads, and
  // where HO % PX == 0 none within, so that they wait for memory together and not one after another.
  float dzbar[A][MS][PX] = {};
  if (at.active) {
    const int c0 = share * A * M + at.part * MS, channel_size = N * (HO * WO);
    const long long corner =
        (c0 * (long long)N + first + at.image) * (HO * WO) + at.row * WO + at.column;
#pragma unroll
    for (int a = 0; a < A; ++a)
#pragma unroll
      for (int m = 0; m < MS; ++m) {
        const int c = c0 + a * M + m;
        const long long place = corner + (long long)(a * M + m) * channel_size;
        float4 line, slope;
        if (IGC_DERIVE) {
          line = __ldg((const float4*)derivative + c * 2);
          slope = __ldg((const float4*)derivative + c * 2 + 1);
        }
#pragma unroll
        for (int px = 0; px < PX; ++px)
          if (HO % PX == 0 || at.row + px < HO) {
            dzbar[a][m][px] = load(d + place + px * WO);
            if (IGC_DERIVE) {
              const float v = load(out + place + px * WO);
              const float passed = fmaf(line.x, v, line.y) > d_floor ? dzbar[a][m][px] : 0.f;
              dzbar[a][m][px] = fmaf(line.w, passed, fmaf(slope.x, v - line.z, slope.y));
            }
          }
      }
  }
  clear(tile, TILE + D_TILE);
  __syncthreads();

#if !IGC_SECONDARY
  const float(&dy)[OS][PX] = dzbar[0];
#endif
#if !IGC_SECONDARY && IGC_DX
#pragma unroll
  for (int j = 0; j < OS; ++j)
#pragma unroll
    for (int px = 0; px < PX; ++px)
      if (at.active && at.row + px < HO)
        dy_tile[((at.part * OS + j) * NP + at.image) * D_IMAGE +
               (at.row + px + ABOVE) * D_PITCH + D_LEFT + at.column] = dy[j][px];
#endif

#pragma unroll 1
  for (int l = 0; l < SLABS; ++l) {
    const float* slot = weights + l % STAGES * WEIGHTS;
    float* gain = gains + l % KEPT * SUMS;
    loader.unpack(l, tile);
    __syncthreads();  // tile and weights of this slab are there; the last slab is done with
    if (KEPT < SLABS && l > 0) flush_sums(l - 1, 1, gains, sums);
    loader.start(l + STAGES - 1);

#if IGC_SECONDARY
    float dy[OS][PX];  // dy = P W_dᵀ Pᵀ d, the thread's outputs of this slab
#pragma unroll
    for (int j = 0; j < OS; ++j) {
#pragma unroll
      for (int px = 0; px < PX; ++px) dy[j][px] = 0.f;
#pragma unroll
      for (int e = 0; e < A; e += chunk(A)) {
        float mix[chunk(A)];
        read(mix, slot + PRIMARY + (at.part * OS + j) * MIX + e);
#pragma unroll
        for (int a = e; a < e + chunk(A) && a < A; ++a)
#pragma unroll
          for (int px = 0; px < PX; ++px) dy[j][px] = fmaf(mix[a - e], dzbar[a][j / R][px], dy[j][px]);
      }
#pragma unroll
      for (int px = 0; px < PX; ++px)
        if (IGC_DX && at.active && at.row + px < HO)
          dy_tile[((at.part * OS + j) * NP + at.image) * D_IMAGE +
                 (at.row + px + ABOVE) * D_PITCH + D_LEFT + at.column] = dy[j][px];
    }
    float y[OS][PX];
#pragma unroll
    for (int j = 0; j < OS; ++j)
#pragma unroll
      for (int px = 0; px < PX; ++px) y[j][px] = 0.f;
#endif
    WarpSums warp(gain + threadIdx.x / WARP * GAINS);
#pragma unroll 1
    for (int i0 = 0; i0 < I; i0 += INPUTS) {
#pragma unroll
      for (int i = 0; i < INPUTS; ++i)
#pragma unroll
        for (int kx = 0; kx < KW; ++kx) {
          float pixel[(PX - 1) * S + KH];
          read_column(pixel, tile, at, i0 + i, kx);
#if IGC_SECONDARY
          convolve_column(y, slot + ((at.part * I + i0 + i) * KW + kx) * COLUMN, pixel);
#endif
#pragma unroll
          for (int ky = 0; ky < KH; ++ky)
#pragma unroll
            for (int j = 0; j < OS; ++j) {  // dW_p = blockmask(dy zᵀ)
              float sum = 0.f;
#pragma unroll
              for (int px = 0; px < PX; ++px) sum = fmaf(dy[j][px], pixel[px * S + ky], sum);
              warp.add(((i * KW + kx) * KH + ky) * OS + j, PIXEL_LIST, sum);
            }
        }
      if (!UNROLL) warp.to += PIXEL_LIST;
    }
#if IGC_SECONDARY
#pragma unroll
    for (int j = 0; j < OS; ++j)
#pragma unroll
      for (int a = 0; a < A; ++a) {  // dW_d = blockmask(dz̄ ȳᵀ)
        float sum = 0.f;
#pragma unroll
        for (int px = 0; px < PX; ++px) sum = fmaf(dzbar[a][j / R][px], y[j][px], sum);
        warp.add((UNROLL ? PIXELS : 0) + j * A + a, UNROLL ? GAINS : OS * A, sum);
      }
#endif
    __syncthreads();  // all of dy and of the warps' gains is there
    if (KEPT < SLABS) flush(l, 1, gains, gradients);

#if IGC_DX
#pragma unroll 1
    for (int task = fresh_thread(); task < TASKS; task += THREADS) {
      const int q = task % D_PADDED, i0 = task / D_PADDED * IS, place = q < D_PLACES ? q : 0;
      const int column = place % WO, n = place / WO % NP, row = place / (WO * NP) * PXD;
      float g[IS][PXD * S][S];
#pragma unroll
      for (int i = 0; i < IS; ++i)
#pragma unroll
        for (int r = 0; r < PXD * S; ++r)
#pragma unroll
          for (int c = 0; c < S; ++c) g[i][r][c] = 0.f;

#pragma unroll(PARTS* KW* COLUMN <= 36 ? PARTS : 1)
      for (int part = 0; part < PARTS; ++part)
#pragma unroll
        for (int kx = 0; kx < KW; ++kx) {
#pragma unroll
          for (int e = 0; e < KH * OS; e += chunk(KH * OS)) {
            float w[IS][chunk(KH * OS)];
#pragma unroll
            for (int i = 0; i < IS; ++i)
              read(w[i], slot + ((part * I + i0 + i) * KW + kx) * COLUMN + e);
#pragma unroll
            for (int rx = 0; rx < S; ++rx) {
              if ((rx + PW - kx) % S != 0) continue;
#pragma unroll
              for (int u = 0; u < chunk(KH * OS); ++u) {
                const int ky = (e + u) / OS, j = (e + u) % OS;
                if (ky >= KH) continue;  // padding
                const float* from = dy_tile + ((part * OS + j) * NP + n) * D_IMAGE +
                                    (row + ABOVE) * D_PITCH + D_LEFT + column + (rx + PW - kx) / S;
#pragma unroll
                for (int ry = 0; ry < S; ++ry) {
                  if ((ry + PH - ky) % S != 0) continue;
#pragma unroll
                  for (int px = 0; px < PXD; ++px) {
                    const float seen = from[(px + (ry + PH - ky) / S) * D_PITCH];
#pragma unroll
                    for (int i = 0; i < IS; ++i)
                      g[i][px * S + ry][rx] = fmaf(w[i][u], seen, g[i][px * S + ry][rx]);
                  }
                }
              }
            }
          }
        }

      const bool active = q < D_PLACES && n < images;
      constexpr int BOTH = IS % 4 == 0 ? 4 : IS % 2 == 0 ? 2 : 1;  // inputs whose sums go together
      float both[BOTH * 2];
#pragma unroll
      for (int i = 0; i < IS; ++i) {
        const int c = (group * SLABS + l) * I + i0 + i, at_pixel = row * S * W + column * S;
        storage* to = dx + ((long long)c * N + first + n) * (H * W) + at_pixel;
        float4 line = make_float4(1.f, 0.f, 0.f, 0.f);
        if (IGC_RULE) line = loader.rules[l * I + i0 + i];
        const storage* value =
            (const storage*)(raw + l % STAGES * RAW_BYTES) + ((i0 + i) * NP + n) * (H * W) + at_pixel;
        float sum = 0.f, product = 0.f;
#pragma unroll
        for (int r = 0; r < PXD * S; ++r)
#pragma unroll
          for (int s = 0; s < S; ++s)
            if (active && row * S + r < H && column * S + s < W) {
              store(to + r * W + s, g[i][r][s]);
              if (IGC_SUMS) {
                const float v = load(value + r * W + s);
                const float passed = fmaf(line.x, v, line.y) > floor ? g[i][r][s] : 0.f;
                sum += passed, product = fmaf(passed, v - line.z, product);
              }
            }
        both[i % BOTH * 2] = sum, both[i % BOTH * 2 + 1] = product;
        if (IGC_SUMS && i % BOTH == BOTH - 1) {
          const float total = warp_sums(both);
          const int lane = threadIdx.x % WARP;
          if (lane < BOTH * 2)
            gain[WARP_SUMS + (q / WARP * I + i0 + i + 1 - BOTH) * 2 + lane] = total;
        }
      }
    }
#endif
  }
  copy_wait<0>();
  __syncthreads();
  if (KEPT == SLABS) flush(0, SLABS, gains, gradients);
  flush_sums(SLABS - KEPT, KEPT, gains, sums);
}
