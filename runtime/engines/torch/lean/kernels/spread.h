// How likely the tokens of a row of logits are: one look for the highest values, one for the sums, both in parts of 256.
#pragma once
#include "products.h"

constexpr int SHARE = 256;  // tokens whose shares are summed together; spread.py says the same

struct Spread {
  float highest;
  int32_t best, allowed;
};

// Sixteen values from a place on: divided by the temperature, and -inf where the mask forbids them or the row is over.
template <bool WARM, bool MASKED>
inline Lanes values(const float* row, int size, int at, float warm, const uint8_t* mask, int bits) {
  constexpr Ints order = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const Lanes nothing = all(-INFINITY);
  Lanes x = nothing;
  if (at + LANES <= size)
    x = load<Lanes>(row + at);
  else
    for (int i = at; i < size; i++) x[i - at] = row[i];
  if (WARM) x /= warm;
  if (!MASKED) return x;
  int some = 0;
  for (int i = 0; i < 2; i++)
    if (at + 8 * i < bits) some |= mask[at / 8 + i] << 8 * i;
  return ((Ints{} + some) >> order & 1) == 1 ? x : nothing;
}

// Where in a part the highest value stands first.
template <bool WARM, bool MASKED>
int first(float highest, int part, const float* row, int size, float warm, const uint8_t* mask, int bits) {
  for (int at = part * SHARE; at < std::min(size, (part + 1) * SHARE); at += LANES) {
    const Lanes x = values<WARM, MASKED>(row, size, at, warm, mask, bits);
    for (int i = 0; i < LANES; i++)
      if (x[i] == highest) return at + i;
  }
  return part * SHARE;
}

template <bool WARM, bool MASKED>
void spread(const float* row, int size, float warm, const uint8_t* mask, int bits, float* sums, float* tops,
            Spread* told) {
  const int parts = size / SHARE + 1;
  float highest = -INFINITY;
  for (int part = 0; part < parts; part++) {
    Lanes top = all(-INFINITY);
    for (int at = part * SHARE; at < std::min(size, (part + 1) * SHARE); at += LANES)
      top = larger(values<WARM, MASKED>(row, size, at, warm, mask, bits), top);
    tops[part] = most_of(top);
    highest = std::max(highest, tops[part]);
  }
  told->highest = highest, told->best = 0, told->allowed = size;
  for (int part = 0; part < parts; part++) {
    Lanes sum{};
    for (int at = part * SHARE; at < std::min(size, (part + 1) * SHARE); at += LANES)
      sum += power(values<WARM, MASKED>(row, size, at, warm, mask, bits) - highest);
    sums[part] = sum_of(sum);
  }
  const int part = std::find(tops, tops + parts, highest) - tops;
  if (part < parts) told->best = first<WARM, MASKED>(highest, part, row, size, warm, mask, bits);
  if (!MASKED) return;
  told->allowed = 0;
  const int whole = std::min(size, bits);
  for (int at = 0; at < whole; at += 64) {
    uint64_t word = 0;
    std::memcpy(&word, mask + at / 8, std::min(8, (bits - at) / 8));
    told->allowed += __builtin_popcountll(whole - at < 64 ? word & (uint64_t(1) << (whole - at)) - 1 : word);
  }
}
