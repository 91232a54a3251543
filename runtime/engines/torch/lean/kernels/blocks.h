// Weights in blocks of 32 inputs, of four or eight bits, repacked for sixteen outputs at a time.
//
// A group of 16 outputs by 32 inputs: 16 scales, 16 least values (both float16; those of eight bits have none), then
// numbers by pairs of inputs: for every two pairs 32 bytes, low halves of the first pair and high halves of the
// second, or for every pair 16 bytes of its first input and 16 of its second.
#pragma once
#include "products.h"

constexpr int BLOCK = 32;
inline int group_bytes(int kind) { return kind == 8 ? 32 + 512 : 64 + 256; }

inline Lanes halves(const uint8_t* at) {
#if defined(__AVX512F__)
  return (Lanes)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)at));
#else
  Lanes out;
  for (int i = 0; i < LANES; i++) out[i] = float(load<_Float16>(at + 2 * i));
  return out;
#endif
}

// Numbers of two pairs of inputs, each as [16 outputs][2]. They are whole and small: bfloat16 holds them exactly.
template <class T> inline void unpacked(const uint8_t* at, int kind, T* first, T* second) {
  for (int i = 0; i < 2 * LANES; i++) {
    const int half = i % 2 * LANES + i / 2;
    first[i] = narrow<T>(kind == 8 ? float(int8_t(at[half])) : float(at[i] & 15));
    second[i] = narrow<T>(kind == 8 ? float(int8_t(at[half + 32])) : float(at[i] >> 4));
  }
}
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
inline __m512i whole(const uint8_t* at) {
  const __m512i first = (__m512i)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)at)));
  const __m512i other = (__m512i)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(at + 16))));
  return _mm512_or_si512(other, _mm512_srli_epi32(first, 16));
}
template <> inline void unpacked<Half>(const uint8_t* at, int kind, Half* first, Half* second) {
  if (kind == 8) {
    _mm512_storeu_si512(first, whole(at)), _mm512_storeu_si512(second, whole(at + 32));
    return;
  }
  // 0 to 15 as bfloat16, twice: of an index only its low five bits count.
  const __m256i numbers = _mm256_setr_epi16(0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0x4100,
                                            0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170);
  const __m512i table = _mm512_broadcast_i64x4(numbers);
  const __m512i bytes = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)at));
  _mm512_storeu_si512(first, _mm512_permutexvar_epi16(bytes, table));
  _mm512_storeu_si512(second, _mm512_permutexvar_epi16(_mm512_srli_epi16(bytes, 4), table));
}
#endif
inline Lanes pair(Lanes sums, const Half* row, const Half* numbers) { return added(sums, row, numbers); }
inline Lanes pair(Lanes sums, const float* row, const float* numbers) {
  const Lanes low = load<Lanes>(numbers), high = load<Lanes>(numbers + LANES);
  const Ints even = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
  sums += all(row[0]) * __builtin_shuffle(low, high, even);
  return sums + all(row[1]) * __builtin_shuffle(low, high, even + 1);
}

// Rows times sixteen outputs. `sums` [rows][inputs / 32] are those of the rows' own numbers.
template <class T, int KIND, int ROWS>
inline void few_rows(const uint8_t* at, const T* rows, int64_t stride, const float* sums, int inputs, float* out,
                     int64_t to) {
  Lanes done[ROWS] = {};
  alignas(64) T numbers[2][2 * LANES];
  for (int block = 0; block < inputs / BLOCK; block++) {
    Lanes own[ROWS] = {};
    const uint8_t* bytes = at + (KIND == 8 ? 32 : 64);
    for (int k = 0; k < BLOCK; k += 4, bytes += KIND == 8 ? 64 : 32) {
      unpacked<T>(bytes, KIND, numbers[0], numbers[1]);
      for (int r = 0; r < ROWS; r++)
        for (int half = 0; half < 2; half++)
          own[r] = pair(own[r], rows + r * stride + block * BLOCK + k + 2 * half, numbers[half]);
    }
    const Lanes scale = halves(at), least = KIND == 8 ? Lanes{} : halves(at + 32);
    for (int r = 0; r < ROWS; r++) {
      done[r] += own[r] * scale;
      if (KIND != 8) done[r] += least * sums[r * (inputs / BLOCK) + block];
    }
    at += group_bytes(KIND);
  }
  for (int r = 0; r < ROWS; r++) store(out + r * to, done[r]);
}

// Few rows times 32 outputs, as `tile` has them.
template <class T>
inline void tile_of_blocks(const Weight& by, int outputs, const T* rows, int64_t stride, int count, const float* sums,
                           float* out, int64_t to) {
  const int64_t size = int64_t(by.inputs / BLOCK) * group_bytes(by.kind);
  for (int half = 0; half < 2; half++) {
    const uint8_t* own = by.blocks + (outputs / LANES + half) * size;
    for (int r = 0; r < count;) {
      const T* row = rows + r * stride;
      const float* sum = sums + int64_t(r) * (by.inputs / BLOCK);
      float* into = out + r * to + half * LANES;
      const int left = count - r, some = left >= 4 ? 4 : left >= 2 ? 2 : 1;
      if (by.kind == 8 && some == 4) few_rows<T, 8, 4>(own, row, stride, sum, by.inputs, into, to);
      if (by.kind == 8 && some == 2) few_rows<T, 8, 2>(own, row, stride, sum, by.inputs, into, to);
      if (by.kind == 8 && some == 1) few_rows<T, 8, 1>(own, row, stride, sum, by.inputs, into, to);
      if (by.kind != 8 && some == 4) few_rows<T, 4, 4>(own, row, stride, sum, by.inputs, into, to);
      if (by.kind != 8 && some == 2) few_rows<T, 4, 2>(own, row, stride, sum, by.inputs, into, to);
      if (by.kind != 8 && some == 1) few_rows<T, 4, 1>(own, row, stride, sum, by.inputs, into, to);
      r += some;
    }
  }
}
