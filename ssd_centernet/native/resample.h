// From decoded pixels to the network's input: sampling, colours and normalisation in one pass.
//
// Each step does what functions of ops/ and data/augment/ do, in the same order; results differ by
// rounding. The loops are over planes of floats, which the compiler turns into vector instructions.
#ifndef SSD_CENTERNET_NATIVE_RESAMPLE_H_
#define SSD_CENTERNET_NATIVE_RESAMPLE_H_

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace ssd_centernet {

// Functions with this mark are compiled for several processors, and the one at hand chooses.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#define FOR_EVERY_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EVERY_PROCESSOR
#endif
#define INLINE inline __attribute__((always_inline))

enum class Sampling { kCrop, kLegacy, kHalfPixel, kHalfPixelExact };
enum class Colors { kNone, kJitter, kDistort, kHueFirst };

// The two samples of each position along one side, and the share of the second. -1: the fill.
struct Taps {
  std::vector<int> low, high;
  std::vector<float> share;

  explicit Taps(int count) : low(count, -1), high(count, -1), share(count, 0.0f) {}
};

// One side of the way from the pixels to the result; see `native.render`.
struct Side {
  int pixels, start, length, offset, canvas, scaled, cut, count;
};

// Of a resize, as TensorFlow's kernel and `ssd_vgg._taps` compute them; a canvas repeats its border.
inline Taps ResizeTaps(const Side& side, Sampling sampling, bool align_corners) {
  Taps taps(side.count);
  const int shown = std::min(side.scaled - side.cut, side.count);
  float scale = side.canvas / static_cast<float>(side.scaled);
  if (align_corners && side.scaled > 1) {
    scale = (side.canvas - 1) / static_cast<float>(side.scaled - 1);
  }
  for (int i = 0; i < shown; ++i) {
    const int place = i + side.cut;
    int low, high;
    if (sampling == Sampling::kHalfPixelExact) {
      const double ratio = static_cast<double>(side.canvas) / side.scaled;
      const double position = (place + 0.5) * ratio - 0.5;
      low = static_cast<int>(std::floor(position));
      taps.share[i] = static_cast<float>(position - std::floor(position));
      high = std::clamp(low + 1, 0, side.canvas - 1);
      low = std::clamp(low, 0, side.canvas - 1);
    } else {
      const float position = sampling == Sampling::kHalfPixel
                                 ? (static_cast<float>(place) + 0.5f) * scale - 0.5f
                                 : static_cast<float>(place) * scale;
      const float below = std::floor(position);
      taps.share[i] = position - below;
      high = std::min(static_cast<int>(std::ceil(position)), side.canvas - 1);
      low = std::min(std::max(static_cast<int>(below), 0), high);
    }
    low -= side.offset;
    high -= side.offset;
    taps.low[i] = low >= 0 && low < side.length ? low + side.start : -1;
    taps.high[i] = high >= 0 && high < side.length ? high + side.start : -1;
  }
  return taps;
}

// Of `tf.image.crop_and_resize` between two fractions of a side.
inline Taps CropTaps(const Side& side, float start, float end) {
  Taps taps(side.count);
  const float last = static_cast<float>(side.pixels - 1);
  const float step = side.count > 1 ? (end - start) * last / (side.count - 1) : 0.0f;
  for (int i = 0; i < side.count; ++i) {
    const float position = side.count > 1 ? start * last + i * step : 0.5f * (start + end) * last;
    if (position < 0.0f || position > last) continue;
    const float below = std::floor(position);
    taps.low[i] = static_cast<int>(below);
    taps.high[i] = static_cast<int>(std::ceil(position));
    taps.share[i] = position - below;
  }
  return taps;
}

inline void Mirror(Taps* taps, int pixels, bool picture) {
  if (picture) {
    for (auto* places : {&taps->low, &taps->high}) {
      for (int& place : *places) place = place < 0 ? -1 : pixels - 1 - place;
    }
  } else {
    std::reverse(taps->low.begin(), taps->low.end());
    std::reverse(taps->high.begin(), taps->high.end());
    std::reverse(taps->share.begin(), taps->share.end());
  }
}

// From here to the end no number is NaN, and the sign of a zero is no matter: with this, compilers
// make single instructions of bounds. Nothing is decided here, so that it cannot differ.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("finite-math-only", "no-signed-zeros")
#endif

INLINE float Max(float a, float b) { return a < b ? b : a; }
INLINE float Min(float a, float b) { return b < a ? b : a; }
INLINE float Clip(float value) { return Min(Max(value, 0.0f), 1.0f); }

// A hue in sixths of the circle, on its first round.
INLINE float FirstRound(float sixths) {
  return sixths - 6.0f * __builtin_floorf(sixths * (1.0f / 6.0f));
}

// `ops.color._channels`: red, green and blue of a hue from `FirstRound`.
INLINE void Channels(float hue, float value, float chroma, float& r, float& g, float& b) {
  r = value - chroma * Clip(2.0f - __builtin_fabsf(hue - 3.0f));
  g = value - chroma * Clip(__builtin_fabsf(hue - 2.0f) - 1.0f);
  b = value - chroma * Clip(__builtin_fabsf(hue - 4.0f) - 1.0f);
}

INLINE float Third(float r, float g, float value) {
  return value == r ? 0.0f : (value == g ? 1.0f : 2.0f);
}

INLINE float Rest(float r, float g, float b, float value) {
  const float of_green = value == g ? b - r : r - g;
  return value == r ? g - b : of_green;
}

// `ops.color._saturate_and_turn`.
INLINE void SaturateAndTurn(float& r, float& g, float& b, float saturation, float turn) {
  const float value = Max(Max(r, g), b);
  float chroma = value - Min(Min(r, g), b);
  const float divisor = chroma > 0.0f ? chroma : 1.0f;
  const float sixths = 2.0f * Third(r, g, value) + Rest(r, g, b, value) / divisor + turn;
  chroma = Min(chroma * saturation, Max(value, 0.0f));
  Channels(FirstRound(sixths), value, chroma, r, g, b);
}

// Adds what each of 3 planes sums up to.
INLINE void AddSums(const float* const* planes, int count, double* sums) {
  constexpr int kLanes = 16;
  for (int c = 0; c < 3; ++c) {
    float lanes[kLanes] = {};
    int i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      for (int l = 0; l < kLanes; ++l) lanes[l] += planes[c][i + l];
    }
    for (; i < count; ++i) lanes[0] += planes[c][i];
    for (float lane : lanes) sums[c] += lane;
  }
}

INLINE void Unpack(const uint32_t* __restrict words, int count, float* __restrict r,
                   float* __restrict g, float* __restrict b) {
  for (int i = 0; i < count; ++i) {
    const uint32_t word = words[i];
    r[i] = static_cast<float>(static_cast<int>(word & 255));
    g[i] = static_cast<float>(static_cast<int>((word >> 8) & 255));
    b[i] = static_cast<float>(static_cast<int>((word >> 16) & 255));
  }
}

// The pixels at `columns` of a row, as three planes. Reads a byte beyond the last of them.
FOR_EVERY_PROCESSOR static void FetchAt(const uint8_t* row, const int* columns, int count,
                                        uint32_t* words, float* r, float* g, float* b) {
  for (int i = 0; i < count; ++i) std::memcpy(words + i, row + 3 * columns[i], 4);
  Unpack(words, count, r, g, b);
}

// The first `count` pixels of a row. Reads up to `kBeyond` bytes beyond the last of them.
constexpr int kBeyond = 16;
FOR_EVERY_PROCESSOR static void Fetch(const uint8_t* row, int count, uint32_t* words, float* r,
                                      float* g, float* b) {
  typedef uint8_t Bytes __attribute__((vector_size(16)));
  for (int i = 0; i < count; i += 4) {
    Bytes bytes;
    std::memcpy(&bytes, row + 3 * i, 16);
    // Four pixels of three bytes, each with one more.
#if defined(__clang__)
    bytes = __builtin_shufflevector(bytes, bytes, 0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11,
                                    11);
#else
    bytes = __builtin_shuffle(bytes, Bytes{0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11, 11});
#endif
    std::memcpy(words + i, &bytes, 16);
  }
  Unpack(words, count, r, g, b);
}

// `ops.color.distort` with channels in their own order; values are brightness, contrast before,
// saturation, hue in degrees, contrast after.
FOR_EVERY_PROCESSOR static void Distort(float* __restrict r, float* __restrict g,
 float* __restrict b, int count,
                                        const float* values) {
  constexpr float kEpsilon = 1.1920929e-07f;
  const float brightness = values[0], before = values[1], saturation = values[2];
  const float turn = values[3], after = values[4];
  for (int i = 0; i < count; ++i) {
    const float red = (r[i] + brightness) * before, green = (g[i] + brightness) * before;
    const float blue = (b[i] + brightness) * before;
    const float value = Max(Max(red, green), blue);
    const float chroma = value - Min(Min(red, green), blue);
    float hue = 120.0f * Third(red, green, value) +
                Rest(red, green, blue, value) * (60.0f / (chroma + kEpsilon));
    hue = hue < 0.0f ? hue + 360.0f : hue;
    const float saturated = chroma / (__builtin_fabsf(value) + kEpsilon) * saturation;
    const float first = FirstRound((hue + turn) * (1.0f / 60.0f));
    float new_red, new_green, new_blue;
    Channels(first, value, value * saturated, new_red, new_green, new_blue);
    r[i] = new_red * after;
    g[i] = new_green * after;
    b[i] = new_blue * after;
  }
}

// The first part of `ops.color.hue_first_jitter`; adds what each channel sums up to.
FOR_EVERY_PROCESSOR static void TurnHue(float* __restrict r, float* __restrict g,
 float* __restrict b, int count, float turn,
                                        bool clip, double* sums) {
  constexpr float kPerLevel = 1.0f / 255.0f;
  const float low = clip ? 0.0f : -1e30f, high = clip ? 1.0f : 1e30f;
  for (int i = 0; i < count; ++i) {
    float red = r[i] * kPerLevel, green = g[i] * kPerLevel, blue = b[i] * kPerLevel;
    SaturateAndTurn(red, green, blue, 1.0f, turn);
    r[i] = Min(Max(red, low), high);
    g[i] = Min(Max(green, low), high);
    b[i] = Min(Max(blue, low), high);
  }
  const float* planes[3] = {r, g, b};
  if (sums != nullptr) AddSums(planes, count, sums);
}

// The rest of it; results are in 0..255.
FOR_EVERY_PROCESSOR static void SpreadAndSaturate(float* __restrict r, float* __restrict g,
 float* __restrict b, int count,
                                                  const float* mean, const float* values,
                                                  bool clip) {
  const float low = clip ? 0.0f : -1e30f, high = clip ? 1.0f : 1e30f;
  const float contrast = values[1], saturation = values[2], brightness = values[3];
  const float m0 = mean[0], m1 = mean[1], m2 = mean[2];
  for (int i = 0; i < count; ++i) {
    float red = (r[i] - m0) * contrast + m0;
    float green = (g[i] - m1) * contrast + m1;
    float blue = (b[i] - m2) * contrast + m2;
    red = Min(Max(red, low), high);
    green = Min(Max(green, low), high);
    blue = Min(Max(blue, low), high);
    SaturateAndTurn(red, green, blue, saturation, 0.0f);
    red = Min(Max(red, low), high);
    green = Min(Max(green, low), high);
    blue = Min(Max(blue, low), high);
    r[i] = Clip(red + brightness) * 255.0f;
    g[i] = Clip(green + brightness) * 255.0f;
    b[i] = Clip(blue + brightness) * 255.0f;
  }
}

// `ops.color.jitter` after its mean: brightness, contrast, saturation, hue.
FOR_EVERY_PROCESSOR static void Jitter(float* __restrict r, float* __restrict g,
 float* __restrict b, int count, const float* mean,
                                       const float* values) {
  const float contrast = values[1], saturation = values[2], turn = 6.0f * values[3];
  const float m0 = mean[0], m1 = mean[1], m2 = mean[2];
  const float s0 = m0 + values[0], s1 = m1 + values[0], s2 = m2 + values[0];
  for (int i = 0; i < count; ++i) {
    float red = (r[i] - m0) * contrast + s0;
    float green = (g[i] - m1) * contrast + s1;
    float blue = (b[i] - m2) * contrast + s2;
    SaturateAndTurn(red, green, blue, saturation, turn);
    r[i] = red;
    g[i] = green;
    b[i] = blue;
  }
}

FOR_EVERY_PROCESSOR static void Blend(const float* __restrict low, const float* __restrict high,
                                      const float* __restrict share, int count,
                                      float* __restrict result) {
  for (int i = 0; i < count; ++i) result[i] = low[i] + (high[i] - low[i]) * share[i];
}

FOR_EVERY_PROCESSOR static void BlendAt(const float* __restrict plane, const int* __restrict low,
                                        const int* __restrict high, const float* __restrict share,
                                        int count, float* __restrict result) {
  for (int i = 0; i < count; ++i) {
    const float near = plane[low[i]];
    result[i] = near + (plane[high[i]] - near) * share[i];
  }
}

#if defined(__x86_64__) && defined(__GNUC__)
// `BlendAt`, where the samples of each 16 results lie in 32 columns from `base` on: these are loaded
// as a whole and permuted. Blocks of base -1 are left out.
__attribute__((target("avx512f"))) static void BlendBlocks(const float* plane, const int* low,
                                                           const int* high, const float* share,
                                                           const int* base, int blocks,
                                                           float* result) {
  for (int k = 0; k < blocks; ++k) {
    if (base[k] < 0) continue;
    const __m512i first = _mm512_set1_epi32(base[k]);
    const __m512 left = _mm512_loadu_ps(plane + base[k]);
    const __m512 right = _mm512_loadu_ps(plane + base[k] + 16);
    const __m512i near_at = _mm512_sub_epi32(_mm512_loadu_si512(low + 16 * k), first);
    const __m512i far_at = _mm512_sub_epi32(_mm512_loadu_si512(high + 16 * k), first);
    const __m512 near = _mm512_permutex2var_ps(left, near_at, right);
    const __m512 far = _mm512_permutex2var_ps(left, far_at, right);
    const __m512 step = _mm512_mul_ps(_mm512_sub_ps(far, near), _mm512_loadu_ps(share + 16 * k));
    _mm512_storeu_ps(result + 16 * k, _mm512_add_ps(near, step));
  }
}

inline bool HasBlendBlocks() { return __builtin_cpu_supports("avx512f"); }
#else
inline void BlendBlocks(const float*, const int*, const int*, const float*, const int*, int,
                        float*) {}
inline bool HasBlendBlocks() { return false; }
#endif

FOR_EVERY_PROCESSOR static void BlendRows(const float* __restrict low, const float* __restrict high,
                                          float share, int count, float* __restrict result) {
  for (int i = 0; i < count; ++i) result[i] = low[i] + (high[i] - low[i]) * share;
}

FOR_EVERY_PROCESSOR static void ScaleAndSum(float* planes, int count, float factor, double* sums) {
  for (int i = 0; i < 3 * count; ++i) planes[i] *= factor;
  const float* each[3] = {planes, planes + count, planes + 2 * count};
  AddSums(each, count, sums);
}

// (value / divisor - mean) * factor, of planes to pixels; `order` says which plane comes where.
FOR_EVERY_PROCESSOR static void Normalize(const float* __restrict first,
                                          const float* __restrict second,
                                          const float* __restrict third, int count, float divisor,
                                          const float* mean, const float* factor,
                                          float* __restrict result) {
  const float m0 = mean[0], m1 = mean[1], m2 = mean[2];
  const float f0 = factor[0], f1 = factor[1], f2 = factor[2];
  const float inverse = 1.0f / divisor;
  for (int i = 0; i < count; ++i) {
    result[3 * i] = (first[i] * inverse - m0) * f0;
    result[3 * i + 1] = (second[i] * inverse - m1) * f1;
    result[3 * i + 2] = (third[i] * inverse - m2) * f2;
  }
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif

// What `Render` does; the same for all images of a chain.
struct Settings {
  int height, width;
  Sampling sampling;
  Colors colors;
  bool clip_each, mirror_picture;
  float divisor;
  std::array<float, 3> fill, mean, factor;
  bool reverse;  // BGR
};

// Pixels of three bytes; `stride` is from row to row in bytes.
struct Picture {
  const uint8_t* pixels;
  int height, width;
  size_t stride;

  const uint8_t* row(int y) const { return pixels + stride * y; }
};

// Rows of the picture, sampled along the columns, as they are asked for.
class SampledRows {
 public:
  SampledRows(const Settings& settings, const Picture& picture, const Taps& columns,
              const float* values)
      : settings_(settings), picture_(picture), values_(values),
        count_(static_cast<int>(columns.low.size())), columns_(columns) {
    // The last pixels have nothing behind them, so the last row is copied.
    const size_t bytes = 3 * static_cast<size_t>(picture.width);
    last_row_.resize(bytes + kBeyond);
    if (picture.height > 0 && picture.width > 0) {
      std::memcpy(last_row_.data(), picture.row(picture.height - 1), bytes);
    }
    ChooseColumns();
    for (auto& row : rows_) row.resize(3 * static_cast<size_t>(count_));
    fill_.resize(3 * static_cast<size_t>(count_));
    for (int c = 0; c < 3; ++c) {
      std::fill_n(fill_.begin() + c * count_, count_, settings.fill[c]);
    }
    if (settings.colors == Colors::kHueFirst) FindMean();
  }

  // Three planes of `count` values of a row; -1 is a row of the fill. Valid until the next but one.
  const float* Get(int y) {
    if (y < 0) return fill_.data();
    for (int k = 0; k < 2; ++k) {
      if (held_[k] == y) {
        next_ = 1 - k;
        return rows_[k].data();
      }
    }
    const int k = next_;
    Sample(y, rows_[k].data());
    held_[k] = y;
    next_ = 1 - k;
    return rows_[k].data();
  }

 private:
  // Either each sample of the result is read, or, if these are more, all columns between them.
  void ChooseColumns() {
    int first = picture_.width, last = -1;
    for (const auto* places : {&columns_.low, &columns_.high}) {
      for (int place : *places) {
        if (place < 0) continue;
        first = std::min(first, place);
        last = std::max(last, place);
      }
    }
    const int span = std::max(last - first + 1, 0);
    const bool colored =
        settings_.colors != Colors::kNone && settings_.colors != Colors::kJitter;
    by_span_ = span < 2 * count_ && (colored || HasBlendBlocks());
    if (by_span_) {
      first_ = first;
      span_ = span;
      for (auto* places : {&columns_.low, &columns_.high}) {
        for (int& place : *places) place = place < 0 ? span : place - first;
      }
    } else {
      for (const auto* places : {&columns_.low, &columns_.high}) {
        for (int place : *places) read_.push_back(place);
      }
      for (int i = 0; i < 2 * count_; ++i) {
        if (read_[i] < 0) outside_.push_back(i);
      }
      for (int i : outside_) read_[i] = 0;
      if (last < 0) read_.assign(read_.size(), 0);
    }
    FindBlocks();
    // The whole row for `FindMean`, and what is loaded together.
    const size_t most = std::max(2 * count_, picture_.width) + 33;
    words_.resize(most);
    for (auto& plane : planes_) plane.resize(most);
  }

  // Finds the blocks of 16 results that `BlendBlocks` can make.
  void FindBlocks() {
    if (!by_span_ || !HasBlendBlocks()) return;
    for (int i = 0; i + 16 <= count_; i += 16) {
      int first = span_, last = 0;
      for (const auto* places : {&columns_.low, &columns_.high}) {
        const auto bounds = std::minmax_element(places->begin() + i, places->begin() + i + 16);
        first = std::min(first, *bounds.first);
        last = std::max(last, *bounds.second);
      }
      bases_.push_back(last - first < 32 ? first : -1);
    }
  }

  void BlendColumns(const float* plane, float* out) const {
    const int *low = columns_.low.data(), *high = columns_.high.data();
    const float* share = columns_.share.data();
    const int blocks = static_cast<int>(bases_.size());
    BlendBlocks(plane, low, high, share, bases_.data(), blocks, out);
    for (int k = 0; k < blocks; ++k) {
      const int i = 16 * k;
      if (bases_[k] < 0) BlendAt(plane, low + i, high + i, share + i, 16, out + i);
    }
    const int i = 16 * blocks;
    BlendAt(plane, low + i, high + i, share + i, count_ - i, out + i);
  }

  const uint8_t* Row(int y) const {
    return y == picture_.height - 1 ? last_row_.data() : picture_.row(y);
  }

  void FindMean() {
    double sums[3] = {};
    float *r = planes_[0].data(), *g = planes_[1].data(), *b = planes_[2].data();
    for (int y = 0; y < picture_.height; ++y) {
      Fetch(Row(y), picture_.width, words_.data(), r, g, b);
      TurnHue(r, g, b, picture_.width, 6.0f * values_[0], settings_.clip_each, sums);
    }
    const double pixels = static_cast<double>(picture_.height) * picture_.width;
    for (int c = 0; c < 3; ++c) mean_[c] = static_cast<float>(sums[c] / pixels);
  }

  void Sample(int y, float* result) {
    float *r = planes_[0].data(), *g = planes_[1].data(), *b = planes_[2].data();
    const int number = by_span_ ? span_ : 2 * count_;
    if (by_span_) {
      Fetch(Row(y) + 3 * first_, number, words_.data(), r, g, b);
    } else {
      FetchAt(Row(y), read_.data(), number, words_.data(), r, g, b);
    }
    const float* planes[3] = {r, g, b};
    if (settings_.colors == Colors::kDistort) {
      static constexpr int kOrders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                            {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
      Distort(r, g, b, number, values_);
      const int* order = kOrders[static_cast<int>(values_[5])];
      for (int c = 0; c < 3; ++c) planes[c] = planes_[order[c]].data();
    } else if (settings_.colors == Colors::kHueFirst) {
      TurnHue(r, g, b, number, 6.0f * values_[0], settings_.clip_each, nullptr);
      SpreadAndSaturate(r, g, b, number, mean_, values_, settings_.clip_each);
    }
    for (int c = 0; c < 3; ++c) {
      float* plane = const_cast<float*>(planes[c]);
      float* out = result + c * count_;
      if (by_span_) {
        plane[number] = settings_.fill[c];
        BlendColumns(plane, out);
      } else {
        for (int i : outside_) plane[i] = settings_.fill[c];
        Blend(plane, plane + count_, columns_.share.data(), count_, out);
      }
    }
  }

  const Settings& settings_;
  const Picture picture_;
  const float* values_;
  const int count_;
  Taps columns_;
  bool by_span_ = false;
  int first_ = 0, span_ = 0;
  std::vector<int> read_, outside_, bases_;
  std::vector<uint8_t> last_row_;
  std::vector<uint32_t> words_;
  std::vector<float> planes_[3], rows_[2], fill_;
  float mean_[3] = {};
  int held_[2] = {-1, -1}, next_ = 0;
};

// Writes [height, width, 3] to `result`. `rows` and `columns` are taps on the pixels.
inline void Render(const Settings& settings, const Picture& picture, const Taps& rows,
                   const Taps& columns, const float* values, float* result) {
  const int count = settings.width;
  SampledRows source(settings, picture, columns, values);
  const bool jitter = settings.colors == Colors::kJitter;
  // Jitter asks for the mean of the whole result before its first pixel.
  std::vector<float> kept(3 * static_cast<size_t>(count) * (jitter ? settings.height : 1));
  double sums[3] = {};
  const int order[3] = {settings.reverse ? 2 : 0, 1, settings.reverse ? 0 : 2};
  const auto finish = [&](const float* planes, int y) {
    Normalize(planes + order[0] * count, planes + count, planes + order[2] * count, count,
              jitter ? 1.0f : settings.divisor, settings.mean.data(), settings.factor.data(),
              result + 3 * static_cast<size_t>(count) * y);
  };
  for (int y = 0; y < settings.height; ++y) {
    float* planes = kept.data() + (jitter ? 3 * static_cast<size_t>(count) * y : 0);
    const float* low = source.Get(rows.low[y]);
    const float* high =
        rows.share[y] == 0.0f || rows.high[y] == rows.low[y] ? low : source.Get(rows.high[y]);
    BlendRows(low, high, rows.share[y], 3 * count, planes);
    if (jitter) {
      ScaleAndSum(planes, count, 1.0f / settings.divisor, sums);
    } else {
      finish(planes, y);
    }
  }
  if (!jitter) return;
  const double number = static_cast<double>(settings.height) * count;
  float mean[3];
  for (int c = 0; c < 3; ++c) mean[c] = static_cast<float>(sums[c] / number);
  for (int y = 0; y < settings.height; ++y) {
    float* planes = kept.data() + 3 * static_cast<size_t>(count) * y;
    Jitter(planes, planes + count, planes + 2 * count, count, mean, values);
    finish(planes, y);
  }
}

}  // namespace ssd_centernet

#endif  // SSD_CENTERNET_NATIVE_RESAMPLE_H_
