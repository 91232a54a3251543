// The operations between the products of a layer, over plain pointers: no header but the compiler's own, so that it
// builds in seconds anywhere. native.py builds and calls it; operations.py says what each function does.
//
// A row is computed in the same order whoever else is in the step: sums go over fixed parts of its own positions.
// Sums are in float. What lies between two products is rounded where transformers rounds it, so that what is said
// in half the bits is what transformers says.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

using Half = uint16_t;  // bfloat16
constexpr int PART = 256;  // positions of a row that one task reads

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

// Rounded as T is.
template <class T> inline float round_to(float x) { return wide(narrow<T>(x)); }

// e to the x for x <= 0, in a form that compilers turn into vectors: 2^n times a polynomial, right to 2e-7.
inline float power(float x) {
  x = std::max(x, -87.0f) * 1.44269504f;
  float n = std::floor(x + 0.5f), f = (x - n) * 0.69314718f;
  float p = 1 + f * (1 + f * (0.5f + f * (1.6666667e-1f + f * (4.1666666e-2f + f * (8.3333333e-3f + f * 1.3888889e-3f)))));
  int32_t bits = (int32_t(n) + 127) << 23;
  float two;
  std::memcpy(&two, &bits, 4);
  return p * two;
}

inline float dot(const float* a, const float* b, int dim) {
  float sum = 0;
  for (int i = 0; i < dim; i++) sum += a[i] * b[i];
  return sum;
}
inline float dot(const Half* a, const Half* b, int dim) {
#if defined(__AVX512BF16__)
  if (dim % 32 == 0) {
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < dim; i += 32)
      sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_loadu_si512(a + i), (__m512bh)_mm512_loadu_si512(b + i));
    return _mm512_reduce_add_ps(sum);
  }
#endif
  float sum = 0;
  for (int i = 0; i < dim; i++) sum += wide(a[i]) * wide(b[i]);
  return sum;
}

// One part of a row's positions for the heads that share keys: sums of values, weighted, and the weights' maximum and
// sum. A page is read for one head after the other while it is near.
template <class T>
void look(const T* query, const T* keys, const T* values, const int32_t* table, int low, int high, int page, int heads,
          int dim, float scale, float* out, float* weight) {
  float score[PART];
  for (int h = 0; h < heads; h++) {
    weight[2 * h] = -INFINITY;
    weight[2 * h + 1] = 0;
    std::fill(out + h * dim, out + (h + 1) * dim, 0.0f);
  }
  for (int at = low; at < high;) {
    int block = at / page, stop = std::min({high, (block + 1) * page, at + PART}), count = stop - at;
    const int64_t slot = (int64_t(table[block]) * page + at % page) * dim;
    for (int h = 0; h < heads; h++) {
      float most = weight[2 * h], sum = 0, *own = out + h * dim;
      for (int i = 0; i < count; i++) {
        score[i] = dot(query + h * dim, keys + slot + int64_t(i) * dim, dim) * scale;
        most = std::max(most, score[i]);
      }
      for (int i = 0; i < count; i++) score[i] = power(score[i] - most);
      for (int i = 0; i < count; i++) sum += score[i];
      float shrink = weight[2 * h] == -INFINITY ? 0 : power(weight[2 * h] - most);
      for (int d = 0; d < dim; d++) own[d] *= shrink;
      for (int i = 0; i < count; i++) {
        const T* value = values + slot + int64_t(i) * dim;
        for (int d = 0; d < dim; d++) own[d] += score[i] * wide(value[d]);
      }
      weight[2 * h] = most;
      weight[2 * h + 1] = weight[2 * h + 1] * shrink + sum;
    }
    at = stop;
  }
}

template <class T>
void decode(const T* query, const T* keys, const T* values, const int32_t* tables, const int32_t* firsts,
            const int32_t* stops, T* out, int rows, int heads, int kv_heads, int dim, int64_t slots, int page,
            int pages, float scale, int threads) {
  const int shared = heads / kv_heads;
  std::vector<int> begin(rows + 1, 0);  // of each row's parts among all
  for (int r = 0; r < rows; r++) begin[r + 1] = begin[r] + (stops[r] - 1) / PART - firsts[r] / PART + 1;
  const int parts = begin[rows], tasks = parts * kv_heads;
  std::vector<int> owner(parts);
  for (int r = 0; r < rows; r++) std::fill(owner.begin() + begin[r], owner.begin() + begin[r + 1], r);
  std::vector<float> sums(size_t(tasks) * shared * dim), weights(size_t(tasks) * shared * 2);
#pragma omp parallel num_threads(threads) if (tasks > 1)
  {
#pragma omp for schedule(dynamic, 1)
    for (int task = 0; task < tasks; task++) {
      int part = task / kv_heads, kv = task % kv_heads, r = owner[part], at = firsts[r] / PART + part - begin[r];
      look(query + (int64_t(r) * heads + kv * shared) * dim, keys + kv * slots * dim, values + kv * slots * dim,
           tables + int64_t(r) * pages, std::max(firsts[r], at * PART), std::min(stops[r], (at + 1) * PART), page,
           shared, dim, scale, &sums[size_t(task) * shared * dim], &weights[size_t(task) * shared * 2]);
    }
#pragma omp for
    for (int one = 0; one < rows * heads; one++) {
      int r = one / heads, kv = one % heads / shared, h = one % shared;
      float most = -INFINITY, sum = 0;
      std::vector<float> all(dim, 0.0f);
      for (int part = begin[r]; part < begin[r + 1]; part++)
        most = std::max(most, weights[(size_t(part * kv_heads + kv) * shared + h) * 2]);
      for (int part = begin[r]; part < begin[r + 1]; part++) {
        const size_t place = size_t(part * kv_heads + kv) * shared + h;
        const float share = power(weights[place * 2] - most);
        sum += share * weights[place * 2 + 1];
        for (int d = 0; d < dim; d++) all[d] += share * sums[place * dim + d];
      }
      for (int d = 0; d < dim; d++) out[int64_t(one) * dim + d] = narrow<T>(all[d] / sum);
    }
  }
}

template <class T> void norm(const T* row, const T* weight, T* out, int size, float eps) {
  float sum = 0;
  for (int i = 0; i < size; i++) sum += wide(row[i]) * wide(row[i]);
  const float scale = 1 / std::sqrt(sum / size + eps);
  for (int i = 0; i < size; i++) out[i] = narrow<T>(round_to<T>(wide(row[i]) * scale) * wide(weight[i]));
}

template <class T>
void add_norm(T* state, const T* more, const T* weight, T* out, int rows, int size, float eps, int threads) {
#pragma omp parallel for num_threads(threads) if (rows > 8)
  for (int r = 0; r < rows; r++) {
    T* row = state + int64_t(r) * size;
    if (more)
      for (int i = 0; i < size; i++) row[i] = narrow<T>(wide(row[i]) + wide(more[int64_t(r) * size + i]));
    norm(row, weight, out + int64_t(r) * size, size, eps);
  }
}

template <class T> void gated(const T* gate_up, T* out, int rows, int size, int threads) {
#pragma omp parallel for num_threads(threads) if (rows > 8)
  for (int r = 0; r < rows; r++) {
    const T *gate = gate_up + int64_t(r) * 2 * size, *up = gate + size;
    for (int i = 0; i < size; i++) {
      const float x = wide(gate[i]), e = power(-std::fabs(x));
      out[int64_t(r) * size + i] = narrow<T>(round_to<T>(x * ((x < 0 ? e : 1) / (1 + e))) * wide(up[i]));
    }
  }
}

template <class T>
void turn_and_write(T* heads, const float* cosines, const float* sines, const T* query_norm, const T* key_norm,
                    float eps, const int64_t* places, T* query, T* keys, T* values, int rows, int written, int count,
                    int kv_heads, int dim, int64_t slots, int threads) {
#pragma omp parallel for num_threads(threads) if (rows > 8)
  for (int r = 0; r < rows; r++) {
    T* row = heads + int64_t(r) * (count + 2 * kv_heads) * dim;
    const float *cosine = cosines + int64_t(r) * dim / 2, *sine = sines + int64_t(r) * dim / 2;
    for (int h = 0; h < count + kv_heads; h++) {
      T *head = row + h * dim, *to = query + (int64_t(r) * count + h) * dim;
      if (query_norm) norm(head, h < count ? query_norm : key_norm, head, dim, eps);
      if (h >= count) {
        if (r >= written) continue;
        to = keys + ((h - count) * slots + places[r]) * dim;
      }
      for (int i = 0; i < dim / 2; i++) {
        const float left = wide(head[i]), right = wide(head[i + dim / 2]);
        const float c = round_to<T>(cosine[i]), s = round_to<T>(sine[i]);
        to[i] = narrow<T>(round_to<T>(left * c) - round_to<T>(right * s));
        to[i + dim / 2] = narrow<T>(round_to<T>(right * c) + round_to<T>(left * s));
      }
    }
    if (r < written)
      for (int h = 0; h < kv_heads; h++)
        std::memcpy(values + (h * slots + places[r]) * dim, row + (count + kv_heads + h) * dim, dim * sizeof(T));
  }
}

// Blocks of 32 weights as GGUF files have them: Q4_0 (a scale, 16 bytes of two weights each), Q4_1 (a scale, a least,
// the same), Q8_0 (a scale, 32 bytes). A row's sums go over its blocks in order.
enum Kind { Q4_0 = 2, Q4_1 = 3, Q8_0 = 8 };
constexpr int BLOCK = 32, FEW = 4;

inline int bytes_of(int kind) { return kind == Q4_0 ? 18 : kind == Q4_1 ? 20 : 34; }

inline float half_of(const uint8_t* at) {
  _Float16 out;
  std::memcpy(&out, at, 2);
  return float(out);
}

// Sixteen sums side by side: of the processor's own width where it has that.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
struct Sums {
  __m512 sum = _mm512_setzero_ps();
  void add(const Sums& weight, const float* row) { sum = _mm512_fmadd_ps(weight.sum, _mm512_loadu_ps(row), sum); }
  float all() const { return _mm512_reduce_add_ps(sum); }
};
template <int KIND> inline void unpack(const uint8_t* packed, float scale, Sums& low, Sums& high) {
  const __m512 by = _mm512_set1_ps(scale);
  const __m128i bytes = _mm_loadu_si128((const __m128i*)packed), four = _mm_set1_epi8(15);
  __m512i first, second;
  if (KIND == Q8_0) {
    first = _mm512_cvtepi8_epi32(bytes);
    second = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(packed + 16)));
  } else {
    first = _mm512_cvtepu8_epi32(_mm_and_si128(bytes, four));
    second = _mm512_cvtepu8_epi32(_mm_and_si128(_mm_srli_epi16(bytes, 4), four));
  }
  low.sum = _mm512_mul_ps(_mm512_cvtepi32_ps(first), by);
  high.sum = _mm512_mul_ps(_mm512_cvtepi32_ps(second), by);
}
#else
struct Sums {
  float sum[16] = {};
  void add(const Sums& weight, const float* row) {
    for (int i = 0; i < 16; i++) sum[i] += weight.sum[i] * row[i];
  }
  float all() const {
    float out = 0;
    for (int i = 0; i < 16; i++) out += sum[i];
    return out;
  }
};
template <int KIND> inline void unpack(const uint8_t* packed, float scale, Sums& low, Sums& high) {
  for (int i = 0; i < 16; i++) {
    low.sum[i] = scale * (KIND == Q8_0 ? float(int8_t(packed[i])) : float(packed[i] & 15));
    high.sum[i] = scale * (KIND == Q8_0 ? float(int8_t(packed[i + 16])) : float(packed[i] >> 4));
  }
}
#endif

template <class T, int KIND, int ROWS>
void times(const uint8_t* weights, const float* rows, const float* sums, T* out, int inputs, int outputs, int threads) {
  const int blocks = inputs / BLOCK;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int n = 0; n < outputs; n++) {
    Sums all[ROWS], low, high;
    float rest[ROWS] = {};
    const uint8_t* at = weights + int64_t(n) * blocks * bytes_of(KIND);
    for (int b = 0; b < blocks; b++, at += bytes_of(KIND)) {
      const float scale = half_of(at), least = KIND == Q4_1 ? half_of(at + 2) : -8 * scale;
      unpack<KIND>(at + (KIND == Q4_1 ? 4 : 2), scale, low, high);
      for (int r = 0; r < ROWS; r++) {
        const float* row = rows + int64_t(r) * inputs + b * BLOCK;
        all[r].add(low, row);
        all[r].add(high, row + 16);
        if (KIND != Q8_0) rest[r] += least * sums[r * blocks + b];
      }
    }
    for (int r = 0; r < ROWS; r++) out[int64_t(r) * outputs + n] = narrow<T>(all[r].all() + rest[r]);
  }
}

template <class T, int KIND>
void times_some(const uint8_t* weights, const float* rows, const float* sums, T* out, int count, int inputs,
                int outputs, int threads) {
  if (count == 1) times<T, KIND, 1>(weights, rows, sums, out, inputs, outputs, threads);
  if (count == 2) times<T, KIND, 2>(weights, rows, sums, out, inputs, outputs, threads);
  if (count == 3) times<T, KIND, 3>(weights, rows, sums, out, inputs, outputs, threads);
  if (count == 4) times<T, KIND, 4>(weights, rows, sums, out, inputs, outputs, threads);
}

template <class T>
void blocks(const uint8_t* weights, const T* given, T* out, int kind, int count, int inputs, int outputs,
            int threads) {
  const int parts = inputs / BLOCK;
  std::vector<float> rows(size_t(count) * inputs), sums(size_t(count) * parts, 0.0f);
  for (size_t i = 0; i < rows.size(); i++) rows[i] = wide(given[i]);
  for (size_t i = 0; i < rows.size(); i++) sums[i / BLOCK] += rows[i];
  for (int at = 0; at < count; at += FEW) {
    const int some = std::min(FEW, count - at);
    const float *r = &rows[size_t(at) * inputs], *s = &sums[size_t(at) * parts];
    T* to = out + int64_t(at) * outputs;
    if (kind == Q4_0) times_some<T, Q4_0>(weights, r, s, to, some, inputs, outputs, threads);
    if (kind == Q4_1) times_some<T, Q4_1>(weights, r, s, to, some, inputs, outputs, threads);
    if (kind == Q8_0) times_some<T, Q8_0>(weights, r, s, to, some, inputs, outputs, threads);
  }
}

}  // namespace

#define EACH(T, NAME)                                                                                               \
  extern "C" void decode_##NAME(const T* query, const T* keys, const T* values, const int32_t* tables,              \
                                const int32_t* firsts, const int32_t* stops, T* out, int rows, int heads,           \
                                int kv_heads, int dim, int64_t slots, int page, int pages, float scale,             \
                                int threads) {                                                                      \
    decode(query, keys, values, tables, firsts, stops, out, rows, heads, kv_heads, dim, slots, page, pages, scale,  \
           threads);                                                                                                \
  }                                                                                                                 \
  extern "C" void add_norm_##NAME(T* state, const T* more, const T* weight, T* out, int rows, int size, float eps,  \
                                  int threads) {                                                                    \
    add_norm(state, more, weight, out, rows, size, eps, threads);                                                   \
  }                                                                                                                 \
  extern "C" void gated_##NAME(const T* gate_up, T* out, int rows, int size, int threads) {                         \
    gated(gate_up, out, rows, size, threads);                                                                       \
  }                                                                                                                 \
  extern "C" void blocks_##NAME(const uint8_t* weights, const T* rows, T* out, int kind, int count, int inputs,     \
                                int outputs, int threads) {                                                         \
    blocks(weights, rows, out, kind, count, inputs, outputs, threads);                                              \
  }                                                                                                                 \
  extern "C" void turn_##NAME(T* heads, const float* cosines, const float* sines, const T* query_norm,              \
                              const T* key_norm, float eps, const int64_t* places, T* query, T* keys, T* values,    \
                              int rows, int written, int count, int kv_heads, int dim, int64_t slots,               \
                              int threads) {                                                                        \
    turn_and_write(heads, cosines, sines, query_norm, key_norm, eps, places, query, keys, values, rows, written,    \
                   count, kv_heads, dim, slots, threads);                                                           \
  }

EACH(float, float)
EACH(Half, half)
