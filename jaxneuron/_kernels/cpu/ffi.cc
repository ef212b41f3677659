// The custom call that XLA makes: checks, the choice of an instruction set, and threads.
//
//     x, then w and b of each layer -> y        x (rows, n_in), w (n_in, n_out), b (n_out,), y (rows, n_out)
//
// Any of them may have a leading axis of members, which y has if one of the operands has it. A number may
// follow them; it is not looked at.

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "network.h"
#include "threads.h"
#include "xla/ffi/api/ffi.h"

namespace jaxneuron {
namespace {

namespace ffi = xla::ffi;

// XLA's threads take subnormal numbers for 0; the kernel computes with them.
class SubnormalNumbers {
#if defined(__x86_64__)
 public:
  SubnormalNumbers() : before_(_mm_getcsr()) { _mm_setcsr(before_ & ~0x8040u); }
  ~SubnormalNumbers() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__)
 public:
  SubnormalNumbers() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(before_ & ~(std::uint64_t{1} << 24)));
  }
  ~SubnormalNumbers() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

 private:
  std::uint64_t before_;
#else
 public:
  SubnormalNumbers() {}
#endif
};

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// What one thread needs to run tiles.
class Worker {
 public:
  Worker(const Network& network, const Kernel& kernel, std::int64_t rows, std::atomic<bool>& failed)
      : network_(network), kernel_(kernel), rows_(rows), failed_(failed) {
    const std::size_t most =
        std::max(kernel.scratch(network, rows), kernel.scratch(network, network.rows % rows));
    const std::size_t bytes = (most + 63) / 64 * 64;
    memory_ = small_;
    if (bytes > sizeof small_) {
      large_.reset(std::aligned_alloc(64, bytes));
      memory_ = large_.get();
    }
    if (!memory_) failed_ = true;
  }

  // Item i is a tile of rows of one member.
  void operator()(std::int64_t first, std::int64_t last) {
    if (!memory_) return;
    const std::int64_t tiles = (network_.rows + rows_ - 1) / rows_;
    for (std::int64_t i = first; i < last; ++i) {
      const std::int64_t row = i % tiles * rows_;
      kernel_.run(network_, i / tiles, row, std::min(rows_, network_.rows - row), memory_);
    }
  }

 private:
  const Network& network_;
  const Kernel& kernel_;
  const std::int64_t rows_;
  std::atomic<bool>& failed_;
  SubnormalNumbers subnormal_;
  std::unique_ptr<void, Free> large_;
  void* memory_;
  alignas(64) char small_[1 << 14];
};

ffi::Error invalid(const std::string& what) {
  return ffi::Error::InvalidArgument("jaxneuron_forward: " + what);
}

std::string shape(ffi::AnyBuffer buffer) {
  std::string text;
  for (std::int64_t n : buffer.dimensions()) text += (text.empty() ? "" : ",") + std::to_string(n);
  return "(" + text + ")";
}

// Numbers of an operand from one member to the next: 0 without an axis of members, -1 for a wrong shape.
std::int64_t step(ffi::AnyBuffer buffer, std::initializer_list<std::int64_t> wanted, std::int64_t& members) {
  const auto found = buffer.dimensions();
  const std::size_t extra = found.size() - wanted.size();
  if (extra > 1 || !std::equal(wanted.begin(), wanted.end(), found.begin() + extra)) return -1;
  if (extra == 0) return 0;
  if (members < 0) members = found[0];
  if (members != found[0]) return -1;
  std::int64_t size = 1;
  for (std::int64_t n : wanted)
    if (__builtin_mul_overflow(size, n, &size)) return -1;
  return size;
}

// Multiplications, some 50 in a nanosecond; an activation takes as long as 16, a layer of a tile as 1500.
double work_of(const Network& network, std::int64_t tile) {
  double row = 0;
  for (std::int64_t i = 0; i < network.depth; ++i)
    row += (network.layers[i].n_in + 16.0) * network.layers[i].n_out;
  const double tiles = (network.rows + tile - 1) / tile;
  return network.members * (row * network.rows + 1500.0 * network.depth * tiles);
}

// Some 10 us, with which a thread that is awake is repaid. One that sleeps takes up to 50 to come.
constexpr double THREAD_WORK = 1 << 19;
constexpr std::int64_t WIDEST = std::int64_t{1} << 32;

ffi::Error forward(ffi::ThreadPool pool, ffi::Span<const std::int64_t> activations,
                   ffi::Span<const std::int64_t> biases, std::int64_t instructions,
                   ffi::RemainingArgs operands, ffi::Result<ffi::AnyBuffer> result) {
  const std::size_t depth = activations.size();
  if (depth == 0 || biases.size() != depth)
    return invalid("activations and biases must be one for each layer");
  Network network{};
  network.depth = depth;
  std::vector<Layer> layers(depth);

  std::size_t operand_count = 0;
  const auto next = [&] { return operands.get<ffi::AnyBuffer>(operand_count++); };
  const auto x = next();
  if (!x) return invalid("x is missing");
  switch (x->element_type()) {
    case ffi::F32:
      network.number = Number::float32;
      break;
    case ffi::F64:
      network.number = Number::float64;
      break;
    case ffi::BF16:
      network.number = Number::bfloat16;
      break;
    case ffi::F16:
      network.number = Number::float16;
      break;
    default:
      return invalid("x must be float32, float64, bfloat16 or float16");
  }
  const auto x_shape = x->dimensions();
  if (x_shape.size() != 2 && x_shape.size() != 3) return invalid("x must be (rows, n_in), got " + shape(*x));
  network.rows = x_shape[x_shape.size() - 2];
  std::int64_t members = -1, n = x_shape.back();
  network.x = x->untyped_data();
  network.x_step = step(*x, {network.rows, n}, members);

  for (std::size_t i = 0; i < depth; ++i) {
    const auto refused = [i](const std::string& what) {
      return invalid("layer " + std::to_string(i) + ": " + what);
    };
    Layer& layer = layers[i];
    const auto w = next();
    if (!w || w->dimensions().size() < 2) return refused("w must be (n_in, n_out)");
    layer.n_in = n, layer.n_out = n = w->dimensions().back();
    layer.w = w->untyped_data();
    layer.w_step = step(*w, {layer.n_in, n}, members);
    if (layer.w_step < 0 || w->element_type() != x->element_type())
      return refused("w " + shape(*w) + " must be (" + std::to_string(layer.n_in) + ",n_out), of x's dtype");
    if (biases[i]) {
      const auto b = next();
      if (!b) return refused("b is missing");
      layer.b = b->untyped_data();
      layer.b_step = step(*b, {n}, members);
      if (layer.b_step < 0 || b->element_type() != x->element_type())
        return refused("b " + shape(*b) + " must be (" + std::to_string(n) + "), of x's dtype");
    }
    layer.activation = Activation(activations[i]);
    if (activations[i] < 0 || layer.activation > Activation::softmax) return refused("no such activation");
    if (std::max(layer.n_in, n) > WIDEST) return refused("more than 2^32 units");
  }
  if (operands.size() > operand_count + 1 ||
      (operands.size() > operand_count && next()->dimensions().size() > 0))
    return invalid("more operands than layers take, and a number to ignore");
  network.layers = layers.data();
  network.members = members < 0 ? 1 : members;
  network.y = result->untyped_data();
  std::int64_t y_members = members;
  const bool fits =
      members < 0 ? step(*result, {network.rows, n}, y_members) == 0
                  : result->dimensions().size() == 3 && step(*result, {network.rows, n}, y_members) >= 0;
  if (!fits || result->element_type() != x->element_type())
    return invalid("y " + shape(*result) + " does not fit");
  if (result->element_count() == 0) return ffi::Error::Success();

  const Kernel& kernel =
      kernel_of(std::min<std::int64_t>(std::max<std::int64_t>(instructions, 0), kernel_count() - 1));
  std::int64_t rows = std::min(tile_rows(network), network.rows), helpers = 0;
  const double work = work_of(network, rows);
  if (work >= 2 * THREAD_WORK) {
    const std::int64_t threads = std::max<std::int64_t>(pool.num_threads(), 1);
    if (network.members < threads) {  // tiles enough for all threads, and some more where they stay large
      const std::int64_t tiles = std::max(threads, std::min(4 * threads, network.rows / 64));
      rows = std::min(rows, (network.rows + tiles - 1) / tiles);
    }
    helpers = std::min<std::int64_t>(threads, work / THREAD_WORK) - 1;
  }
  const std::int64_t items = network.members * ((network.rows + rows - 1) / rows);
  helpers = std::min(helpers, items - 1);
  std::atomic<bool> failed{false};
  const auto make = [&] { return Worker(network, kernel, rows, failed); };
  if (helpers > 0)
    parallel(pool, helpers, items, std::max<std::int64_t>(1, items / (16 * (helpers + 1))), make);
  else
    make()(0, items);
  if (failed)
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "jaxneuron_forward: no memory for a tile of rows");
  return ffi::Error::Success();
}

}  // namespace
}  // namespace jaxneuron

#define EXPORTED extern "C" __attribute__((visibility("default")))

// How many instruction sets this processor has, and their names; the last is the one to choose.
EXPORTED int jaxneuron_instructions() { return jaxneuron::kernel_count(); }
EXPORTED const char* jaxneuron_instructions_name(int i) { return jaxneuron::kernel_of(i).name; }

EXPORTED XLA_FFI_Error* jaxneuron_forward(XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxneuron_forward, jaxneuron::forward,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Attr<xla::ffi::Span<const std::int64_t>>("activations")
                                  .Attr<xla::ffi::Span<const std::int64_t>>("biases")
                                  .Attr<std::int64_t>("instructions")
                                  .RemainingArgs()
                                  .Ret<xla::ffi::AnyBuffer>());
