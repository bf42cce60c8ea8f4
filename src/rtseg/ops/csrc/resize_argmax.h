// What the row loops of every instruction set share: the job, its memory, number formats.
#pragma once

#include <cstdint>

namespace rtseg {

enum class Dtype : int { float32 = 0, bfloat16 = 1, float16 = 2 };

struct Bfloat {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// Between which two input positions each output position of an axis lies, and the shares of both.
// Padded at the end by copies of the last entry, so that whole vectors can be read.
struct Taps {
  const int32_t* low;
  const int32_t* high;  // low + 1, or low at the end of the axis
  const float* low_share;
  const float* high_share;
  int64_t count;
};

// One image: its scores, and the class map to be written.
struct Job {
  const void* logits;
  Dtype dtype;
  int64_t classes, height, width;
  int64_t class_stride, row_stride, column_stride;  // in elements
  Taps rows, columns;
  bool same_size;  // nothing is to be resized, at most cut
  void* out;       // rows.count x columns.count, uint8_t or int64_t
  bool wide;       // int64_t
};

// Two rows of the input as float32, planes[slot][class * pitch + column], and the best class of each
// of their pixels; ~class (negative) where a score of the pixel is not finite.
// Row y lies in slot y % 2 if held[y % 2] == y.
struct Scratch {
  float* planes[2];
  int32_t* labels[2];
  int64_t held[2];
  int64_t pitch;
};

constexpr int kWidest = 16;  // lanes of the widest vectors; the padding of all arrays

// Resize and compare the scores of a pixel one by one, as torch does where they are not finite.
int32_t best_of_pixel(const Job& job, const Scratch& scratch, int64_t row, int64_t column);

// Find the best class of one input pixel among scores that may not be finite.
int32_t best_of_scores(const float* scores, int64_t classes, int64_t pitch);

}  // namespace rtseg
