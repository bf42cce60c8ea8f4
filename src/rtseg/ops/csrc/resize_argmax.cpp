// Bilinear resize (corners not aligned) and arg-max over classes in one pass, for one instruction
// set out of several that is chosen when it runs. Plain C interface: no Python, no torch.

#include "resize_argmax.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

// Other compilers choose instruction sets by other means; there the portable code runs.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define RTSEG_X86
#include <immintrin.h>
#endif

#define RTSEG_API extern "C" __attribute__((visibility("default")))

namespace rtseg {

// ------------------------------------------------------------------ pixels that are not finite
static bool wins(float score, float best) {
  return score > best || (std::isnan(score) && !std::isnan(best));
}

int32_t best_of_scores(const float* scores, int64_t classes, int64_t pitch) {
  int64_t id = 0;
  for (int64_t k = 1; k < classes; ++k) {
    if (wins(scores[k * pitch], scores[id * pitch])) id = k;
  }
  return static_cast<int32_t>(id);
}

int32_t best_of_pixel(const Job& job, const Scratch& scratch, int64_t row, int64_t column) {
  const Taps &ys = job.rows, &xs = job.columns;
  const float* top = scratch.planes[ys.low[row] % 2];
  const float* bottom = scratch.planes[ys.high[row] % 2];
  const int32_t left = xs.low[column], right = xs.high[column];
  const float low = xs.low_share[column], high = xs.high_share[column];
  float best = 0;
  int32_t id = 0;
  for (int64_t k = 0; k < job.classes; ++k) {
    const int64_t plane = k * scratch.pitch;
    const float above = low * top[plane + left] + high * top[plane + right];
    const float below = low * bottom[plane + left] + high * bottom[plane + right];
    const float score = ys.low_share[row] * above + ys.high_share[row] * below;
    if (k == 0 || wins(score, best)) {
      best = score;
      id = static_cast<int32_t>(k);
    }
  }
  return id;
}

// ------------------------------------------------------------------ one namespace per instruction set
namespace portable {
#define LANES 4
#define ROWS 4
#include "resize_argmax_rows.inc"
#undef LANES
#undef ROWS
}  // namespace portable

#ifdef RTSEG_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#define LANES 8
#define ROWS 4
#define PICK(values, index) \
  reinterpret_cast<Floats>(_mm256_permutevar8x32_ps((__m256)(values), (__m256i)(index)))
#include "resize_argmax_rows.inc"
#undef LANES
#undef ROWS
#undef PICK
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
namespace avx512 {
#define LANES 16
#define ROWS 8
#define PICK(values, index) \
  reinterpret_cast<Floats>(_mm512_maskz_permutexvar_ps(0xffff, (__m512i)(index), (__m512)(values)))
#include "resize_argmax_rows.inc"
#undef LANES
#undef ROWS
#undef PICK
}  // namespace avx512
#pragma GCC pop_options
#endif

enum Variant { kBest = 0, kPortable = 1, kAvx2 = 2, kAvx512 = 3 };

static Variant best_variant() {
#ifdef RTSEG_X86
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return kPortable;
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return wide ? kAvx512 : kAvx2;
#else
  return kPortable;
#endif
}

static void run(Variant variant, const Job& job, Scratch& scratch, int64_t first, int64_t last) {
#ifdef RTSEG_X86
  if (variant == kAvx512) return avx512::run(job, scratch, first, last);
  if (variant == kAvx2) return avx2::run(job, scratch, first, last);
#endif
  (void)variant;
  portable::run(job, scratch, first, last);
}

// ------------------------------------------------------------------ memory
struct Axis {
  std::vector<int32_t> low, high;
  std::vector<float> low_share, high_share;
  int64_t count;

  // Positions first .. first + count - 1 of `output`, in float32 as torch computes them.
  Axis(int64_t input, int64_t output, int64_t first, int64_t wanted) : count(wanted) {
    const float scale = static_cast<float>(input) / static_cast<float>(output);
    const int64_t padded = (wanted + kWidest - 1) / kWidest * kWidest;
    for (int64_t i = 0; i < padded; ++i) {
      const float position = static_cast<float>(first + std::min(i, wanted - 1));
      const float source = std::max(scale * (position + 0.5f) - 0.5f, 0.0f);
      const int64_t below = std::min(static_cast<int64_t>(source), input - 1);
      const float share = std::min(source - static_cast<float>(below), 1.0f);
      low.push_back(static_cast<int32_t>(below));
      high.push_back(static_cast<int32_t>(std::min(below + 1, input - 1)));
      high_share.push_back(share);
      low_share.push_back(1.0f - share);
    }
  }

  Taps taps() const {
    return {low.data(), high.data(), low_share.data(), high_share.data(), count};
  }
};

struct Memory {
  std::vector<float> planes;
  std::vector<int32_t> labels;
  int64_t pitch, size;

  Memory(int64_t classes, int64_t width) : pitch(width + kWidest), size(classes * pitch) {
    planes.resize(static_cast<size_t>(2 * size));
    labels.resize(static_cast<size_t>(2 * pitch));
  }

  Scratch scratch() {
    return {{planes.data(), planes.data() + size},
            {labels.data(), labels.data() + pitch},
            {-1, -1},
            pitch};
  }
};

// ------------------------------------------------------------------ threads
// Bands of output rows, taken by whoever is free: parts of an image differ in work.
struct Bands {
  std::vector<Job> images;
  int64_t rows, per_image;
  Variant variant;
  std::atomic<int64_t> next{0};

  void work(Memory& memory) {
    const int64_t all = per_image * static_cast<int64_t>(images.size());
    for (int64_t band = next++; band < all; band = next++) {
      const int64_t part = band % per_image;
      Scratch scratch = memory.scratch();
      run(variant, images[static_cast<size_t>(band / per_image)], scratch, rows * part / per_image,
          rows * (part + 1) / per_image);
    }
  }
};

static void run_all(Bands& bands, std::vector<Memory>& memories) {
  std::vector<std::thread> others;
  others.reserve(memories.size());
  try {
    for (size_t i = 1; i < memories.size(); ++i) {
      others.emplace_back([&bands, &memories, i] { bands.work(memories[i]); });
    }
  } catch (const std::system_error&) {
    // No more threads: those that there are do all of it.
  }
  bands.work(memories[0]);
  for (std::thread& other : others) other.join();
}

}  // namespace rtseg

// Of the interface below; the loader compares it.
RTSEG_API int rtseg_kernels_version() { return 1; }

// 1 portable, 2 AVX2, 3 AVX-512: the best that this processor has.
RTSEG_API int rtseg_best_variant() { return rtseg::best_variant(); }

// logits: dtype 0 float32, 1 bfloat16, 2 float16; shape (B, K, h, w), strides in elements.
// size: (H, W) of the whole result. window: first row, first column, rows and columns of the part
// that is written to `out`, (B, rows, columns) uint8, or int64 if `wide`.
// threads: at most so many. variant: as above, 0 for the best.
// Returns 0; 1 if memory ran out; 2 if the processor lacks the variant.
RTSEG_API int rtseg_resize_argmax(const void* logits, int dtype, const int64_t* shape,
                                  const int64_t* strides, const int64_t* size,
                                  const int64_t* window, void* out, int wide, int threads,
                                  int variant) try {
  using namespace rtseg;
  const Variant best = best_variant();
  if (variant > best) return 2;
  const int64_t batch = shape[0], rows = window[2], columns = window[3];
  const Axis ys(shape[2], size[0], window[0], rows), xs(shape[3], size[1], window[1], columns);
  const int64_t element = dtype == 0 ? 4 : 2, wider = wide ? 8 : 1;
  Bands bands;
  for (int64_t b = 0; b < batch; ++b) {
    Job job = {};
    job.logits = static_cast<const char*>(logits) + b * strides[0] * element;
    job.dtype = static_cast<Dtype>(dtype);
    job.classes = shape[1], job.height = shape[2], job.width = shape[3];
    job.class_stride = strides[1], job.row_stride = strides[2], job.column_stride = strides[3];
    job.rows = ys.taps(), job.columns = xs.taps();
    job.same_size = shape[2] == size[0] && shape[3] == size[1];
    job.out = static_cast<char*>(out) + b * rows * columns * wider;
    job.wide = wide != 0;
    bands.images.push_back(job);
  }
  // Starting a thread costs as much time as about a million scores.
  const int64_t worth = batch * rows * columns * shape[1] / 1000000 + 1;
  const int64_t workers = std::max<int64_t>(1, std::min({int64_t{threads}, worth, rows}));
  bands.rows = rows;
  bands.per_image = workers == 1 ? 1 : std::min(rows, 4 * workers);
  bands.variant = variant ? static_cast<Variant>(variant) : best;
  std::vector<Memory> memories(static_cast<size_t>(workers), Memory(shape[1], shape[3]));
  run_all(bands, memories);
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}
