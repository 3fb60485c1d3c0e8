// What every kernel relies on: how numbers are stored, asynchronous copies, sums over a warp.
//
// The same text is compiled by NVRTC for the card and, in the tests, by g++ for the CPU; there
// tests/backends/cuda/emulator/emulator.h (IGC_EMULATED) stands in for everything that is PTX here.

#ifndef IGC_HALF
#define IGC_HALF 0  // 1: images are stored in 16 bits; all arithmetic is in 32 either way
#endif

#ifndef IGC_EMULATED

__device__ __forceinline__ float half_to_float(unsigned short h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
  return f;
}

__device__ __forceinline__ unsigned short float_to_half(float f) {
  unsigned short h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
}

// Copy BYTES (4, 8 or 16, both ends aligned) from global to shared memory in the background.
template <int BYTES>
__device__ __forceinline__ void copy_async(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  const unsigned to = (unsigned)__cvta_generic_to_shared(shared);
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(BYTES)
               : "memory");
#else  // a card without cp.async waits here
  if constexpr (BYTES == 16) *(uint4*)shared = *(const uint4*)global;
  if constexpr (BYTES == 8) *(uint2*)shared = *(const uint2*)global;
  if constexpr (BYTES == 4) *(unsigned*)shared = *(const unsigned*)global;
#endif
}

// Close the group of copies that this thread has started since the last call.
__device__ __forceinline__ void copy_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Wait until at most GROUPS of this thread's groups are under way.
template <int GROUPS>
__device__ __forceinline__ void copy_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
#endif
}

#endif  // IGC_EMULATED

// The number of the thread, in a way that the compiler cannot carry from one turn of a loop to the
// next: indices are worked out again where they are used, instead of taking registers all the time.
__device__ __forceinline__ int fresh_thread(int threads = 1024) {
  int t = threadIdx.x;
#ifndef IGC_EMULATED
  asm volatile("" : "+r"(t));
  __builtin_assume(t >= 0 && t < threads);  // then t / 8 is a shift
#endif
  return t;
}

#if IGC_HALF
typedef unsigned short storage;
__device__ __forceinline__ float load(const storage* p) { return half_to_float(*p); }
__device__ __forceinline__ void store(storage* p, float v) { *p = float_to_half(v); }
#else
typedef float storage;
__device__ __forceinline__ float load(const storage* p) { return *p; }
__device__ __forceinline__ void store(storage* p, float v) { *p = v; }
#endif

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

__host__ __device__ constexpr int divide_up(int a, int b) { return (a + b - 1) / b; }
__host__ __device__ constexpr int round_up(int a, int b) { return divide_up(a, b) * b; }
__host__ __device__ constexpr int larger(int a, int b) { return a > b ? a : b; }

// max(v, floor), but a NaN stays one (fmaxf would hide it), so that the loss shows it.
__device__ __forceinline__ float at_least(float v, float floor) {
#if !defined(IGC_EMULATED) && __CUDA_ARCH__ >= 800
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(v), "f"(floor));
  return larger;
#else
  return v < floor ? floor : v;
#endif
}

// Numbers that lie side by side in shared memory come in chunks of CHUNK, in one wide load each.
__host__ __device__ constexpr int chunk(int count) { return count < 3 ? count : 4; }
__host__ __device__ constexpr int chunked(int count) { return round_up(count, chunk(count)); }

template <int CHUNK>
__device__ __forceinline__ void read(float (&v)[CHUNK], const float* from) {
  if constexpr (CHUNK == 4) {
    const float4 four = *(const float4*)from;
    v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
  } else if constexpr (CHUNK == 2) {
    const float2 two = *(const float2*)from;
    v[0] = two.x, v[1] = two.y;
  } else {
    v[0] = *from;
  }
}

// The lanes halve the list between them until each has one number of it, added over V lanes.
template <int V>
__device__ __forceinline__ float fold(const float (&v)[V]) {
  if constexpr (V == 1) {
    return v[0];
  } else {
    constexpr int HALF = V / 2;
    const bool upper = threadIdx.x & HALF;
    float folded[HALF];
#pragma unroll
    for (int i = 0; i < HALF; ++i) {
      const float keep = upper ? v[i + HALF] : v[i], give = upper ? v[i] : v[i + HALF];
      folded[i] = keep + __shfl_xor_sync(ALL_LANES, give, HALF);
    }
    return fold(folded);
  }
}

// Add up V numbers (V a power of two, at most 32) over the 32 lanes of a warp, all V at once: the
// lanes halve the list between them at every step, V + log(32/V) shuffles instead of 5 V.
// Lane i returns the sum of number i % V. The order of the additions is fixed.
template <int V>
__device__ __forceinline__ float warp_sums(const float (&v)[V]) {
  float sum = fold(v);
#pragma unroll
  for (int distance = V; distance < WARP; distance *= 2)
    sum += __shfl_xor_sync(ALL_LANES, sum, distance);
  return sum;
}

// Collects numbers 0, 1, 2, ... of a list and writes their sums over the warp to `to`. Every number
// says its index, and all of it stands in unrolled loops: then `v` stays in registers.
struct WarpSums {
  static constexpr int V = 16;
  float* to;
  float v[V];

  __device__ __forceinline__ explicit WarpSums(float* to) : to(to) {}

  __device__ __forceinline__ void add(int index, int length, float value) {
    v[index % V] = value;
    if (index % V == V - 1) write(index - (V - 1), V);
    if (index == length - 1 && length % V) {
#pragma unroll
      for (int i = length % V; i < V; ++i) v[i] = 0.f;
      write(length - length % V, length % V);
    }
  }

 private:
  __device__ __forceinline__ void write(int start, int count) {
    const float sum = warp_sums(v);
    const int lane = threadIdx.x % WARP;
    if (lane < count) to[start + lane] = sum;
  }
};
