// Fold a step's activations into the slots of one layer: the CPU's fast form of harvest.probe.fold.
//
// Each segment is a stretch of consecutive tokens of one request. Its tokens are taken in micro-batches that stay in
// the first-level cache: fp32 sums around the micro-batch's own fp32 mean, merged into the slot's fp64 moments by
// Chan's formula. Columns are independent, so the compiler puts them side by side and threads share them out.

#include <algorithm>
#include <cstdint>

namespace {

constexpr int ROWS = 32;      // tokens of a micro-batch
constexpr int COLUMNS = 128;  // neurons of a tile: 32 x 128 floats are 16 KiB

struct Segment {
    int32_t begin, length, slot, held, before;
};

struct Layer {
    double *mean, *m2;                // (slots, width)
    float *low, *high;                // (slots, width)
    int32_t *positive, *peak;         // (slots, width)
    int64_t *count;                   // (slots); null: not to be counted again
    void *held;                       // (slots, capacity, width)
    int64_t width, capacity;
};

struct Source {
    const void *data;                 // the first token's first neuron
    int64_t stride;                   // elements between tokens
    const float *table;               // activation by the 16 bits of a gate; null: data are activations
};

inline float widen(float x, const float *) { return x; }
inline float widen(uint16_t bits, const float *table) { return table[bits]; }

template <typename Element>
struct Rows {
    const Element *data;
    int64_t stride;
    const float *table;
};

// Merges `number` tokens, of which `before` tokens of the same slot were folded already, in `columns` <= COLUMNS neurons.
template <typename Element>
void fold_tile(const Rows<Element> rows, int number, int before, int columns, double *__restrict mean, double *__restrict m2,
               float *__restrict low, float *__restrict high, int32_t *__restrict positive, int32_t *__restrict peak) {
    alignas(64) float x[ROWS][COLUMNS];
    // the arithmetic runs over whole tiles
    if (columns < COLUMNS) std::fill_n(&x[0][0], ROWS * COLUMNS, 0.0f);
    for (int start = 0; start < number; start += ROWS) {
        const int n = std::min(ROWS, number - start);
        alignas(64) float sum[COLUMNS] = {}, least[COLUMNS], most[COLUMNS], first[COLUMNS] = {}, second[COLUMNS] = {};
        alignas(64) int32_t on[COLUMNS] = {}, at[COLUMNS] = {};
        const Element *row = rows.data + start * rows.stride;
        for (int r = 0; r < n; ++r, row += rows.stride)
            for (int c = 0; c < columns; ++c) x[r][c] = widen(row[c], rows.table);
        for (int c = 0; c < COLUMNS; ++c) least[c] = most[c] = x[0][c];
        for (int r = 0; r < n; ++r) {
            for (int c = 0; c < COLUMNS; ++c) {
                const float value = x[r][c];
                sum[c] += value;
                least[c] = value < least[c] ? value : least[c];
                at[c] = value > most[c] ? r : at[c];
                most[c] = value > most[c] ? value : most[c];
                on[c] += value > 0.0f;
            }
        }
        const float share = 1.0f / n;
        for (int c = 0; c < COLUMNS; ++c) sum[c] *= share;
        for (int r = 0; r < n; ++r) {
            for (int c = 0; c < COLUMNS; ++c) {
                const float from_mean = x[r][c] - sum[c];
                first[c] += from_mean;
                second[c] += from_mean * from_mean;
            }
        }
        const double num = n, old = before + start, part = num / (old + num), weight = old * part, each = 1.0 / num;
        for (int c = 0; c < columns; ++c) {
            // comparisons step over a NaN, sums keep it
            const bool constant = least[c] == most[c] && first[c] == first[c];
            const double rest = first[c], here = constant ? double(least[c]) : double(sum[c]) + rest * each;
            const double spread = double(second[c]) - rest * rest * each;
            const double delta = here - mean[c];
            mean[c] = old == 0 ? here : mean[c] + delta * part;
            m2[c] += (constant || spread < 0 ? 0.0 : spread) + delta * delta * weight;
        }
        for (int c = 0; c < columns; ++c) {
            low[c] = least[c] < low[c] ? least[c] : low[c];
            peak[c] = most[c] > high[c] ? before + start + at[c] : peak[c];
            high[c] = most[c] > high[c] ? most[c] : high[c];
            positive[c] += on[c];
        }
    }
}

template <typename Element>
void fold(const Layer &layer, int slot, Rows<Element> rows, int number, int before, int64_t from, int columns) {
    const int64_t at = slot * layer.width + from;
    rows.data += from;
    fold_tile(rows, number, before, columns, layer.mean + at, layer.m2 + at, layer.low + at, layer.high + at,
              layer.positive + at, layer.peak + at);
}

template <typename Element>
void fold_segment(const Layer &layer, const Segment &segment, const Rows<Element> rows, int64_t from, int columns) {
    auto *held = static_cast<Element *>(layer.held) + segment.slot * layer.capacity * layer.width;
    const Rows<Element> new_rows{rows.data + segment.begin * rows.stride, rows.stride, rows.table};
    const bool hold = segment.length == 1 && layer.capacity > 0;
    const bool full = segment.held == layer.capacity;
    if (segment.held > 0 && (!hold || full)) {
        const Rows<Element> old_rows{held, layer.width, rows.table};
        fold(layer, segment.slot, old_rows, segment.held, segment.before - segment.held, from, columns);
    }
    if (!hold) {
        fold(layer, segment.slot, new_rows, segment.length, segment.before, from, columns);
        return;
    }
    Element *place = held + (full ? 0 : segment.held) * layer.width + from;
    std::copy_n(new_rows.data + from, columns, place);
}

template <typename Element>
void fold_step(const Layer &layer, const Segment *segments, int number, const Rows<Element> rows, int64_t width) {
    const int64_t tiles = (width + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for schedule(static)
    for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t from = tile * COLUMNS;
        const int columns = int(std::min<int64_t>(COLUMNS, width - from));
        for (int s = 0; s < number; ++s) fold_segment(layer, segments[s], rows, from, columns);
    }
    if (!layer.count) return;
    for (int s = 0; s < number; ++s) layer.count[segments[s].slot] += segments[s].length;
}

}  // namespace

extern "C" void value_harvest_fold(const Layer *layer, const Segment *segments, int32_t number, const Source *source,
                                   int64_t width) {
    if (source->table)
        fold_step(*layer, segments, number,
                  Rows<uint16_t>{static_cast<const uint16_t *>(source->data), source->stride, source->table}, width);
    else
        fold_step(*layer, segments, number,
                  Rows<float>{static_cast<const float *>(source->data), source->stride, nullptr}, width);
}
