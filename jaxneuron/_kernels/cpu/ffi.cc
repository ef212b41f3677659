// The custom call that XLA makes: its operands are parsed to a network and rows, which plan.cc evaluates.
//
//     x, then w and b of each layer -> y        x (rows, n_in), w (n_in, n_out), b (n_out,), y (rows, n_out)
//
// Any of them may have a leading axis of members, which y has if one of the operands has it. A number may
// follow them; it is ignored (primitive.py says what it is for).

#include "xla/ffi/api/ffi.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "plan.h"
#include "tuning.h"

namespace jaxneuron {
namespace {

namespace ffi = xla::ffi;

ffi::Error invalid(const std::string& what) {
  return ffi::Error::InvalidArgument("jaxneuron_forward: " + what);
}

ffi::Error invalid_layer(std::size_t i, const std::string& what) {
  return invalid("layer " + std::to_string(i) + ": " + what);
}

std::string shape(ffi::AnyBuffer buffer) {
  std::string text;
  for (std::int64_t n : buffer.dimensions()) text += (text.empty() ? "" : ",") + std::to_string(n);
  return "(" + text + ")";
}

std::optional<Dtype> dtype_of(ffi::AnyBuffer buffer) {
  switch (buffer.element_type()) {
    case ffi::F32:
      return Dtype::float32;
    case ffi::F64:
      return Dtype::float64;
    case ffi::BF16:
      return Dtype::bfloat16;
    case ffi::F16:
      return Dtype::float16;
    default:
      return std::nullopt;
  }
}

// A network and its rows as the operands have them.
class Call {
 public:
  Call(ffi::RemainingArgs operands, ffi::Result<ffi::AnyBuffer> result)
      : operands_(operands), result_(result) {}

  Network network{};  // points into this call
  Batch batch{};

  // `parameters` has MOST_PARAMETERS numbers for each layer.
  ffi::Error parse(ffi::Span<const std::int64_t> activations, ffi::Span<const double> parameters,
                   ffi::Span<const std::int64_t> biases) {
    const std::size_t depth = activations.size();
    if (depth == 0 || biases.size() != depth || parameters.size() != MOST_PARAMETERS * depth)
      return invalid("activations, their parameters and biases must be given for each layer");
    if (ffi::Error error = parse_x(); error.failure()) return error;
    layers_.resize(depth);
    for (std::size_t i = 0; i < depth; ++i) {
      layers_[i].activation = Activation(activations[i]);
      std::copy_n(parameters.begin() + MOST_PARAMETERS * i, MOST_PARAMETERS, layers_[i].parameters);
      if (ffi::Error error = parse_layer(i, biases[i]); error.failure()) return error;
    }
    const std::size_t left = operands_.size() - next_;
    if (left > 1 || (left == 1 && next()->dimensions().size() > 0))
      return invalid("more operands than layers take, and a number to ignore");
    network.layers = layers_.data();
    network.depth = depth;
    network.members = members_ < 0 ? 1 : members_;
    return parse_y();
  }

 private:
  ffi::ErrorOr<ffi::AnyBuffer> next() { return operands_.get<ffi::AnyBuffer>(next_++); }

  // Numbers of an operand from one member to the next: 0 without an axis of members, -1 for a wrong shape.
  std::int64_t member_stride(ffi::AnyBuffer buffer, std::initializer_list<std::int64_t> wanted) {
    const auto found = buffer.dimensions();
    const std::size_t extra = found.size() - wanted.size();
    if (extra > 1 || !std::equal(wanted.begin(), wanted.end(), found.begin() + extra)) return -1;
    if (extra == 0) return 0;
    if (members_ < 0) members_ = found[0];
    if (members_ != found[0]) return -1;
    std::int64_t size = 1;
    for (std::int64_t n : wanted)
      if (__builtin_mul_overflow(size, n, &size)) return -1;
    return size;
  }

  ffi::Error parse_x() {
    const auto x = next();
    if (!x) return invalid("x is missing");
    const std::optional<Dtype> dtype = dtype_of(*x);
    if (!dtype) return invalid("x must be float32, float64, bfloat16 or float16");
    const auto found = x->dimensions();
    if (found.size() != 2 && found.size() != 3) return invalid("x must be (rows, n_in), got " + shape(*x));
    type_ = x->element_type();
    network.dtype = *dtype;
    width_ = found.back();
    batch.rows = found[found.size() - 2];
    batch.x = x->untyped_data();
    batch.x_stride = member_stride(*x, {batch.rows, width_});
    return ffi::Error::Success();
  }

  ffi::Error parse_layer(std::size_t i, bool has_bias) {
    Layer& layer = layers_[i];
    const auto w = next();
    if (!w || w->dimensions().size() < 2) return invalid_layer(i, "w must be (n_in, n_out)");
    layer.n_in = width_;
    layer.n_out = w->dimensions().back();
    layer.w = w->untyped_data();
    layer.w_stride = member_stride(*w, {layer.n_in, layer.n_out});
    if (layer.w_stride < 0 || w->element_type() != type_)
      return invalid_layer(
          i, "w " + shape(*w) + " must be (" + std::to_string(layer.n_in) + ",n_out), of x's dtype");
    width_ = layer.n_out;
    if (!has_bias) return ffi::Error::Success();
    const auto b = next();
    if (!b) return invalid_layer(i, "b is missing");
    layer.b = b->untyped_data();
    layer.b_stride = member_stride(*b, {layer.n_out});
    if (layer.b_stride < 0 || b->element_type() != type_)
      return invalid_layer(i,
                           "b " + shape(*b) + " must be (" + std::to_string(layer.n_out) + "), of x's dtype");
    return ffi::Error::Success();
  }

  ffi::Error parse_y() {
    const std::size_t rank = members_ < 0 ? 2 : 3;
    if (result_->dimensions().size() != rank || member_stride(*result_, {batch.rows, width_}) < 0 ||
        result_->element_type() != type_)
      return invalid("y " + shape(*result_) + " does not fit");
    batch.y = result_->untyped_data();
    return ffi::Error::Success();
  }

  ffi::RemainingArgs operands_;
  ffi::Result<ffi::AnyBuffer> result_;
  std::size_t next_ = 0;       // of operands_
  std::int64_t members_ = -1;  // -1 where no operand has had an axis of them
  std::int64_t width_ = 0;     // of what goes into the next layer
  ffi::DataType type_{};
  std::vector<Layer> layers_;
};

std::int64_t count(void* pool) { return static_cast<ffi::ThreadPool*>(pool)->num_threads(); }

void schedule(void* pool, void (*task)(void*), void* argument) {
  static_cast<ffi::ThreadPool*>(pool)->Schedule([task, argument] { task(argument); });
}

ffi::Error forward(ffi::ThreadPool pool, ffi::Span<const std::int64_t> activations,
                   ffi::Span<const double> parameters, ffi::Span<const std::int64_t> biases,
                   std::int64_t instruction_set, ffi::RemainingArgs operands,
                   ffi::Result<ffi::AnyBuffer> result) {
  Call call(operands, result);
  if (ffi::Error error = call.parse(activations, parameters, biases); error.failure()) return error;
  Plan plan;
  Error error;
  if (make_plan(call.network, instruction_set, &plan, &error)) return invalid(error.text);
  const Threads threads{count, schedule, &pool, AWAKE_THREAD_WORK};
  if (run_plan(plan, call.batch, &threads, &error))
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, std::string("jaxneuron_forward: ") + error.text);
  return ffi::Error::Success();
}

}  // namespace
}  // namespace jaxneuron

EXPORTED XLA_FFI_Error* jaxneuron_forward(XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxneuron_forward, jaxneuron::forward,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Attr<xla::ffi::Span<const std::int64_t>>("activations")
                                  .Attr<xla::ffi::Span<const double>>("parameters")
                                  .Attr<xla::ffi::Span<const std::int64_t>>("biases")
                                  .Attr<std::int64_t>("instruction_set")
                                  .RemainingArgs()
                                  .Ret<xla::ffi::AnyBuffer>());
