// Products of rows with weights that lie in panels of sixteen outputs. A row's sums go over its inputs in one order,
// whoever else is there: so rows get the same bits in any company, for every type and on every processor.
//
// One tile, 32 rows by 32 outputs, is what processors differ in: AMX where the kernel lets us, AVX-512 with bfloat16,
// and vectors of sixteen as the compiler makes them.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif
#if defined(__AMX_BF16__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

using Half = uint16_t;  // bfloat16
typedef float Lanes __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
constexpr int LANES = 16, TILE = 32;
template <class T> constexpr int PAIR = 4 / sizeof(T);      // inputs that lie together in a panel
template <class T> constexpr int DEEP = LANES * PAIR<T>;    // inputs come in multiples of this
inline int up(int size, int to) { return (size + to - 1) / to * to; }

inline float wide(float x) { return x; }
inline float wide(Half x) {
  uint32_t bits = uint32_t(x) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}
template <class T> inline T narrow(float x);
template <> inline float narrow<float>(float x) { return x; }
template <> inline Half narrow<Half>(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return Half(x == x ? rounded : 0x7fc0);
}
template <class T> inline float round_to(float x) { return wide(narrow<T>(x)); }  // as T is

inline Lanes all(float x) { return Lanes{} + x; }
template <class V> inline V load(const void* from) {
  V out;
  std::memcpy(&out, from, sizeof(V));
  return out;
}
template <class V> inline void store(void* to, const V& from) { std::memcpy(to, &from, sizeof(V)); }
inline Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }

// Sixteen of any type as floats, and back.
inline Ints words(const Half* from) {
  typedef Half Halves __attribute__((vector_size(32)));
  return __builtin_convertvector(load<Halves>(from), Ints);
}
inline Lanes widened(const float* from) { return load<Lanes>(from); }
inline Lanes widened(const Half* from) { return (Lanes)(words(from) << 16); }
inline void narrowed(Lanes from, float* to) { store(to, from); }
inline void narrowed(Lanes from, Half* to) {
#if defined(__AVX512BF16__)
  _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh((__m512)from));
#else
  typedef Half Halves __attribute__((vector_size(32)));
  const Ints bits = (Ints)from, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  store(to, __builtin_convertvector(from == from ? rounded : Ints{} + 0x7fc0, Halves));
#endif
}
template <class T> inline Lanes rounded(Lanes x) {
  if (sizeof(T) == 4) return x;
  alignas(64) T some[LANES];
  narrowed(x, some);
  return widened(some);
}

// All sixteen in one, by halves.
template <class Two> inline float folded(Lanes x, Two two) {
  x = two(x, __builtin_shuffle(x, Ints{8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7}));
  x = two(x, __builtin_shuffle(x, Ints{4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11}));
  x = two(x, __builtin_shuffle(x, Ints{2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13}));
  x = two(x, __builtin_shuffle(x, Ints{1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14}));
  return x[0];
}
inline float sum_of(Lanes x) {
  return folded(x, [](Lanes a, Lanes b) { return a + b; });
}
inline float most_of(Lanes x) {  // NaN where one is
  return folded(x, [](Lanes a, Lanes b) { return a > b || a != a ? a : b; });
}

// 2 to the x for x <= 0, right to 2e-7; 0 below -125, NaN for NaN. And e to the x.
constexpr float LOG2E = 1.44269504f;
inline Lanes power_of_two(Lanes x) {
  const Lanes shifted = x + 12582912.0f, f = x - (shifted - 12582912.0f);
  const Lanes high = 9.6181291e-3f + f * 1.3333558e-3f;
  const Lanes p = 1 + f * (6.9314718e-1f + f * (2.4022651e-1f + f * (5.5504109e-2f + f * high)));
  return x < -125.0f ? Lanes{} : (Lanes)((Ints)p + ((Ints)shifted << 23));
}
inline Lanes power(Lanes x) { return power_of_two(x * LOG2E); }

// -- one tile

// AMX is asked for once; each thread lays out its tiles when it begins, and gives them back.
inline bool has_tiles() {
#if defined(__AMX_BF16__)
  static const bool may = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
  return may;
#else
  return false;
#endif
}
struct Tiles {
  Tiles() {
#if defined(__AMX_BF16__)
    if (!has_tiles()) return;
    alignas(64) uint8_t layout[64] = {1};
    for (int i = 0; i < 8; i++) layout[16 + 2 * i] = 64, layout[48 + i] = 16;
    _tile_loadconfig(layout);
#endif
  }
  ~Tiles() {
#if defined(__AMX_BF16__)
    if (has_tiles()) _tile_release();
#endif
  }
};

inline Lanes added(Lanes sums, const float* row, const float* panel) { return sums + all(*row) * load<Lanes>(panel); }
inline Lanes added(Lanes sums, const Half* row, const Half* panel) {
#if defined(__AVX512BF16__)
  return (Lanes)_mm512_dpbf16_ps((__m512)sums, (__m512bh)_mm512_set1_epi32(load<int32_t>(row)),
                                 (__m512bh)_mm512_loadu_si512(panel));
#else
  const Ints both = load<Ints>(panel);
  return sums + all(wide(row[0])) * (Lanes)(both << 16) + all(wide(row[1])) * (Lanes)(both & (Ints{} + ~0xffff));
#endif
}

template <class T, int ROWS>
inline void some_rows(const T* rows, int64_t stride, const T* first, const T* second, int inputs, float* out,
                      int64_t to) {
  Lanes sums[ROWS][2] = {};
  for (int k = 0; k < inputs; k += PAIR<T>)
    for (int r = 0; r < ROWS; r++) {
      sums[r][0] = added(sums[r][0], rows + r * stride + k, first + k * LANES);
      sums[r][1] = added(sums[r][1], rows + r * stride + k, second + k * LANES);
    }
  for (int r = 0; r < ROWS; r++) store(out + r * to, sums[r][0]), store(out + r * to + LANES, sums[r][1]);
}

// Rows times two panels: out[r * to + column] of 32 columns. Rows are read, and sums written, in multiples of 16: what
// lies behind the last row must be readable, and is nobody's.
template <class T>
inline void tile(const T* rows, int64_t stride, int count, const T* first, const T* second, int inputs, float* out,
                 int64_t to) {
#if defined(__AMX_BF16__)
  if constexpr (sizeof(T) == 2)
    if (has_tiles()) {
      _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
      if (count > LANES)
        for (int k = 0; k < inputs; k += DEEP<T>) {
          _tile_loadd(6, first + k * LANES, 64); _tile_loadd(7, second + k * LANES, 64);
          _tile_loadd(4, rows + k, stride * 2); _tile_loadd(5, rows + LANES * stride + k, stride * 2);
          _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
        }
      else
        for (int k = 0; k < inputs; k += DEEP<T>) {
          _tile_loadd(6, first + k * LANES, 64); _tile_loadd(7, second + k * LANES, 64);
          _tile_loadd(4, rows + k, stride * 2);
          _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
        }
      _tile_stored(0, out, to * 4); _tile_stored(1, out + LANES, to * 4);
      if (count > LANES) {
        _tile_stored(2, out + LANES * to, to * 4);
        _tile_stored(3, out + LANES * to + LANES, to * 4);
      }
      return;
    }
#endif
  int at = 0;
  for (; at + 8 <= count; at += 8) some_rows<T, 8>(rows + at * stride, stride, first, second, inputs, out + at * to, to);
  for (; at + 2 <= count; at += 2) some_rows<T, 2>(rows + at * stride, stride, first, second, inputs, out + at * to, to);
  if (at < count) some_rows<T, 1>(rows + at * stride, stride, first, second, inputs, out + at * to, to);
}

// -- a row by itself

template <class T> void norm(const T* row, const T* weight, T* out, int size, float eps) {
  float sum = 0;
  int i = 0;
  Lanes sums = {};
  for (; i + LANES <= size; i += LANES) sums += widened(row + i) * widened(row + i);
  for (; i < size; i++) sum += wide(row[i]) * wide(row[i]);
  sum += sum_of(sums);
  const float scale = 1 / std::sqrt(sum / size + eps);
  for (i = 0; i + LANES <= size; i += LANES)
    narrowed(rounded<T>(widened(row + i) * scale) * widened(weight + i), out + i);
  for (; i < size; i++) out[i] = narrow<T>(round_to<T>(wide(row[i]) * scale) * wide(weight[i]));
}

template <class T> void turn(const T* head, const float* angles, T* to, int half) {
  for (int i = 0; i < half; i++) {
    const float left = wide(head[i]), right = wide(head[i + half]), c = angles[i], s = angles[half + i];
    to[i] = narrow<T>(round_to<T>(left * c) - round_to<T>(right * s));
    to[i + half] = narrow<T>(round_to<T>(right * c) + round_to<T>(left * s));
  }
}

// -- a weight of a layer

struct Weight {
  const void* panels;  // [outputs / 16][inputs / PAIR][16][PAIR], both filled up with zeros to 32 outputs and DEEP
  const void* bias;    // or none
  const uint8_t* blocks;  // or none: the same weight in few bits, see blocks.h
  int32_t kind, inputs, outputs, unused;
};
