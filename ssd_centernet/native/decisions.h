// The search for crops and the matching of anchors: bit for bit what the graphs of
// data/augment/ssd.py, data/augment/overlap_crop.py and ops/matching.py decide.
//
// Each operation rounds as theirs does, so it must not be compiled with -ffast-math, nor with
// products and sums contracted.
#ifndef SSD_CENTERNET_NATIVE_DECISIONS_H_
#define SSD_CENTERNET_NATIVE_DECISIONS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "resample.h"

namespace ssd_centernet {

// Numbers of `tf.random.stateless_uniform` on a CPU: Philox 4x32-10, whose key and counter are the
// seed, scrambled by one more Philox.
class Uniforms {
 public:
  Uniforms(int64_t first, int64_t second) {
    uint32_t counter[4] = {Low(first), High(first), Low(second), High(second)};
    uint32_t key[2] = {0x3ec8f720u, 0x02461e29u};
    uint32_t mixed[4];
    Philox(counter, key, mixed);
    key_[0] = mixed[0];
    key_[1] = mixed[1];
    counter_[2] = mixed[2];
    counter_[3] = mixed[3];
  }

  // The numbers from a multiple of four on.
  void Fill(int start, int count, float* result) const {
    uint32_t counter[4] = {0, 0, counter_[2], counter_[3]};
    // 64 bits are enough: searches draw thousands.
    counter[0] = static_cast<uint32_t>(start / 4);
    for (int i = 0; i < count; i += 4, ++counter[0]) {
      uint32_t bits[4];
      Philox(counter, key_, bits);
      for (int k = 0; k < 4 && i + k < count; ++k) {
        const uint32_t word = (bits[k] & 0x7fffffu) | (127u << 23);
        float number;
        std::memcpy(&number, &word, 4);
        result[i + k] = number - 1.0f;
      }
    }
  }

 private:
  static uint32_t Low(int64_t value) { return static_cast<uint32_t>(value); }
  static uint32_t High(int64_t value) { return static_cast<uint32_t>(value >> 32); }

  static void Philox(const uint32_t* counter, const uint32_t* key, uint32_t* result) {
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]};
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; ++round) {
      const uint64_t a = static_cast<uint64_t>(0xD2511F53u) * c[0];
      const uint64_t b = static_cast<uint64_t>(0xCD9E8D57u) * c[2];
      const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ k0,
                                static_cast<uint32_t>(b),
                                static_cast<uint32_t>(a >> 32) ^ c[3] ^ k1,
                                static_cast<uint32_t>(a)};
      std::memcpy(c, next, sizeof(c));
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    std::memcpy(result, c, sizeof(c));
  }

  uint32_t key_[2], counter_[4] = {};
};

struct Box {
  float ymin, xmin, ymax, xmax;
};

INLINE float Area(const Box& box) { return (box.ymax - box.ymin) * (box.xmax - box.xmin); }

INLINE float Positive(float value) { return value > 0.0f ? value : 0.0f; }

INLINE float Intersection(const Box& a, const Box& b) {
  return Positive(std::min(a.ymax, b.ymax) - std::max(a.ymin, b.ymin)) *
         Positive(std::min(a.xmax, b.xmax) - std::max(a.xmin, b.xmin));
}

INLINE float Iou(const Box& a, const Box& b) {
  const float intersection = Intersection(a, b);
  const float all = Area(a) + Area(b) - intersection;
  return all == 0.0f ? 0.0f : intersection / all;
}

struct Search {
  bool in_pixels;  // `overlap_crop.sample_crop`; otherwise `ssd.sample_crop`
  std::vector<float> min_ious;
  float no_crop_probability, min_extent, spread, max_aspect, min_aspect;
};

constexpr int kProposals = 50, kAttemptsPerTurn = 4, kMaxTurns = 250;

INLINE bool CenterInside(const Box& box, const Box& window) {
  const float y = (box.ymin + box.ymax) * 0.5f, x = (box.xmin + box.xmax) * 0.5f;
  return window.ymin < y && y < window.ymax && window.xmin < x && x < window.xmax;
}

// Whether every box overlaps the window enough, and the centre of one lies in it.
inline bool Accepts(const Search& search, const Box* boxes, int64_t count, const Box& window,
                    float min_iou) {
  bool centered = count == 0;
  for (int64_t i = 0; i < count; ++i) {
    const float overlap = Iou(window, boxes[i]);
    if (!(search.in_pixels ? overlap >= min_iou : overlap > min_iou)) return false;
    centered = centered || CenterInside(boxes[i], window);
  }
  return centered;
}

inline bool ProposalOfFractions(const Search& search, const float* draws, int number, Box* window) {
  float extents[2], offsets[2];
  for (int k = 0; k < 2; ++k) {
    extents[k] = draws[k * kProposals + number] * search.spread + search.min_extent;
    offsets[k] = draws[(2 + k) * kProposals + number] * (1.0f - extents[k]);
  }
  *window = {offsets[0], offsets[1], offsets[0] + extents[0], offsets[1] + extents[1]};
  const float height = window->ymax - window->ymin, width = window->xmax - window->xmin;
  return width / height < search.max_aspect && height / width < search.max_aspect;
}

inline bool ProposalOfPixels(const Search& search, const float* draws, int number,
                             const float* sides, Box* window) {
  float starts[2], ends[2];
  for (int k = 0; k < 2; ++k) {
    const float extent = sides[k] * (search.min_extent + search.spread * draws[4 * number + k]);
    starts[k] = draws[4 * number + 2 + k] * (sides[k] - extent);
    ends[k] = starts[k] + extent;
  }
  const float ratio = (ends[0] - starts[0]) / (ends[1] - starts[1]);
  *window = {std::floor(starts[0]), std::floor(starts[1]), std::floor(ends[0]),
             std::floor(ends[1])};
  return ratio >= search.min_aspect && ratio <= search.max_aspect &&
         window->ymax > window->ymin && window->xmax > window->xmin;
}

// Finds a window; `bound` is 1 and the window `everything` where the whole picture is kept.
inline void FindCrop(const Search& search, const Box* boxes, int64_t count, const Box& everything,
                     int64_t seed0, int64_t seed1, Box* chosen, float* bound, bool* whole) {
  constexpr int kDraws = 2 + 4 * kProposals;
  const float sides[2] = {everything.ymax, everything.xmax};
  std::vector<float> all(kAttemptsPerTurn * kDraws);
  *chosen = everything;
  *bound = 1.0f;
  *whole = true;
  for (int turn = 0; turn < kMaxTurns; ++turn) {
    const Uniforms uniforms(seed0, seed1 + turn);
    uniforms.Fill(0, static_cast<int>(all.size()), all.data());
    for (int attempt = 0; attempt < kAttemptsPerTurn; ++attempt) {
      const float* draws = all.data() + attempt * kDraws;
      if (draws[0] < search.no_crop_probability) return;
      const float number = static_cast<float>(search.min_ious.size());
      const float min_iou = search.min_ious[static_cast<int>(draws[1] * number)];
      for (int n = 0; n < kProposals; ++n) {
        Box window;
        // The last of fractions counts, and the first of pixels.
        const bool shaped =
            search.in_pixels ? ProposalOfPixels(search, draws + 2, n, sides, &window)
                             : ProposalOfFractions(search, draws + 2, kProposals - 1 - n, &window);
        if (!shaped || !Accepts(search, boxes, count, window, min_iou)) continue;
        *chosen = window;
        *bound = min_iou;
        *whole = false;
        return;
      }
    }
  }
}

// Anchors as four planes and their areas.
struct Anchors {
  int count;
  std::vector<float> ymin, xmin, ymax, xmax, area;

  explicit Anchors(const Box* boxes, int number)
      : count(number), ymin(number), xmin(number), ymax(number), xmax(number), area(number) {
    for (int i = 0; i < number; ++i) {
      ymin[i] = boxes[i].ymin;
      xmin[i] = boxes[i].xmin;
      ymax[i] = boxes[i].ymax;
      xmax[i] = boxes[i].xmax;
      area[i] = Area(boxes[i]);
    }
  }
};

// Overlaps of one box with all anchors; keeps the best row of each, the first of equal ones.
FOR_EVERY_PROCESSOR static void UpdateBest(const float* __restrict ymin,
                                           const float* __restrict xmin,
                                           const float* __restrict ymax,
                                           const float* __restrict xmax,
                                           const float* __restrict area, int count, const Box& box,
                                           int row, float* __restrict overlaps,
                                           float* __restrict best, int* __restrict rows) {
  const float own = Area(box);
  const float top = box.ymin, left = box.xmin, bottom = box.ymax, right = box.xmax;
  for (int i = 0; i < count; ++i) {
    const float height = Positive(std::min(bottom, ymax[i]) - std::max(top, ymin[i]));
    const float width = Positive(std::min(right, xmax[i]) - std::max(left, xmin[i]));
    const float intersection = height * width;
    const float all = own + area[i] - intersection;
    const float quotient = intersection / (all == 0.0f ? 1.0f : all);
    const float overlap = all == 0.0f ? 0.0f : quotient;
    overlaps[i] = overlap;
    rows[i] = overlap > best[i] ? row : rows[i];
    best[i] = overlap > best[i] ? overlap : best[i];
  }
}

FOR_EVERY_PROCESSOR static float Largest(const float* values, int count) {
  constexpr int kLanes = 16;
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, -std::numeric_limits<float>::infinity());
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] = values[i + l] > lanes[l] ? values[i + l] : lanes[l];
  }
  for (; i < count; ++i) lanes[0] = std::max(lanes[0], values[i]);
  return *std::max_element(lanes, lanes + kLanes);
}

struct Matching {
  float threshold;
  bool last_claim_wins;
};

// `matching.match`: -1 for background.
inline void Match(const Matching& matching, const Anchors& anchors, const Box* boxes, int number,
                  const bool* counted, const bool* forced, int* matches) {
  const int count = anchors.count;
  std::vector<float> overlaps(count), best(count, -std::numeric_limits<float>::infinity());
  std::vector<int> rows(count, -1), claims(count, -1);
  for (int row = 0; row < number; ++row) {
    // Rows that do not count are below every real overlap, and claim nothing.
    if (!counted[row]) continue;
    UpdateBest(anchors.ymin.data(), anchors.xmin.data(), anchors.ymax.data(), anchors.xmax.data(),
               anchors.area.data(), count, boxes[row], row, overlaps.data(), best.data(),
               rows.data());
    if (!forced[row] || count == 0) continue;
    const float most = Largest(overlaps.data(), count);
    const auto place = std::find(overlaps.begin(), overlaps.end(), most) - overlaps.begin();
    if (place < count && (matching.last_claim_wins || claims[place] < 0)) claims[place] = row;
  }
  for (int i = 0; i < count; ++i) {
    matches[i] = claims[i] >= 0 ? claims[i] : (best[i] >= matching.threshold ? rows[i] : -1);
  }
}

// `boxes.encode` of one anchor.
inline void Encode(const Box& box, const Box& anchor, const float* factors, float* code) {
  constexpr float kEpsilon = 1e-8f;
  const float size[2] = {box.ymax - box.ymin, box.xmax - box.xmin};
  const float anchor_size[2] = {anchor.ymax - anchor.ymin, anchor.xmax - anchor.xmin};
  const float corner[2] = {box.ymin, box.xmin}, anchor_corner[2] = {anchor.ymin, anchor.xmin};
  for (int k = 0; k < 2; ++k) {
    const float center = corner[k] + size[k] / 2.0f;
    const float anchor_center = anchor_corner[k] + anchor_size[k] / 2.0f;
    const float divisor = anchor_size[k] + kEpsilon;
    code[k] = factors[k] * (center - anchor_center) / divisor;
    code[2 + k] = factors[2 + k] * std::log((size[k] + kEpsilon) / divisor);
  }
}

// `matching.inside_regions` of one anchor.
inline bool MostlyInside(const Box& anchor, const Box* regions, int number, const bool* counted) {
  const float area = Area(anchor);
  if (!(area > 0.0f)) return false;
  for (int i = 0; i < number; ++i) {
    if (counted[i] && Intersection(anchor, regions[i]) >= 0.5f * area) return true;
  }
  return false;
}

}  // namespace ssd_centernet

#endif  // SSD_CENTERNET_NATIVE_DECISIONS_H_
