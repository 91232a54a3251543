// A step of a decoder like Llama: from tokens to logits in one call, and one team of threads from its first layer to
// its last. No header but the compiler's own: it builds in seconds anywhere. native.py builds and calls it.
//
// What lies between two products is rounded where transformers rounds it, so that what is said in half the bits is
// what transformers says.
#include "attention.h"
#include "blocks.h"
#include "products.h"
#include "spread.h"

namespace {

constexpr int QUERIES = 64;  // of a prompt that one task looks after
constexpr int SHORT = 32;    // tokens up to which a piece's past is shared out among tasks

struct Layer {
  const void *enter, *middle, *query_norm, *key_norm;
  Weight qkv, out, gate_up, down;
  int32_t group, window;  // 0: all of the past
};
struct Model {
  int32_t layers, hidden, heads, kv_heads, dim, groups, few, unused;
  float eps, turn_scale;
  const void *embed, *last;
  const float* turns;
  const Layer* each;
  Weight head;
};
struct Piece {
  int32_t row, count, start, skip;
  int64_t table;
};
struct Step {
  int32_t rows, pieces, wanted, page, threads, unused;
  int64_t slots;
  const int32_t *tokens, *tables, *want;
  const Piece* each;
  void *const *keys, *const *values;
  float* logits;
};

enum Then { KEEP, ADD, GATE, TELL };

// What becomes of a tile's sums: 32 columns of one row.
template <class T> inline void finish(const float* sums, const Weight& by, int column, Then then, void* out) {
  Lanes low = load<Lanes>(sums), high = load<Lanes>(sums + LANES);
  if (by.bias) {
    const T* bias = static_cast<const T*>(by.bias) + column;
    low += widened(bias), high += widened(bias + LANES);
  }
  T* to = static_cast<T*>(out) + (then == GATE ? column / 2 : column);
  if (then == KEEP) {
    narrowed(low, to), narrowed(high, to + LANES);
    return;
  }
  low = rounded<T>(low), high = rounded<T>(high);
  if (then == TELL) {
    float* told = static_cast<float*>(out) + column;
    const int left = std::min(TILE, by.outputs - column);
    for (int i = 0; i < left; i++) told[i] = i < LANES ? low[i] : high[i - LANES];
  } else if (then == ADD) {
    narrowed(widened(to) + low, to), narrowed(widened(to + LANES) + high, to + LANES);
  } else {
    const Lanes e = power(low < 0 ? low : -low);
    narrowed(rounded<T>(low * ((low < 0 ? e : all(1)) / (1 + e))) * high, to);
  }
}

// Called by every thread of a team. Rows lie `stride` apart, results `to` apart.
template <class T>
void multiply(const T* rows, int64_t stride, int count, const Weight& by, int few, void* out, int64_t to, Then then) {
  const T* panels = static_cast<const T*>(by.panels);
  const int tiles = up(by.outputs, TILE) / TILE;
  const int64_t size = then == TELL ? 4 : sizeof(T);
  alignas(64) float sums[TILE * TILE];
  if (by.blocks && count <= few) {
    std::vector<float> own(size_t(count) * (by.inputs / BLOCK));
    for (int r = 0; r < count; r++)
      for (int b = 0; b < by.inputs / BLOCK; b++) {
        const T* at = rows + r * stride + b * BLOCK;
        own[size_t(r) * (by.inputs / BLOCK) + b] = sum_of(widened(at) + widened(at + LANES));
      }
#pragma omp for schedule(static)
    for (int n = 0; n < tiles; n++) {
      tile_of_blocks(by, n * TILE, rows, stride, count, own.data(), sums, TILE);
      for (int r = 0; r < count; r++) finish<T>(sums + r * TILE, by, n * TILE, then, (char*)out + r * to * size);
    }
    return;
  }
  auto one = [&](int n) {
    const T* panel = panels + int64_t(n) * TILE * by.inputs;
    for (int at = 0; at < count; at += TILE) {
      const int some = std::min(TILE, count - at);
      tile(rows + at * stride, stride, some, panel, panel + int64_t(LANES) * by.inputs, by.inputs, sums, TILE);
      for (int r = 0; r < some; r++) finish<T>(sums + r * TILE, by, n * TILE, then, (char*)out + (at + r) * to * size);
    }
  };
  if (count <= TILE) {
#pragma omp for schedule(static)
    for (int n = 0; n < tiles; n++) one(n);
  } else {
#pragma omp for schedule(dynamic, 1)
    for (int n = 0; n < tiles; n++) one(n);
  }
}

// A piece's look at its past: one part of it for all that share a head, or all of it for some of its queries.
struct Task {
  int32_t piece, kv, from, to, part, last;
  int64_t place;  // of a part's sums among all
};

template <class T> class Run {
 public:
  Run(const Model& model, const Step& step) : m(model), s(step) {
    shared = m.heads / m.kv_heads, dim = up(m.dim, TILE), rows = up(std::max(s.rows, s.wanted), TILE) + LANES;
    wide_in = up(m.hidden, TILE), wide_seen = m.each[0].out.inputs, wide_mid = m.each[0].down.inputs;
    wide_qkv = up(m.each[0].qkv.outputs, TILE);
    static thread_local std::vector<T> room;
    const size_t each = size_t(2 * wide_in + wide_qkv + m.heads * dim + wide_seen + wide_mid);
    room.assign(rows * each, T{});
    state = room.data(), x = state + rows * wide_in, qkv = x + rows * wide_in, query = qkv + rows * wide_qkv;
    seen = query + int64_t(rows) * m.heads * dim, mid = seen + rows * wide_seen;
    angles.resize(size_t(s.rows) * m.dim);
    owner.resize(s.rows);
    for (int p = 0; p < s.pieces; p++)
      std::fill(owner.begin() + s.each[p].row, owner.begin() + s.each[p].row + s.each[p].count, p);
    for (int l = 0; l < m.layers; l++) share_out(m.each[l].window);
  }

  void go() {
#pragma omp parallel num_threads(s.threads)
    {
      Tiles tiles;
#pragma omp for schedule(static)
      for (int r = 0; r < s.rows; r++) enter(r);
      for (int l = 0; l < m.layers; l++) layer(m.each[l], l);
#pragma omp for schedule(static)
      for (int i = 0; i < s.wanted; i++)
        norm(state + int64_t(s.want[i]) * wide_in, (const T*)m.last, x + int64_t(i) * wide_in, m.hidden, m.eps);
      multiply(x, wide_in, s.wanted, m.head, m.few, s.logits, m.head.outputs, TELL);
    }
  }

 private:
  void enter(int r) {
    std::memcpy(state + int64_t(r) * wide_in, (const T*)m.embed + int64_t(s.tokens[r]) * m.hidden, m.hidden * sizeof(T));
    const Piece& piece = s.each[owner[r]];
    const int half = m.dim / 2;
    for (int i = 0; i < half; i++) {
      const float turned = float(piece.start + piece.skip + r - piece.row) * m.turns[i];
      angles[int64_t(r) * m.dim + i] = round_to<T>(std::cos(turned) * m.turn_scale);
      angles[int64_t(r) * m.dim + half + i] = round_to<T>(std::sin(turned) * m.turn_scale);
    }
  }

  void layer(const Layer& own, int number) {
    normed(own.enter);
    multiply(x, wide_in, s.rows, own.qkv, m.few, qkv, wide_qkv, KEEP);
#pragma omp for schedule(static)
    for (int r = 0; r < s.rows; r++) write(own, number, r);
    attend(own, number);
    multiply(seen, wide_seen, s.rows, own.out, m.few, state, wide_in, ADD);
    normed(own.middle);
    multiply(x, wide_in, s.rows, own.gate_up, m.few, mid, wide_mid, GATE);
    multiply(mid, wide_mid, s.rows, own.down, m.few, state, wide_in, ADD);
  }

  void normed(const void* weight) {
#pragma omp for schedule(static)
    for (int r = 0; r < s.rows; r++)
      norm(state + int64_t(r) * wide_in, (const T*)weight, x + int64_t(r) * wide_in, m.hidden, m.eps);
  }

  // Heads are normed where that is done, and turned; keys and values go to their pages.
  void write(const Layer& own, int number, int r) {
    const Piece& piece = s.each[owner[r]];
    const T* heads = qkv + int64_t(r) * wide_qkv;
    std::vector<T> normed(m.dim);
    for (int h = 0; h < m.heads + 2 * m.kv_heads; h++, heads += m.dim) {
      const void* weight = h < m.heads ? own.query_norm : own.key_norm;
      const T* head = heads;
      if (weight && h < m.heads + m.kv_heads)
        norm(heads, (const T*)weight, normed.data(), m.dim, m.eps), head = normed.data();
      const int kv = (h - m.heads) % m.kv_heads;
      if (h < m.heads) {
        turn(head, &angles[int64_t(r) * m.dim], query + (int64_t(r) * m.heads + h) * dim, m.dim / 2);
        continue;
      }
      const Past<T> past = past_of(own, number, piece, kv);
      const int64_t at = past.at(piece.start + r - piece.row);
      if (h < m.heads + m.kv_heads)
        turn(head, &angles[int64_t(r) * m.dim], const_cast<T*>(past.keys) + at, m.dim / 2);
      else
        std::memcpy(const_cast<T*>(past.values) + at, head, m.dim * sizeof(T));
    }
  }

  Past<T> past_of(const Layer& own, int number, const Piece& piece, int kv) const {
    const int64_t head = int64_t(kv) * s.slots * m.dim;
    return {(const T*)s.keys[number] + head, (const T*)s.values[number] + head, s.tables + piece.table + own.group,
            m.groups, s.page, m.dim};
  }

  static int earliest(int position, int window) { return window ? std::max(0, position - window + 1) : 0; }

  // The tasks of layers that see so far, made once a step.
  void share_out(int window) {
    for (auto& known : shares)
      if (known.window == window) return;
    Shares made{window, {}, {}, 0};
    for (int p = 0; p < s.pieces; p++) {
      const Piece& piece = s.each[p];
      const int stop = piece.start + piece.count, blocks = piece.count == 1 ? 1 : shared;
      made.begin.push_back(made.parts);
      for (int kv = 0; kv < m.kv_heads; kv++)
        if (piece.count <= SHORT)
          for (int part = earliest(piece.start, window) / PART; part <= (stop - 1) / PART; part++, made.parts += blocks)
            made.tasks.push_back({p, kv, 0, piece.count, part, part, made.parts});
        else
          for (int from = 0; from < piece.count; from += QUERIES) {
            const int to = std::min(from + QUERIES, piece.count);
            const int first = earliest(piece.start + from, window) / PART;
            made.tasks.push_back({p, kv, from, to, first, (piece.start + to - 1) / PART, -1});
          }
    }
    // The longest first: whoever is ready early takes another.
    std::stable_sort(made.tasks.begin(), made.tasks.end(),
                     [](const Task& a, const Task& b) { return a.last - a.part > b.last - b.part; });
    most_parts = std::max(most_parts, made.parts);
    sums.resize(size_t(most_parts) * TILE * dim), tops.resize(size_t(most_parts) * TILE);
    totals.resize(size_t(most_parts) * TILE);
    shares.push_back(std::move(made));
  }

  void attend(const Layer& own, int number) {
    const Shares* made = nullptr;
    for (auto& known : shares)
      if (known.window == own.window) made = &known;
    static thread_local Room<T> room;
    room.fit(m.dim, dim, shared * QUERIES / TILE);
    const int count = int(made->tasks.size());
#pragma omp for schedule(dynamic, 1)
    for (int t = 0; t < count; t++) {
      if (made->tasks[t].place >= 0) one_part(own, number, made->tasks[t], room);
      else all_parts(own, number, made->tasks[t], room);
    }
    const int few = int(made->begin.size()) * m.heads;
#pragma omp for schedule(static)
    for (int i = 0; i < few; i++) together(*made, i / m.heads, i % m.heads, own.window, room);
  }

  // A part for the heads that share keys: all of one token in one tile, or tile by tile those of several.
  void one_part(const Layer& own, int number, const Task& task, Room<T>& room) {
    const Piece& piece = s.each[task.piece];
    const int low = task.part * PART, count = fetched(own, number, task, task.part, piece.start + task.to, room);
    const bool single = piece.count == 1;
    const float scale = 1 / std::sqrt(float(m.dim));
    for (int b = 0; b < (single ? 1 : shared); b++) {
      const int64_t place = (task.place + b) * TILE;
      const T* from = query + (int64_t(piece.row) * m.heads + task.kv * shared + b) * dim;
      look(from, single ? dim : int64_t(m.heads) * dim, single ? shared : piece.count, since(own, piece.start, low),
           piece.start + 1 - low, !single, count, dim, scale, room, &tops[place], &totals[place]);
      std::copy_n(room.sums.begin(), int64_t(single ? shared : piece.count) * dim, &sums[place * dim]);
    }
  }

  void all_parts(const Layer& own, int number, const Task& task, Room<T>& room) {
    const Piece& piece = s.each[task.piece];
    const int tiles = (task.to - task.from + TILE - 1) / TILE;
    const float scale = 1 / std::sqrt(float(m.dim));
    float top[TILE], total[TILE];
    std::fill(room.done.begin(), room.done.end(), 0.0f), std::fill(room.total.begin(), room.total.end(), 0.0f);
    std::fill(room.most.begin(), room.most.end(), -INFINITY);
    for (int part = task.part; part <= task.last; part++) {
      const int low = part * PART;
      fetched(own, number, task, part, piece.start + task.to, room);
      for (int b = 0; b < shared * tiles; b++) {
        const int from = task.from + b % tiles * TILE, some = std::min(TILE, task.to - from);
        const int place = piece.start + from, count = std::min(PART, up(place + some - low, TILE));
        if (count <= 0) continue;
        look(query + (int64_t(piece.row + from) * m.heads + task.kv * shared + b / tiles) * dim, int64_t(m.heads) * dim,
             some, since(own, place, low), place + 1 - low, 1, count, dim, scale, room, top, total);
        for (int r = 0; r < some; r++)
          put(&room.sums[r * dim], top[r], total[r], &room.done[size_t(b * TILE + r) * dim], &room.most[b * TILE + r],
              &room.total[b * TILE + r], dim);
      }
    }
    for (int b = 0; b < shared * tiles; b++)
      for (int r = 0; r < std::min(TILE, task.to - task.from - b % tiles * TILE); r++)
        tell(&room.done[size_t(b * TILE + r) * dim], room.total[b * TILE + r],
             piece.row + task.from + b % tiles * TILE + r, task.kv * shared + b / tiles);
  }

  // A part's keys and values that anybody here sees; how many positions that is, filled up.
  int fetched(const Layer& own, int number, const Task& task, int part, int stop, Room<T>& room) const {
    const Piece& piece = s.each[task.piece];
    const int low = part * PART, high = std::min(stop, low + PART), count = up(high - low, TILE);
    gather(past_of(own, number, piece, task.kv), std::max(low, earliest(piece.start + task.from, own.window)), low, high,
           count, room, dim);
    return count;
  }

  static int since(const Layer& own, int position, int low) {
    return own.window ? position - own.window + 1 - low : -(1 << 30);
  }

  void together(const auto& made, int p, int head, int window, Room<T>& room) {
    const Piece& piece = s.each[p];
    if (piece.count > SHORT) return;
    const int first = earliest(piece.start, window) / PART, parts = (piece.start + piece.count - 1) / PART - first + 1;
    const bool single = piece.count == 1;
    const int each = single ? 1 : shared, kv = head / shared, h = head % shared;
    for (int r = 0; r < piece.count; r++) {
      float most = -INFINITY, total = 0;
      std::fill_n(room.done.begin(), dim, 0.0f);
      for (int part = 0; part < parts; part++) {
        const int64_t place = (made.begin[p] + (int64_t(kv) * parts + part) * each + (single ? 0 : h)) * TILE +
                              (single ? h : r);
        put(&sums[place * dim], tops[place], totals[place], &room.done[0], &most, &total, dim);
      }
      tell(&room.done[0], total, piece.row + r, head);
    }
  }

  void tell(const float* done, float total, int row, int head) {
    T* to = seen + int64_t(row) * wide_seen + head * m.dim;
    for (int d = 0; d < m.dim; d++) to[d] = narrow<T>(done[d] / total);
  }

  struct Shares {
    int window;
    std::vector<Task> tasks;
    std::vector<int64_t> begin;
    int64_t parts;
  };
  const Model& m;
  const Step& s;
  int shared, dim, rows, wide_in, wide_seen, wide_mid, wide_qkv;
  int64_t most_parts = 0;
  T *state, *x, *qkv, *query, *seen, *mid;
  std::vector<float> angles, sums, tops, totals;
  std::vector<int> owner;
  std::vector<Shares> shares;
};

template <class T>
void alone(const T* rows, int64_t stride, int count, const Weight& by, int few, T* out, int64_t to, int threads) {
#pragma omp parallel num_threads(threads)
  {
    Tiles tiles;
    multiply(rows, stride, count, by, few, out, to, KEEP);
  }
}

// Every page that will be read or written must be there: 0 where one is not, and nothing was written.
template <class T> int step(const Model& model, const Step& step) {
  const int64_t room = step.slots / step.page;
  for (int p = 0; p < step.pieces; p++)
    for (int l = 0; l < model.layers; l++) {
      const Piece& piece = step.each[p];
      const Layer& layer = model.each[l];
      if (l && layer.group == model.each[l - 1].group) continue;
      const int first = layer.window ? std::max(0, piece.start - layer.window + 1) : 0;
      for (int at = first / step.page; at <= (piece.start + piece.count - 1) / step.page; at++) {
        const int32_t page = step.tables[piece.table + int64_t(at) * model.groups + layer.group];
        if (page < 0 || page >= room) return 0;
      }
    }
  Run<T>(model, step).go();
  return 1;
}

}  // namespace

extern "C" {
int step_half(const Model* model, const Step* given) { return step<Half>(*model, *given); }
int step_float(const Model* model, const Step* given) { return step<float>(*model, *given); }
// Rows, and what comes out, lie as many apart as the weight has inputs and outputs, filled up; and there are 32 more.
void multiply_half(const Half* rows, int count, const Weight* by, int few, Half* out, int threads) {
  alone(rows, by->inputs, count, *by, few, out, up(by->outputs, TILE), threads);
}
void multiply_float(const float* rows, int count, const Weight* by, int few, float* out, int threads) {
  alone(rows, by->inputs, count, *by, few, out, up(by->outputs, TILE), threads);
}
void spread_float(const float* row, int size, float warm, const uint8_t* mask, int bits, float* sums, float* tops,
                  Spread* told) {
  const auto go = warm == 1.0f ? mask ? spread<false, true> : spread<false, false>
                  : mask       ? spread<true, true>
                               : spread<true, false>;
  go(row, size, warm, mask, bits, sums, tops, told);
}
}
