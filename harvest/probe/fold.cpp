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

// Whether a segment's only token is held back instead of folded.
bool is_held(const Layer &layer, const Segment &segment) { return segment.length == 1 && layer.capacity > 0; }

// Whether what the slot holds back is folded first: it is full, or more than one token comes after it.
bool is_flushed(const Layer &layer, const Segment &segment) {
    return segment.held > 0 && (!is_held(layer, segment) || segment.held == layer.capacity);
}

template <typename Element>
Element *held_rows(const Layer &layer, int slot) {
    return static_cast<Element *>(layer.held) + slot * layer.capacity * layer.width;
}

template <typename Element>
void fold_segment(const Layer &layer, const Segment &segment, const Rows<Element> rows, int64_t from, int columns) {
    if (is_flushed(layer, segment)) {
        const Rows<Element> old_rows{held_rows<Element>(layer, segment.slot), layer.width, rows.table};
        fold(layer, segment.slot, old_rows, segment.held, segment.before - segment.held, from, columns);
    }
    if (!is_held(layer, segment)) {
        const Rows<Element> new_rows{rows.data + segment.begin * rows.stride, rows.stride, rows.table};
        fold(layer, segment.slot, new_rows, segment.length, segment.before, from, columns);
    }
}

template <typename Element>
void fold_step(const Layer &layer, const Segment *segments, int number, const Rows<Element> rows, int64_t width) {
    const bool folds = std::any_of(segments, segments + number, [&](const Segment &segment) {
        return !is_held(layer, segment) || is_flushed(layer, segment);
    });
    const int64_t tiles = folds ? (width + COLUMNS - 1) / COLUMNS : 0;
#pragma omp parallel for schedule(static)
    for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t from = tile * COLUMNS;
        const int columns = int(std::min<int64_t>(COLUMNS, width - from));
        for (int s = 0; s < number; ++s) fold_segment(layer, segments[s], rows, from, columns);
    }
    // whole rows, after what they replace was folded: a tile's worth at a time would visit every page once a tile
    for (int s = 0; s < number; ++s) {
        const Segment &segment = segments[s];
        if (layer.count) layer.count[segment.slot] += segment.length;
        if (!is_held(layer, segment)) continue;
        const int64_t place = segment.held == layer.capacity ? 0 : segment.held;
        std::copy_n(rows.data + segment.begin * rows.stride, width,
                    held_rows<Element>(layer, segment.slot) + place * layer.width);
    }
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
