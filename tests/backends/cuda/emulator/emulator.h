// CUDA on the CPU, as far as our kernels need it: one CUDA thread is one fiber, blocks take turns.
//
// g++ includes this file before the kernel's source; __init__.py calls igc_launch_NAME.
//  * A thread runs until it must wait at a barrier, at a shuffle or at its end; then the first
//    thread of the chosen order that can run does. Nothing is random: another order, another race.
//  * All of .bss is shared memory, which is 0xFF bytes (NaN) before each block. A `__shared__`
//    array is a plain static, so it lies there; the emulator's own state is kept in .data. (This
//    way round since GCC drops a section attribute inside templates.)
//  * copy_async moves its bytes at the wait which covers its group; until then they are poison.
// A wrong kernel ends its launch with a message that names the block and the thread.
#pragma once
#define IGC_EMULATED 1
#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS  // those of C++ take 0.1 s a build
#include <math.h>
#undef _GLIBCXX_INCLUDE_NEXT_C_HEADERS
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined __x86_64__ && !defined EMU_UCONTEXT
#define EMU_OWN_SWITCH  // 60 times faster than ucontext, whose every switch is a system call
#else
#include <ucontext.h>
#endif

// ----------------------------------------------------------------------- the words of the language
#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static __attribute__((used))  // else g++ knows that nobody wrote it
#define __extern_shared__  // `extern __shared__` arrives as `extern __extern_shared__`
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)  // checked by igc::launch

#define EMU_VECTOR(T, name, w2, w4) \
  struct alignas(w2) name##2 { T x, y; }; \
  struct alignas(w4) name##4 { T x, y, z, w; }; \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTOR(float, float, 8, 16)
EMU_VECTOR(int, int, 8, 16)
EMU_VECTOR(unsigned, uint, 8, 16)
EMU_VECTOR(short, short, 4, 8)
EMU_VECTOR(unsigned short, ushort, 4, 8)
EMU_VECTOR(unsigned char, uchar, 2, 4)
struct uint3 { unsigned x, y, z; };
using dim3 = uint3;

#define EMU_MINMAX(T) \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
EMU_MINMAX(int) EMU_MINMAX(unsigned) EMU_MINMAX(long long) EMU_MINMAX(unsigned long long)
#define EMU_FLOAT(name) inline float name(float x) { return name##f(x); }
EMU_FLOAT(exp) EMU_FLOAT(fabs) EMU_FLOAT(log) EMU_FLOAT(sqrt)  // as in CUDA
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

template <class To, class From> inline To igc_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "a change of type keeps the bits");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
inline int __float_as_int(float x) { return igc_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return igc_bits<unsigned>(x); }
inline float __int_as_float(int x) { return igc_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return igc_bits<float>(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }  // the card's own is off by up to 2 ulp
inline int __popc(unsigned x) { return __builtin_popcount(x); }
template <class T> inline T __ldg(const T* address) { return *address; }

// ------------------------------------------------------------------------------- fibers and blocks
#define EMU_STATE __attribute__((section(".data")))
#define EMU_HIDDEN __attribute__((visibility("hidden")))
extern "C" EMU_HIDDEN char __bss_start[], _end[];  // the linker's: the bounds of shared memory
constexpr unsigned EMU_DYNAMIC_BYTES = 227 * 1024;  // the most a block may ask for on sm_90
// Every `extern __shared__` array is an alias of this one, see __init__.py.
extern "C" EMU_HIDDEN unsigned char igc_dynamic[EMU_DYNAMIC_BYTES];
alignas(128) unsigned char igc_dynamic[EMU_DYNAMIC_BYTES];

namespace igc {
struct Launch {  // mirrored by ctypes in __init__.py
  dim3 grid, block;
  unsigned dynamic;             // bytes of dynamic shared memory
  const int *threads, *blocks;  // the order in which they run: permutations
};
struct Copy { void* to; const void* from; unsigned bytes, group; };
struct Fiber {
  void* stack_pointer;  // while it does not run
  char* stack;          // its lowest address
  size_t stack_bytes;
  uint3 index;          // threadIdx
  int id, position;     // linear thread index, and its place in the order
  const char* at;       // what it waits at, null while it can run
  int line;             // of that call
  unsigned mask;        // of that shuffle
  int source;           // the lane whose `offered` becomes this one's `result`
  uint64_t offered, result;
  unsigned group, pending;  // cp.async groups committed so far, copies not yet done
  Copy copies[512];
#ifndef EMU_OWN_SWITCH
  ucontext_t context;
#endif
};
const char SYNCTHREADS[] = "__syncthreads", SYNCWARP[] = "__syncwarp", SHFL[] = "__shfl_sync",
           SHFL_XOR[] = "__shfl_xor_sync", SHFL_DOWN[] = "__shfl_down_sync",
           BALLOT[] = "__ballot_sync", END[] = "its end";
#ifdef __SANITIZE_ADDRESS__
constexpr size_t STACK = 256 << 10;  // red zones make frames larger
#else
constexpr size_t STACK = 64 << 10;  // __init__.py has g++ refuse a frame of more than 48 KiB
#endif
constexpr size_t STRIDE = STACK + 17 * 64;  // no power of 2: neighbours must not share cache sets

EMU_STATE static Fiber *fibers = nullptr, *now = nullptr;  // by id; the one that runs
EMU_STATE static Fiber host = {};                           // the caller: runs when nobody can
EMU_STATE static uint64_t ready[16] = {}, ready_words = 0;  // positions that can run; words not 0
EMU_STATE static unsigned waiting[32] = {};                 // by warp: the lanes at a shuffle
EMU_STATE static int count = 0, arrived = 0, alive = 0;     // threads: all, at barrier, not ended
EMU_STATE static const Launch* launched = nullptr;
EMU_STATE static uint3 block_index = {};
EMU_STATE static void (*kernel)(void**) = nullptr;
EMU_STATE static void** arguments = nullptr;
EMU_STATE static char error[600] = {};

// igc_switch(&from, to): keep what a callee must keep on the old stack, go on with the new one.
#ifdef EMU_OWN_SWITCH
extern "C" EMU_HIDDEN void igc_switch(void** from, void* to);
asm(R"(
    .pushsection .text
    .p2align 4
igc_switch:
    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
    ret
    .popsection
)");
#endif

inline void set_ready(Fiber& fiber) {
  fiber.at = nullptr;
  ready[fiber.position / 64] |= 1ull << fiber.position % 64;
  ready_words |= 1ull << fiber.position / 64;
}

// Hand over to the first thread in the order that can run; to the host where there is none.
__noinline__ static void next() {
  Fiber &from = *now, *to = &host;
  if (ready_words) {
    const int word = __builtin_ctzll(ready_words), bit = __builtin_ctzll(ready[word]);
    if (!(ready[word] &= ready[word] - 1)) ready_words &= ready_words - 1;
    to = &fibers[launched->threads[64 * word + bit]];
  }
  if (to == &from) return;
  now = to;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(nullptr, to->stack, to->stack_bytes);
#endif
#ifdef EMU_OWN_SWITCH
  igc_switch(&from.stack_pointer, to->stack_pointer);
#else
  swapcontext(&from.context, &to->context);
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

// ------------------------------------------------------------------------------------------ errors
static void report(const Fiber* thread, const char* format, ...) {
  int n = snprintf(error, sizeof error, "block (%u, %u, %u)", block_index.x, block_index.y,
                   block_index.z);
  if (thread)
    n += snprintf(error + n, sizeof error - n, ", thread (%u, %u, %u)", thread->index.x,
                  thread->index.y, thread->index.z);
  n += snprintf(error + n, sizeof error - n, ": ");
  va_list values;
  va_start(values, format);
  vsnprintf(error + n, sizeof error - n, format, values);
  va_end(values);
}

template <class... Values> [[noreturn]] void fail(const char* format, Values... values) {
  report(now, format, values...);
  ready_words = 0;
  next();  // to the host, which never comes back to this fiber
  __builtin_trap();
}

// Nobody can run and not all have ended: name one thread that waits, and one that does not come.
static void report_deadlock() {
  for (const Fiber* f = fibers; f < fibers + count; ++f) {
    if (f->at == END) continue;
    const bool block = f->at == SYNCTHREADS;
    for (const Fiber* g = fibers; g < fibers + count; ++g) {
      const bool awaited = block || (g->id / 32 == f->id / 32 && f->mask >> g->id % 32 & 1);
      if (!awaited || (g->at == f->at && g->mask == f->mask && (block || g->line == f->line)))
        continue;
      return report(f, "divergent %s: waits at %s (line %d, mask 0x%08x), "
                    "while thread (%u, %u, %u) is at %s (line %d, mask 0x%08x)",
                    block ? "barrier" : "warp", f->at, f->line, f->mask, g->index.x, g->index.y,
                    g->index.z, g->at, g->line, g->mask);
    }
  }
}

// --------------------------------------------------------------------------- barriers and shuffles
inline void barrier(int line) {
  now->at = SYNCTHREADS;
  now->mask = ~0u;
  now->line = line;
  if (++arrived == count) {
    for (int id = 0; id < count; ++id)
      if (fibers[id].line != line)
        fail("divergent barrier: waits at line %d, while thread (%u, %u, %u) waits at line %d",
             line, fibers[id].index.x, fibers[id].index.y, fibers[id].index.z, fibers[id].line);
    arrived = 0;
    for (int id = 0; id < count; ++id) set_ready(fibers[id]);
  }
  next();
}

// Wait for all lanes of the mask; the last one serves all, then they go on in their order.
__noinline__ static void meet(const char* at, unsigned mask, int source, int line) {
  Fiber &me = *now, *warp = &fibers[me.id & ~31];
  const int lane = me.id % 32, lanes = min(32, count - (me.id & ~31));
  if (!(mask >> lane & 1))
    fail("%s (line %d): mask 0x%08x lacks the calling lane %d", at, line, mask, lane);
  if (lanes < 32 && mask >> lanes)
    fail("%s (line %d): mask 0x%08x, but this warp has %d lanes", at, line, mask, lanes);
  if (!(mask >> source & 1))
    fail("%s (line %d): reads lane %d, not in mask 0x%08x", at, line, source, mask);
  me.at = at;
  me.mask = mask;
  me.source = source;
  me.line = line;
  unsigned& here = waiting[me.id / 32];
  here |= 1u << lane;
  bool complete = (here & mask) == mask;
  unsigned ballot = 0;
  for (unsigned left = mask; complete && left; left &= left - 1) {
    const Fiber& other = warp[__builtin_ctz(left)];
    complete = other.at == at && other.mask == mask && other.line == line;
    ballot |= unsigned(other.offered != 0) << other.id % 32;
  }
  if (complete) {
    here &= ~mask;
    for (unsigned left = mask; left; left &= left - 1) {
      Fiber& other = warp[__builtin_ctz(left)];
      other.result = at == BALLOT ? ballot : warp[other.source].offered;
      set_ready(other);
    }
  }
  next();
}

template <class T>
inline T exchange(const char* at, unsigned mask, T value, int source, int line) {
  static_assert(sizeof(T) <= 8, "a shuffle moves 4 or 8 bytes");
  now->offered = 0;
  memcpy(&now->offered, &value, sizeof value);
  meet(at, mask, source, line);
  memcpy(&value, &now->result, sizeof value);
  return value;
}
inline int lane() { return now->id % 32; }

// --------------------------------------------------------------------------------- launch one grid
[[noreturn]] static void fiber_main() {
#ifdef __SANITIZE_ADDRESS__
  const void* bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (!host.stack) host.stack = (char*)bottom, host.stack_bytes = size;  // came from the host
#endif
  kernel(arguments);
  if (now->pending)
    fail("cp.async still in flight at the end: %u copies not waited for", now->pending);
  now->at = END;
  now->line = 0;
  now->mask = 0;
  --alive;
  next();
  __builtin_trap();
}

__attribute__((no_sanitize("address"))) static void poison_shared() {
#ifdef __SANITIZE_ADDRESS__  // memset would stop at the red zones between the arrays
  for (volatile char* p = __bss_start; p < _end; ++p) *p = -1;
#else
  memset(__bss_start, 0xFF, _end - __bss_start);
#endif
}

// ASan needs no such check: there the first access past the end is an error.
static bool dynamic_overrun() {
#ifndef __SANITIZE_ADDRESS__
  const unsigned char* past = igc_dynamic + launched->dynamic;
  const unsigned bytes = EMU_DYNAMIC_BYTES - launched->dynamic;
  return bytes && (*past != 0xFF || memcmp(past, past + 1, bytes - 1));
#endif
  return false;
}

static void run_block() {
  poison_shared();
  arrived = 0;
  alive = count;
  ready_words = 0;
  memset(ready, 0, sizeof ready);
  memset(waiting, 0, sizeof waiting);
#ifdef __SANITIZE_ADDRESS__  // the frames of the block before are gone
  __asan_unpoison_memory_region(fibers[0].stack, 1024 * STRIDE);
#endif
  for (int id = 0; id < count; ++id) {
    Fiber& f = fibers[id];
    f.group = f.pending = 0;
#ifdef EMU_OWN_SWITCH
    void** top = (void**)(f.stack + STACK);
    top[-2] = (void*)fiber_main;  // igc_switch returns to it, after six registers
    memset(f.stack_pointer = top - 8, 0, 6 * sizeof *top);
#else
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack;
    f.context.uc_stack.ss_size = STACK;
    makecontext(&f.context, fiber_main, 0);
#endif
    set_ready(f);
  }
  now = &host;
  next();
  if (!*error && alive) report_deadlock();
  if (!*error && dynamic_overrun())
    report(nullptr, "dynamic shared memory written past the %u bytes asked for", launched->dynamic);
}

static const char* launch(const Launch& it, unsigned bound, void (*entry)(void**), void** args) {
  const dim3 grid = it.grid, block = it.block;
  *error = 0;
  launched = &it;
  kernel = entry;
  arguments = args;
  count = block.x * block.y * block.z;
  if (bound && unsigned(count) > bound) {
    snprintf(error, sizeof error, "%d threads a block, __launch_bounds__ says %u", count, bound);
    return error;
  }
  if (!fibers) {
    auto map = [](size_t bytes) {
      return mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    };
    char* stacks = (char*)map(1025 * STRIDE) + STRIDE;  // untouched pages cost nothing
    fibers = (Fiber*)map(1024 * sizeof(Fiber));
    for (int id = 0; id < 1024; ++id) {
      fibers[id].id = id;
      fibers[id].stack = stacks + id * STRIDE;
      fibers[id].stack_bytes = STACK;
    }
  }
#ifdef __SANITIZE_ADDRESS__
  host.stack = nullptr;
  __asan_unpoison_memory_region(fibers[0].stack, 1024 * STRIDE);  // frames left by an error
  __asan_poison_memory_region(igc_dynamic + it.dynamic, EMU_DYNAMIC_BYTES - it.dynamic);
#endif
  for (int p = 0; p < count; ++p) {
    const unsigned id = it.threads[p];
    fibers[id].position = p;
    fibers[id].index = {id % block.x, id / block.x % block.y, id / block.x / block.y};
  }
  for (unsigned b = 0; b < grid.x * grid.y * grid.z && !*error; ++b) {
    const unsigned id = it.blocks[b];
    block_index = {id % grid.x, id / grid.x % grid.y, id / grid.x / grid.y};
    run_block();
  }
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(igc_dynamic, EMU_DYNAMIC_BYTES);
#endif
  return error;
}

template <class... P> struct Call {
  Call(void (*function)(P...), P... arguments) { function(arguments...); }
};
template <class... P> void call(void (*function)(P...), void** args) {
  Call<P...>{function, *static_cast<P*>(*args++)...};  // braces: from left to right
}
constexpr unsigned bound(unsigned threads = 0, unsigned = 0) { return threads; }
#define EMU_ENTRY(name, threads) \
  extern "C" __attribute__((visibility("default"))) const char* igc_launch_##name( \
      const igc::Launch* it, void** args) { \
    return igc::launch(*it, threads, [](void** a) { igc::call(name, a); }, args); \
  }
}  // namespace igc

// --------------------------------------------------------------------- what a kernel's source sees
#define threadIdx (igc::now->index)
#define blockIdx (igc::block_index)
#define blockDim (igc::launched->block)
#define gridDim (igc::launched->grid)
#define EMU_LINE int line = __builtin_LINE()

inline void __syncthreads(EMU_LINE) { igc::barrier(line); }
inline void __syncwarp(unsigned mask = ~0u, EMU_LINE) {
  igc::meet(igc::SYNCWARP, mask, igc::lane(), line);
}
template <class T> T __shfl_sync(unsigned mask, T value, int source, EMU_LINE) {
  return igc::exchange(igc::SHFL, mask, value, source & 31, line);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, EMU_LINE) {
  return igc::exchange(igc::SHFL_XOR, mask, value, (igc::lane() ^ bits) & 31, line);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, int by, EMU_LINE) {
  const int source = igc::lane() + by;
  return igc::exchange(igc::SHFL_DOWN, mask, value, source < 32 ? source : igc::lane(), line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, EMU_LINE) {
  return igc::exchange(igc::BALLOT, mask, unsigned(predicate != 0), igc::lane(), line);
}

// cp.async, cp.async.commit_group, cp.async.wait_group N
template <int BYTES> void copy_async(void* shared, const void* global, EMU_LINE) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async moves 4, 8 or 16 bytes");
  igc::Fiber& me = *igc::now;
  const char* to = static_cast<char*>(shared);
  if ((uintptr_t(shared) | uintptr_t(global)) % BYTES)
    igc::fail("cp.async (line %d): misaligned for %d bytes: shared %p, global %p", line, BYTES,
              shared, global);
  if (to < __bss_start || to + BYTES > _end)
    igc::fail("cp.async (line %d): the destination is not shared memory", line);
  if (me.pending == sizeof me.copies / sizeof *me.copies)
    igc::fail("cp.async (line %d): the emulator holds only %u copies in flight", line, me.pending);
  memset(shared, 0xFF, BYTES);
  me.copies[me.pending++] = {shared, global, BYTES, me.group};
}
inline void copy_commit() { ++igc::now->group; }
template <int N> void copy_wait() {
  igc::Fiber& me = *igc::now;
  unsigned done = 0;
  for (; done < me.pending && me.copies[done].group + N < me.group; ++done)
    memcpy(me.copies[done].to, me.copies[done].from, me.copies[done].bytes);
  me.pending -= done;
  memmove(me.copies, me.copies + done, me.pending * sizeof *me.copies);
}

// IEEE binary16 by the bits. 2^112 moves the bias from 15 to 127, and subnormals become normal.
inline float half_to_float(unsigned short half) {
  const unsigned sign = (half & 0x8000u) << 16, rest = (half & 0x7FFFu) << 13;
  const float finite = __uint_as_float(rest) * 0x1p112f;
  const unsigned bits = rest < 0x7C00u << 13 ? __float_as_uint(finite) : rest | 0x7F800000u;
  return __uint_as_float(sign | bits);
}
// To nearest, ties to even: adding 0.5 rounds a subnormal, adding half an ulp rounds a normal.
inline unsigned short float_to_half(float value) {
  const unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u;
  const unsigned rest = bits & 0x7FFFFFFFu;
  if (rest > 0x7F800000u) return sign | 0x7E00u;   // NaN
  if (rest >= 0x477FF000u) return sign | 0x7C00u;  // 65520 and more round to infinity
  if (rest < 0x38800000u)                          // below 2^-14, the least normal half
    return sign | (__float_as_uint(__uint_as_float(rest) + 0.5f) & 0x7FFu);
  return sign | ((rest - (112u << 23) + 0xFFFu + (rest >> 13 & 1)) >> 13);
}
