// The operations between the products of a layer, over plain pointers: no header but the compiler's own, so that it
// builds in seconds anywhere. native.py builds and calls it; operations.py says what each function does.
//
// A row is computed in the same order whoever else is in the step: sums go over fixed parts of its own positions.
// Numbers are summed in float and rounded once.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#if defined(__AVX512BF16__)
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
  for (int i = 0; i < size; i++) out[i] = narrow<T>(wide(row[i]) * scale * wide(weight[i]));
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
      out[int64_t(r) * size + i] = narrow<T>(x * ((x < 0 ? e : 1) / (1 + e)) * wide(up[i]));
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
        to[i] = narrow<T>(left * cosine[i] - right * sine[i]);
        to[i + dim / 2] = narrow<T>(right * cosine[i] + left * sine[i]);
      }
    }
    if (r < written)
      for (int h = 0; h < kv_heads; h++)
        std::memcpy(values + (h * slots + places[r]) * dim, row + (count + kv_heads + h) * dim, dim * sizeof(T));
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
  extern "C" void turn_##NAME(T* heads, const float* cosines, const float* sines, const T* query_norm,              \
                              const T* key_norm, float eps, const int64_t* places, T* query, T* keys, T* values,    \
                              int rows, int written, int count, int kv_heads, int dim, int64_t slots,               \
                              int threads) {                                                                        \
    turn_and_write(heads, cosines, sines, query_norm, key_norm, eps, places, query, keys, values, rows, written,    \
                   count, kv_heads, dim, slots, threads);                                                           \
  }

EACH(float, float)
EACH(Half, half)
