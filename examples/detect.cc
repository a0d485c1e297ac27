// Detect objects on a picture with a TFLite file of `ssd_centernet export`, through LiteRT's C API.
//
//     detect exported/model.tflite picture.ppm [MIN_SCORE]
//
// Prints a line for each detection: score, xmin, ymin, xmax, ymax in pixels, class (docs/cpp.md).

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "litert_calls.h"

struct Picture {
  int height, width;
  std::vector<uint8_t> pixels;  // RGB, row by row.
  int at(int y, int x, int c) const { return pixels[(size_t{1} * y * width + x) * 3 + c]; }
};

Picture ReadPpm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  int height = 0, width = 0, most = 0;
  file >> kind >> width >> height >> most;
  if (!file.get() || kind != "P6" || most != 255 || std::min(height, width) < 1)
    throw std::runtime_error(path + " is no binary PPM of 8 bits without comments, or not there");
  Picture picture{height, width, std::vector<uint8_t>(size_t{3} * height * width)};
  if (!file.read(reinterpret_cast<char*>(picture.pixels.data()), picture.pixels.size()))
    throw std::runtime_error(path + " is cut off");
  return picture;
}

struct Neighbours {
  int first, second;
  float share;  // Of the second.
};

Neighbours Find(int place, int before, int after) {
  const float source = (place + 0.5f) * (float(before) / float(after)) - 0.5f;
  const int first = std::max(int(std::floor(source)), 0);
  return {first, std::min(int(std::ceil(source)), before - 1), source - std::floor(source)};
}

// Bilinear with half-pixel centres, not antialiased, rounded half to even; -ffp-contract=off keeps
// the last bits. `stride` is the width of what is written to, in pixels.
void Resize(const Picture& from, int height, int width, int stride, uint8_t* to) {
  for (int y = 0; y < height; ++y) {
    const Neighbours rows = Find(y, from.height, height);
    for (int x = 0; x < width; ++x) {
      const Neighbours columns = Find(x, from.width, width);
      for (int c = 0; c < 3; ++c) {
        auto along = [&](int y) {
          const float left = from.at(y, columns.first, c);
          return left + (from.at(y, columns.second, c) - left) * columns.share;
        };
        const float upper = along(rows.first), lower = along(rows.second);
        to[(y * stride + x) * 3 + c] = std::nearbyint(upper + (lower - upper) * rows.share);
      }
    }
  }
}

void Check(LiteRtStatus status) {
  if (status != kLiteRtStatusOk)
    throw std::runtime_error("LiteRT ended with status " + std::to_string(status));
}

void Detect(const std::string& path, const Picture& picture, float min_score) {
  const std::string folder = path.substr(0, path.find_last_of('/') + 1);
  std::ifstream labels(folder + "labels.txt"), card(folder + "model_card.json");
  if (!labels || !card) throw std::runtime_error("labels and model card are not beside " + path);
  std::vector<std::string> names;
  for (std::string line; std::getline(labels, line);) names.push_back(line);
  bool keep_aspect = false;
  for (std::string line; std::getline(card, line);)
    keep_aspect |= line.find("\"keep_aspect\": true") != std::string::npos;

  LiteRtEnvironment environment;  // This and what follows lives as long as the program.
  LiteRtModel model;
  LiteRtOptions options;
  LiteRtCompiledModel compiled;
  LiteRtSignature signature;
  LiteRtTensor tensor;
  LiteRtRankedTensorType type;
  LiteRtTensorBufferRequirements needs;
  LiteRtTensorBuffer input;
  void* memory;  // Of what is written or read.
  Check(LiteRtCreateEnvironment(0, nullptr, &environment));
  Check(LiteRtCreateModelFromFile(environment, path.c_str(), &model));
  Check(LiteRtCreateOptions(&options));
  Check(LiteRtSetOptionsHardwareAccelerators(options, kLiteRtHwAcceleratorCpu));
  Check(LiteRtCreateCompiledModel(environment, model, options, &compiled));
  Check(LiteRtGetModelSignature(model, 0, &signature));
  Check(LiteRtGetSignatureInputTensorByIndex(signature, 0, &tensor));
  Check(LiteRtGetRankedTensorType(tensor, &type));
  Check(LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, 0, &needs));
  Check(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, needs, &input));
  const int frame_h = type.layout.dimensions[1], frame_w = type.layout.dimensions[2];
  int height = frame_h, width = frame_w;
  if (keep_aspect) {  // Black at the bottom and the right.
    const float scale = std::min(float(frame_h) / picture.height, float(frame_w) / picture.width);
    height = std::clamp(int(std::nearbyint(picture.height * scale)), 1, frame_h);
    width = std::clamp(int(std::nearbyint(picture.width * scale)), 1, frame_w);
  }
  Check(LiteRtLockTensorBuffer(input, &memory, kLiteRtTensorBufferLockModeWrite));
  std::fill_n(static_cast<uint8_t*>(memory), 3 * frame_h * frame_w, 0);
  Resize(picture, height, width, frame_w, static_cast<uint8_t*>(memory));
  Check(LiteRtUnlockTensorBuffer(input));

  size_t count = 0;
  Check(LiteRtGetNumSignatureOutputs(signature, &count));
  std::vector<LiteRtTensorBuffer> outputs(count);
  for (size_t i = 0; i < count; ++i) {
    Check(LiteRtGetSignatureOutputTensorByIndex(signature, i, &tensor));
    Check(LiteRtGetRankedTensorType(tensor, &type));
    Check(LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, i, &needs));
    Check(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, needs, &outputs[i]));
  }
  Check(LiteRtRunCompiledModel(compiled, 0, 1, &input, count, outputs.data()));
  std::map<std::string, const void*> found;
  for (size_t i = 0; i < count; ++i) {
    const char* name;
    Check(LiteRtGetSignatureOutputName(signature, i, &name));
    Check(LiteRtLockTensorBuffer(outputs[i], &memory, kLiteRtTensorBufferLockModeRead));
    found[name] = memory;
  }
  if (!found.count("boxes")) throw std::runtime_error(path + " has no decoder");
  auto* boxes = static_cast<const float*>(found.at("boxes"));
  auto* scores = static_cast<const float*>(found.at("scores"));
  auto* classes = static_cast<const int32_t*>(found.at("classes"));
  const float x = 1.0f * picture.width * frame_w / width;
  const float y = 1.0f * picture.height * frame_h / height;
  for (int i = 0; i < *static_cast<const int32_t*>(found.at("count")); ++i, boxes += 4)
    if (scores[i] >= min_score)
      std::printf("%.5f %.2f %.2f %.2f %.2f %s\n", scores[i], boxes[1] * x, boxes[0] * y,
                  boxes[3] * x, boxes[2] * y, names.at(classes[i]).c_str());
}

int main(int argc, char** argv) try {
  if (argc < 3) throw std::runtime_error("give a TFLite file, a picture (PPM) and a lowest score");
  Detect(argv[1], ReadPpm(argv[2]), argc > 3 ? std::stof(argv[3]) : 0.3f);
} catch (const std::exception& error) {
  std::fprintf(stderr, "detect: %s\n", error.what());
  return 1;
}
