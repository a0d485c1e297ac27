// TensorFlow operations of the input pipeline; see native/__init__.py, which calls them.

#include "decisions.h"
#include "resample.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace ssd_centernet {
namespace {

using tensorflow::errors::InvalidArgument;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::DEVICE_CPU;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
// TensorFlow's own class until 2.12, Abseil's later; made from nothing it says that all is well.
using Status = decltype(InvalidArgument(""));

REGISTER_OP("SsdCenternetRender")
    .Input("pixels: uint8")
    .Input("window: int32")
    .Input("places: int32")
    .Input("box: float")
    .Input("colors: float")
    .Input("flip: bool")
    .Output("image: float")
    .Attr("height: int >= 1")
    .Attr("width: int >= 1")
    .Attr("sampling: {'crop', 'legacy', 'half_pixel', 'half_pixel_exact'}")
    .Attr("color_kind: {'none', 'jitter', 'distort', 'hue_first'}")
    .Attr("clip_each: bool")
    .Attr("mirror_picture: bool")
    .Attr("fill: list(float) >= 3")
    .Attr("divisor: float")
    .Attr("mean: list(float) >= 3")
    .Attr("factor: list(float) >= 3")
    .Attr("reverse: bool")
    .SetShapeFn([](InferenceContext* context) {
      int height = 0, width = 0;
      TF_RETURN_IF_ERROR(context->GetAttr("height", &height));
      TF_RETURN_IF_ERROR(context->GetAttr("width", &width));
      context->set_output(0, context->MakeShape({height, width, 3}));
      return Status();
    });

class RenderOp : public OpKernel {
 public:
  explicit RenderOp(OpKernelConstruction* context) : OpKernel(context) {
    std::string sampling, colors;
    OP_REQUIRES_OK(context, context->GetAttr("height", &settings_.height));
    OP_REQUIRES_OK(context, context->GetAttr("width", &settings_.width));
    OP_REQUIRES_OK(context, context->GetAttr("sampling", &sampling));
    OP_REQUIRES_OK(context, context->GetAttr("color_kind", &colors));
    OP_REQUIRES_OK(context, context->GetAttr("clip_each", &settings_.clip_each));
    OP_REQUIRES_OK(context, context->GetAttr("mirror_picture", &settings_.mirror_picture));
    OP_REQUIRES_OK(context, context->GetAttr("divisor", &settings_.divisor));
    OP_REQUIRES_OK(context, context->GetAttr("reverse", &settings_.reverse));
    Read(context, "fill", &settings_.fill);
    Read(context, "mean", &settings_.mean);
    Read(context, "factor", &settings_.factor);
    settings_.sampling = sampling == "crop"         ? Sampling::kCrop
                         : sampling == "legacy"     ? Sampling::kLegacy
                         : sampling == "half_pixel" ? Sampling::kHalfPixel
                                                    : Sampling::kHalfPixelExact;
    settings_.colors = colors == "jitter"    ? Colors::kJitter
                       : colors == "distort" ? Colors::kDistort
                       : colors == "none"    ? Colors::kNone
                                             : Colors::kHueFirst;
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& pixels = context->input(0);
    OP_REQUIRES(context, pixels.dims() == 3 && pixels.dim_size(2) == 3,
                InvalidArgument("pixels must be [h, w, 3], got ", pixels.shape().DebugString()));
    constexpr int kSizes[] = {4, 12, 4, 6, 1};
    for (int k = 0; k < 5; ++k) {
      OP_REQUIRES(context, context->input(1 + k).NumElements() == kSizes[k],
                  InvalidArgument("expected ", kSizes[k], " numbers in input ", 1 + k, ", got ",
                                  context->input(1 + k).shape().DebugString()));
    }
    const int* window = context->input(1).flat<int>().data();
    const int* places = context->input(2).flat<int>().data();
    const float* box = context->input(3).flat<float>().data();
    const float* values = context->input(4).flat<float>().data();
    const bool flip = context->input(5).flat<bool>()(0);
    const int sides[2] = {window[2], window[3]};
    for (int k = 0; k < 2; ++k) {
      OP_REQUIRES(context,
                  window[k] >= 0 && sides[k] >= 0 && window[k] + sides[k] <= pixels.dim_size(k),
                  InvalidArgument("a window of ", sides[k], " from ", window[k], " on in pixels ",
                                  pixels.shape().DebugString()));
    }
    OP_REQUIRES(context, values[5] >= 0.0f && values[5] < 6.0f,
                InvalidArgument("the order of channels must be 0..5, got ", values[5]));

    const bool whole = box[0] == 0.0f && box[1] == 0.0f && box[2] == 1.0f && box[3] == 1.0f;
    const int counts[2] = {settings_.height, settings_.width};
    Taps taps[2] = {Taps(counts[0]), Taps(counts[1])};
    for (int k = 0; k < 2; ++k) {
      Side side = {sides[k],       places[k],     places[2 + k],  places[4 + k],
                   places[6 + k],  places[8 + k], places[10 + k], counts[k]};
      if (settings_.sampling == Sampling::kCrop) {
        if (whole) {
          side = {sides[k], 0, sides[k], 0, sides[k], counts[k], 0, counts[k]};
          taps[k] = ResizeTaps(side, Sampling::kLegacy, true);
        } else {
          taps[k] = CropTaps(side, box[k], box[2 + k]);
        }
        continue;
      }
      OP_REQUIRES(context,
                  side.canvas > 0 && side.scaled > 0 && side.cut >= 0 && side.length >= 0 &&
                      side.start >= 0 && side.start + side.length <= side.pixels,
                  InvalidArgument("places outside ", side.pixels, " pixels: ", side.start, ", ",
                                  side.length, ", ", side.canvas, ", ", side.scaled, ", ",
                                  side.cut));
      taps[k] = ResizeTaps(side, settings_.sampling, false);
    }
    if (flip) Mirror(&taps[1], sides[1], settings_.mirror_picture);
    Tensor* result = nullptr;
    OP_REQUIRES_OK(context,
                   context->allocate_output(0, TensorShape({counts[0], counts[1], 3}), &result));
    if (sides[0] == 0 || sides[1] == 0) taps[0] = Taps(counts[0]);
    const size_t stride = 3 * static_cast<size_t>(pixels.dim_size(1));
    const uint8_t* first = pixels.flat<uint8_t>().data() + stride * window[0] + 3 * window[1];
    Render(settings_, Picture{first, sides[0], sides[1], stride}, taps[0], taps[1], values,
           result->flat<float>().data());
  }

 private:
  static void Read(OpKernelConstruction* context, const char* name, std::array<float, 3>* values) {
    std::vector<float> numbers;
    OP_REQUIRES_OK(context, context->GetAttr(name, &numbers));
    std::copy_n(numbers.begin(), 3, values->begin());
  }

  Settings settings_;
};
REGISTER_KERNEL_BUILDER(Name("SsdCenternetRender").Device(DEVICE_CPU), RenderOp);

REGISTER_OP("SsdCenternetFindCrop")
    .Input("boxes: float")
    .Input("size: int32")
    .Input("seed: int64")
    .Output("window: float")
    .Output("bound: float")
    .Output("whole: bool")
    .Attr("in_pixels: bool")
    .Attr("min_ious: list(float) >= 1")
    .Attr("no_crop_probability: float")
    .Attr("min_extent: float")
    .Attr("spread: float")
    .Attr("max_aspect: float")
    .Attr("min_aspect: float")
    .SetShapeFn([](InferenceContext* context) {
      context->set_output(0, context->MakeShape({4}));
      context->set_output(1, context->Scalar());
      context->set_output(2, context->Scalar());
      return Status();
    });

class FindCropOp : public OpKernel {
 public:
  explicit FindCropOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("in_pixels", &search_.in_pixels));
    OP_REQUIRES_OK(context, context->GetAttr("min_ious", &search_.min_ious));
    OP_REQUIRES_OK(context, context->GetAttr("no_crop_probability", &search_.no_crop_probability));
    OP_REQUIRES_OK(context, context->GetAttr("min_extent", &search_.min_extent));
    OP_REQUIRES_OK(context, context->GetAttr("spread", &search_.spread));
    OP_REQUIRES_OK(context, context->GetAttr("max_aspect", &search_.max_aspect));
    OP_REQUIRES_OK(context, context->GetAttr("min_aspect", &search_.min_aspect));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& boxes = context->input(0);
    OP_REQUIRES(context, boxes.dims() == 2 && boxes.dim_size(1) == 4,
                InvalidArgument("boxes must be [N, 4], got ", boxes.shape().DebugString()));
    OP_REQUIRES(context,
                context->input(1).NumElements() == 2 && context->input(2).NumElements() == 2,
                InvalidArgument("expected a size and a seed of two numbers each"));
    const int* size = context->input(1).flat<int>().data();
    const auto seed = context->input(2).flat<int64_t>();
    Box everything = {0.0f, 0.0f, 1.0f, 1.0f};
    if (search_.in_pixels) {
      everything.ymax = static_cast<float>(size[0]);
      everything.xmax = static_cast<float>(size[1]);
    }
    Tensor *window = nullptr, *bound = nullptr, *whole = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({4}), &window));
    OP_REQUIRES_OK(context, context->allocate_output(1, TensorShape({}), &bound));
    OP_REQUIRES_OK(context, context->allocate_output(2, TensorShape({}), &whole));
    Box chosen;
    FindCrop(search_, reinterpret_cast<const Box*>(boxes.flat<float>().data()), boxes.dim_size(0),
             everything, seed(0), seed(1), &chosen, bound->flat<float>().data(),
             whole->flat<bool>().data());
    std::memcpy(window->flat<float>().data(), &chosen, sizeof(chosen));
  }

 private:
  Search search_;
};
REGISTER_KERNEL_BUILDER(Name("SsdCenternetFindCrop").Device(DEVICE_CPU), FindCropOp);

REGISTER_OP("SsdCenternetMatch")
    .Input("boxes: float")
    .Input("classes: int32")
    .Input("objects: bool")
    .Input("forced: bool")
    .Input("regions: bool")
    .Input("anchors: float")
    .Output("matches: int32")
    .Output("class_targets: int32")
    .Output("box_targets: float")
    .Attr("threshold: float")
    .Attr("last_claim_wins: bool")
    .Attr("scale_factors: list(float) >= 4")
    .SetShapeFn([](InferenceContext* context) {
      const auto count = context->Dim(context->input(5), 0);
      context->set_output(0, context->MakeShape({count}));
      context->set_output(1, context->MakeShape({count}));
      context->set_output(2, context->MakeShape({count, 4}));
      return Status();
    });

class MatchOp : public OpKernel {
 public:
  explicit MatchOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("threshold", &matching_.threshold));
    OP_REQUIRES_OK(context, context->GetAttr("last_claim_wins", &matching_.last_claim_wins));
    OP_REQUIRES_OK(context, context->GetAttr("scale_factors", &factors_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &boxes = context->input(0), &anchors = context->input(5);
    const int64_t number = boxes.dim_size(0), count = anchors.dim_size(0);
    OP_REQUIRES(context, boxes.dims() == 2 && boxes.dim_size(1) == 4,
                InvalidArgument("boxes must be [M, 4], got ", boxes.shape().DebugString()));
    OP_REQUIRES(context, anchors.dims() == 2 && anchors.dim_size(1) == 4,
                InvalidArgument("anchors must be [A, 4], got ", anchors.shape().DebugString()));
    for (int k = 1; k < 5; ++k) {
      OP_REQUIRES(context, context->input(k).NumElements() == number,
                  InvalidArgument("expected ", number, " rows in input ", k, ", got ",
                                  context->input(k).shape().DebugString()));
    }
    const Box* rows = reinterpret_cast<const Box*>(boxes.flat<float>().data());
    const Box* places = reinterpret_cast<const Box*>(anchors.flat<float>().data());
    const int* classes = context->input(1).flat<int>().data();
    const bool* regions = context->input(4).flat<bool>().data();
    Tensor *matches = nullptr, *labels = nullptr, *codes = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({count}), &matches));
    OP_REQUIRES_OK(context, context->allocate_output(1, TensorShape({count}), &labels));
    OP_REQUIRES_OK(context, context->allocate_output(2, TensorShape({count, 4}), &codes));
    int* match = matches->flat<int>().data();
    int* label = labels->flat<int>().data();
    float* code = codes->flat<float>().data();
    Match(matching_, Anchors(places, static_cast<int>(count)), rows, static_cast<int>(number),
          context->input(2).flat<bool>().data(), context->input(3).flat<bool>().data(), match);
    const bool any_region = std::find(regions, regions + number, true) != regions + number;
    std::fill_n(code, 4 * count, 0.0f);
    for (int64_t i = 0; i < count; ++i) {
      label[i] = match[i] < 0 ? 0 : classes[match[i]] + 1;
      if (match[i] >= 0) {
        Encode(rows[match[i]], places[i], factors_.data(), code + 4 * i);
      } else if (any_region && MostlyInside(places[i], rows, static_cast<int>(number), regions)) {
        label[i] = -1;
      }
    }
  }

 private:
  Matching matching_;
  std::vector<float> factors_;
};
REGISTER_KERNEL_BUILDER(Name("SsdCenternetMatch").Device(DEVICE_CPU), MatchOp);

}  // namespace
}  // namespace ssd_centernet
