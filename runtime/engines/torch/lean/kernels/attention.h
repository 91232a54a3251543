// What a row sees of its past, in parts of 256 positions that are summed by themselves and then put together in order.
//
// A part's sums do not depend on what else is computed with it, so a token that was said and the same token of a
// prompt get the same bits, however either is cut into steps.
#pragma once
#include "products.h"

constexpr int PART = 256;

// The pages of one sequence in one layer.
template <class T> struct Past {
  const T *keys, *values;  // of one head that has them: [slots, dim]
  const int32_t* table;
  int step, page, dim;  // the table's pages of this group of layers are `step` apart

  int64_t at(int position) const { return (int64_t(table[position / page * step]) * page + position % page) * dim; }
};

// Room of one thread, taken once.
template <class T> struct Room {
  std::vector<T> keys, values;
  std::vector<float> scores, sums, done, most, total;
  int fitted = 0;
  // What fills dimensions up must be zeros: it is written here, and nowhere else.
  void fit(int own, int dim, int blocks) {
    if (fitted != own) {
      keys.assign(size_t(PART) * dim, T{}), values.assign(size_t(PART) * dim, T{});
      fitted = own;
    }
    scores.resize(size_t(PART) * TILE), sums.resize(size_t(TILE) * dim);
    done.resize(size_t(blocks) * TILE * dim), most.resize(size_t(blocks) * TILE), total.resize(size_t(blocks) * TILE);
  }
};

// Sixteen rows of sixteen words become columns.
inline void turned(const uint32_t* const* rows, int words, uint32_t* to) {
#if defined(__AVX512F__)
  if (words == LANES) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(rows[i]);
    for (int i = 0; i < 16; i += 2)
      b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    for (int i = 0; i < 16; i += 4)
      for (int j = 0; j < 2; j++)
        a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]),
                  a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
    for (int i = 0; i < 4; i++)
      for (int j = 0; j < 2; j++)
        b[8 * j + i] = _mm512_shuffle_i32x4(a[8 * j + i], a[8 * j + i + 4], 0x88),
                  b[8 * j + i + 4] = _mm512_shuffle_i32x4(a[8 * j + i], a[8 * j + i + 4], 0xdd);
    for (int i = 0; i < 8; i++) {
      _mm512_storeu_si512(to + i * LANES, _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88));
      _mm512_storeu_si512(to + (i + 8) * LANES, _mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd));
    }
    return;
  }
#endif
  for (int w = 0; w < words; w++)
    for (int i = 0; i < LANES; i++) to[w * LANES + i] = rows[i][w];
}

// Sixteen dimensions of sixteen rows as a panel: each row by itself, or with its neighbour.
inline void beside(const float* const* rows, int d, int some, float* to) {
  for (int i = 0; i < LANES; i++) std::copy_n(rows[i] + d, some, to + i * LANES);
}
inline void beside(const Half* const* rows, int d, int some, Half* to) {
  for (int i = 0; i < LANES; i += 2, to += 2 * LANES)
    if (some == LANES)
      store(to, words(rows[i] + d) | words(rows[i + 1] + d) << 16);
    else
      for (int j = 0; j < some; j++) to[2 * j] = rows[i][d + j], to[2 * j + 1] = rows[i + 1][d + j];
}

// Keys as panels of sixteen positions, and values as panels of sixteen dimensions: `count` positions from
// `low` on, zeros where they are not from `first` to before `high`. What others left in a page is not even multiplied.
template <class T>
void gather(const Past<T>& past, int first, int low, int high, int count, Room<T>& room, int dim) {
  static const std::vector<T> nothing(1024, T{});
  constexpr int AHEAD = 2 * LANES;
  const T *all_keys[PART + AHEAD], *all_values[PART + AHEAD];
  int page = low / past.page, inside = low % past.page;
  for (int at = 0; at < count; at++) {
    const bool seen = first <= low + at && low + at < high;
    const int64_t place = seen ? (int64_t(past.table[page * past.step]) * past.page + inside) * past.dim : 0;
    all_keys[at] = seen ? past.keys + place : nothing.data(), all_values[at] = seen ? past.values + place : nothing.data();
    if (++inside == past.page) inside = 0, page++;
  }
  for (int at = 0; at < count; at += LANES) {
    const T *const *keys = all_keys + at, *const *values = all_values + at;
    // The processor does not see beyond a page what comes next.
    for (int i = at + AHEAD; i < std::min(at + AHEAD + LANES, count); i++)
      for (int d = 0; d < past.dim; d += 64 / sizeof(T)) {
        __builtin_prefetch(all_keys[i] + d);
        __builtin_prefetch(all_values[i] + d);
      }
    for (int d = 0; d < past.dim; d += DEEP<T>) {
      const uint32_t* words[LANES];
      for (int i = 0; i < LANES; i++) words[i] = reinterpret_cast<const uint32_t*>(keys[i] + d);
      turned(words, std::min(LANES, (past.dim - d) / PAIR<T>),
             reinterpret_cast<uint32_t*>(&room.keys[size_t(at) * dim + d * LANES]));
    }
    for (int d = 0; d < past.dim; d += LANES)
      beside(values, d, std::min(LANES, past.dim - d), &room.values[size_t(d) * PART + size_t(at) * LANES]);
  }
}

// One part for up to 32 rows that see the same head: sums of values, their weights' maximum and their sum. Row i sees
// the part's positions from first + i * each (or the part's beginning) to before stop + i * each.
template <class T>
__attribute__((noinline)) void look(const T* query, int64_t stride, int rows, int first, int stop, int each, int count,
                                    int dim, float scale, Room<T>& room, float* most, float* total) {
  for (int at = 0; at < count; at += TILE)
    tile(query, stride, rows, &room.keys[size_t(at) * dim], &room.keys[size_t(at + LANES) * dim], dim,
         &room.scores[at], PART);
  for (int r = 0; r < rows; r++) {
    float* own = &room.scores[size_t(r) * PART];
    T* weights = reinterpret_cast<T*>(own);  // where the scores were: less to go through the nearest cache
    const int low = std::max(0, first + r * each), high = std::min(count, stop + r * each);
    for (int i = 0; i < std::min(low, count); i++) own[i] = -INFINITY;
    for (int i = std::max(0, high); i < count; i++) own[i] = -INFINITY;
    Lanes top = all(-INFINITY), sum = {};
    for (int i = 0; i < count; i += LANES) top = larger(load<Lanes>(own + i), top);
    most[r] = most_of(top) * scale;
    const Lanes by = all(scale * LOG2E), less = all(most[r] == -INFINITY ? 0 : most[r] * LOG2E);
    for (int i = 0; i < count; i += LANES) {
      const Lanes weight = power_of_two(load<Lanes>(own + i) * by - less);
      sum += weight;
      narrowed(weight, weights + i);
    }
    total[r] = sum_of(sum);
  }
  for (int d = 0; d < dim; d += TILE)
    tile(reinterpret_cast<const T*>(&room.scores[0]), PART * PAIR<T>, rows, &room.values[size_t(d) * PART], &room.values[size_t(d + LANES) * PART], count,
         &room.sums[d], dim);
}

// Put a part's sums behind those of the parts before it.
inline __attribute__((noinline)) void put(const float* sums, float most, float total, float* done, float* all_most,
                                          float* all_total, int dim) {
  if (most == -INFINITY) return;
  const float top = most > *all_most || most != most ? most : *all_most;
  const float before = power(all(*all_most - top))[0], now = power(all(most - top))[0];
  for (int d = 0; d < dim; d += LANES)
    store(done + d, load<Lanes>(done + d) * all(before) + load<Lanes>(sums + d) * all(now));
  *all_total = *all_total * before + total * now;
  *all_most = top;
}
