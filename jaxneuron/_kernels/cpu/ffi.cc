// The functions that XLA calls ("custom calls"). They turn the operands into a network and its rows, and have
// plan.cc evaluate them.
//
//                operands                                                        results
//     forward    x, then w and b of each layer                                   y
//     jacobian   the same                                                        y and J, or y, J and L
//     product    x, tangents or cotangents d, then w and b of each layer         J d or J^T d
//
// Shapes: x (rows, n_in), w (n_in, n_out), b (n_out,), y and the Laplacian L (rows, n_out), the Jacobian J
// (rows, n_out, n_in), d and the product (rows, directions, n_in or n_out). Any operand may have a leading
// axis of members; if one has it, so have the results. One more scalar may follow the operands. It is
// ignored; primitive.py says what it is for.

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

std::int64_t count(void* pool) { return static_cast<ffi::ThreadPool*>(pool)->num_threads(); }

void schedule(void* pool, void (*task)(void*), void* argument) {
  static_cast<ffi::ThreadPool*>(pool)->Schedule([task, argument] { task(argument); });
}

// One call: its operands and results, and the network and rows that they are parsed to.
class Call {
 public:
  Call(const char* name, ffi::RemainingArgs operands, ffi::RemainingRets results)
      : name_(name), operands_(operands), results_(results) {}

  Network network{};  // points into this call
  Batch batch{};
  Derivatives wanted{};

  // Parses the operands. `parameters` has MOST_PARAMETERS numbers for each layer. `with_directions`: d
  // follows x.
  ffi::Error parse(ffi::Span<const std::int64_t> activations, ffi::Span<const double> parameters,
                   ffi::Span<const std::int64_t> biases, bool with_directions) {
    const std::size_t depth = activations.size();
    if (depth == 0 || biases.size() != depth || parameters.size() != MOST_PARAMETERS * depth)
      return invalid("activations, their parameters and biases must be given for each layer");
    if (ffi::Error error = parse_x(); error.failure()) return error;
    const auto d = with_directions ? next() : ffi::ErrorOr<ffi::AnyBuffer>(ffi::Error());
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
    if (with_directions)
      if (ffi::Error error = parse_directions(d); error.failure()) return error;
    network.members = members_ < 0 ? 1 : members_;
    return ffi::Error::Success();
  }

  std::int64_t n_in() const { return layers_.front().n_in; }
  std::int64_t n_out() const { return layers_.back().n_out; }

  // Checks that result i has this shape, apart from members, and sets `*to` to its address.
  ffi::Error parse_result(std::size_t i, const char* what, std::initializer_list<std::int64_t> wanted,
                          void** to) {
    auto found = results_.get<ffi::AnyBuffer>(i);
    if (!found) return invalid(std::string(what) + " is missing");
    const ffi::AnyBuffer buffer = **found;
    const std::size_t rank = wanted.size() + (members_ >= 0);
    if (buffer.dimensions().size() != rank || member_stride(buffer, wanted) < 0 ||
        buffer.element_type() != type_)
      return invalid(std::string(what) + " " + shape(buffer) + " does not fit");
    *to = buffer.untyped_data();
    return ffi::Error::Success();
  }

  ffi::Error parse_y() { return parse_result(0, "y", {batch.rows, n_out()}, &batch.y); }

  // Evaluates what has been parsed, with derivatives if there is a result for them.
  ffi::Error evaluate(std::int64_t instruction_set, ffi::ThreadPool pool) const {
    Plan plan;
    jaxneuron::Error error;
    if (make_plan(network, instruction_set, &plan, &error)) return invalid(error.text);
    const Threads threads{count, schedule, &pool, AWAKE_THREAD_WORK};
    switch (wanted.result ? differentiate(plan, batch, wanted, &threads, &error)
                          : run_plan(plan, batch, &threads, &error)) {
      case OK:
        return ffi::Error::Success();
      case NO_MEMORY:
        return ffi::Error(ffi::ErrorCode::kResourceExhausted, std::string(name_) + ": " + error.text);
      default:
        return invalid(error.text);
    }
  }

  ffi::Error invalid(const std::string& what) const {
    return ffi::Error::InvalidArgument(std::string(name_) + ": " + what);
  }

 private:
  ffi::Error invalid_layer(std::size_t i, const std::string& what) const {
    return invalid("layer " + std::to_string(i) + ": " + what);
  }

  ffi::ErrorOr<ffi::AnyBuffer> next() { return operands_.get<ffi::AnyBuffer>(next_++); }

  // Returns how many elements an operand has from one member to the next: 0 if it has no axis of members, -1
  // if its shape is wrong.
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

  ffi::Error parse_directions(const ffi::ErrorOr<ffi::AnyBuffer>& d) {
    if (!d || d->dimensions().size() < 2 || d->element_type() != type_)
      return invalid("tangents must be (rows, directions, n), of x's dtype");
    const auto found = d->dimensions();
    wanted.directions = found[found.size() - 2];
    wanted.given = d->untyped_data();
    wanted.given_stride =
        member_stride(*d, {batch.rows, wanted.directions, wanted.backward ? n_out() : n_in()});
    return wanted.given_stride < 0 ? invalid("tangents " + shape(*d) + " do not fit") : ffi::Error::Success();
  }

  const char* const name_;
  ffi::RemainingArgs operands_;
  ffi::RemainingRets results_;
  std::size_t next_ = 0;       // of operands_
  std::int64_t members_ = -1;  // -1 where no operand has had an axis of them
  std::int64_t width_ = 0;     // of what goes into the next layer
  ffi::DataType type_{};
  std::vector<Layer> layers_;
};

ffi::Error forward(ffi::ThreadPool pool, ffi::Span<const std::int64_t> activations,
                   ffi::Span<const double> parameters, ffi::Span<const std::int64_t> biases,
                   std::int64_t instruction_set, ffi::RemainingArgs operands, ffi::RemainingRets results) {
  Call call("jaxneuron_forward", operands, results);
  if (ffi::Error error = call.parse(activations, parameters, biases, false); error.failure()) return error;
  if (ffi::Error error = call.parse_y(); error.failure()) return error;
  return call.evaluate(instruction_set, pool);
}

ffi::Error jacobian(ffi::ThreadPool pool, ffi::Span<const std::int64_t> activations,
                    ffi::Span<const double> parameters, ffi::Span<const std::int64_t> biases,
                    std::int64_t instruction_set, bool backward, ffi::RemainingArgs operands,
                    ffi::RemainingRets results) {
  Call call("jaxneuron_jacobian", operands, results);
  if (ffi::Error error = call.parse(activations, parameters, biases, false); error.failure()) return error;
  if (ffi::Error error = call.parse_y(); error.failure()) return error;
  const std::int64_t rows = call.batch.rows;
  Derivatives& wanted = call.wanted;
  wanted.backward = backward;
  wanted.directions = backward ? call.n_out() : call.n_in();
  if (ffi::Error error = call.parse_result(1, "J", {rows, call.n_out(), call.n_in()}, &wanted.result);
      error.failure())
    return error;
  if (results.size() == 2) return call.evaluate(instruction_set, pool);
  if (backward) return call.invalid("a Laplacian goes forward");
  if (ffi::Error error = call.parse_result(2, "L", {rows, call.n_out()}, &wanted.laplacian); error.failure())
    return error;
  return call.evaluate(instruction_set, pool);
}

ffi::Error product(ffi::ThreadPool pool, ffi::Span<const std::int64_t> activations,
                   ffi::Span<const double> parameters, ffi::Span<const std::int64_t> biases,
                   std::int64_t instruction_set, bool backward, ffi::RemainingArgs operands,
                   ffi::RemainingRets results) {
  Call call("jaxneuron_product", operands, results);
  call.wanted.backward = backward;
  if (ffi::Error error = call.parse(activations, parameters, biases, true); error.failure()) return error;
  if (ffi::Error error = call.parse_result(
          0, "the product", {call.batch.rows, call.wanted.directions, backward ? call.n_in() : call.n_out()},
          &call.wanted.result);
      error.failure())
    return error;
  return call.evaluate(instruction_set, pool);
}

auto binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Attr<ffi::Span<const std::int64_t>>("activations")
      .Attr<ffi::Span<const double>>("parameters")
      .Attr<ffi::Span<const std::int64_t>>("biases")
      .Attr<std::int64_t>("instruction_set");
}

}  // namespace
}  // namespace jaxneuron

EXPORTED XLA_FFI_Error* jaxneuron_forward(XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxneuron_forward, jaxneuron::forward,
                              jaxneuron::binding().RemainingArgs().RemainingRets());

EXPORTED XLA_FFI_Error* jaxneuron_jacobian(XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxneuron_jacobian, jaxneuron::jacobian,
                              jaxneuron::binding().Attr<bool>("backward").RemainingArgs().RemainingRets());

EXPORTED XLA_FFI_Error* jaxneuron_product(XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxneuron_product, jaxneuron::product,
                              jaxneuron::binding().Attr<bool>("backward").RemainingArgs().RemainingRets());
