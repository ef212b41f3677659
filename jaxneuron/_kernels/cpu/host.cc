// Calls from Python without XLA. Rows and outputs are objects with Python's buffer protocol, such as NumPy
// arrays.
//
// This file needs no header of Python to be compiled, and the library no symbol of Python to be loaded:
// host.py passes the addresses of the functions. They belong to the stable ABI, so their signatures and
// structs are the same in every Python from 3.11 on.

#include <cstddef>
#include <cstdint>
#include <optional>

#include "plan.h"
#include "pool.h"
#include "tuning.h"

namespace jaxneuron {
namespace {

struct Object;  // PyObject: only pointers to it are used

struct Buffer {  // Py_buffer
  void* data;
  Object* owner;
  std::ptrdiff_t bytes;
  std::ptrdiff_t item_bytes;
  int read_only;
  int rank;
  char* format;
  std::ptrdiff_t* shape;
  std::ptrdiff_t* strides;
  std::ptrdiff_t* suboffsets;
  void* internal;
};

struct Method {  // PyMethodDef
  const char* name;
  Object* (*function)(Object* self, Object* const* arguments, std::ptrdiff_t count);
  int flags;
  const char* doc;
};

constexpr int WRITABLE = 0x1;     // PyBUF_WRITABLE
constexpr int CONTIGUOUS = 0x38;  // PyBUF_C_CONTIGUOUS
constexpr int METH_FASTCALL = 0x80;

// The functions of Python that are used, in the order of FUNCTIONS in host.py.
struct Python {
  int (*get_buffer)(Object*, Buffer*, int flags);
  void (*release_buffer)(Buffer*);
  void (*clear_error)();
  Object* (*new_integer)(long long);
  long long (*as_integer)(Object*);
  void* (*release_gil)();
  void (*take_gil)(void* state);
  Object* (*new_function)(Method*, Object* self, Object* module);
};

Python python;

// Holds the buffer of an object while it lives. It is false if the numbers are not contiguous and aligned.
class Numbers {
 public:
  Numbers(Object* object, int flags, std::ptrdiff_t item_bytes) {
    held_ = python.get_buffer(object, &buffer_, CONTIGUOUS | flags) == 0;
    if (held_)
      fit_ = buffer_.item_bytes == item_bytes && std::uintptr_t(buffer_.data) % item_bytes == 0;
    else
      python.clear_error();
  }
  ~Numbers() {
    if (held_) python.release_buffer(&buffer_);
  }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;

  explicit operator bool() const { return fit_; }
  const Buffer* operator->() const { return &buffer_; }
  const Buffer& operator*() const { return buffer_; }

 private:
  Buffer buffer_;
  bool held_;
  bool fit_ = false;
};

// What host.py passes for a plan.
struct Call {
  const Plan* plan;
  std::int64_t most_threads;
  std::int64_t each;      // whether every member has rows of its own
  std::int64_t backward;  // whether Jacobians go from y to x
};

std::ptrdiff_t bytes_of(Dtype dtype) { return dtype == Dtype::float32 ? 4 : dtype == Dtype::float64 ? 8 : 2; }

bool overlap(const Buffer& x, const Buffer& y) {
  const auto first = std::uintptr_t(x.data);
  const auto other = std::uintptr_t(y.data);
  return first < other + y.bytes && other < first + x.bytes;
}

// Evaluates x (..., n_in), or with `each` (members, ..., n_in), into y and, with a third array, the Jacobians
// into that. Returns a Code, or -1 if an array does not fit; then nothing has been done. It compares the
// sizes of y and J, not their shapes: host.py makes sure of these.
Object* evaluate(Object* const* arguments, bool with_jacobian) {
  auto* const call = reinterpret_cast<Call*>(python.as_integer(arguments[0]));
  const Network& network = call->plan->network;
  const Layer& last = network.layers[network.depth - 1];
  const std::ptrdiff_t width = bytes_of(network.dtype);
  const std::int64_t n_in = network.layers[0].n_in;
  const Numbers x(arguments[1], 0, width);
  const Numbers y(arguments[2], WRITABLE, width);
  std::optional<Numbers> jacobian;
  if (with_jacobian) jacobian.emplace(arguments[3], WRITABLE, width);
  const std::int64_t members = call->each ? network.members : 1;
  if (!x || !y || x->rank < 1 + call->each || x->shape[x->rank - 1] != n_in ||
      (call->each && x->shape[0] != members))
    return python.new_integer(-1);
  // In place: each row of x is read before its row of y is written. Members must not share x.
  const bool in_place = !jacobian && x->data == y->data && x->bytes == y->bytes && members == network.members;
  if (!in_place && overlap(*x, *y)) return python.new_integer(-1);
  Batch batch{};
  batch.x = x->data;
  batch.y = y->data;
  batch.rows = 1;
  for (int axis = call->each; axis < x->rank - 1; ++axis) batch.rows *= x->shape[axis];
  batch.x_stride = call->each ? batch.rows * n_in : 0;
  if (y->bytes != network.members * batch.rows * last.n_out * width) return python.new_integer(-1);
  Derivatives wanted{};
  if (jacobian) {
    if (!*jacobian || (*jacobian)->bytes != y->bytes * n_in || overlap(*x, **jacobian) ||
        overlap(*y, **jacobian))
      return python.new_integer(-1);
    wanted.backward = call->backward;
    wanted.directions = call->backward ? last.n_out : n_in;
    wanted.result = (*jacobian)->data;
  }
  const Threads threads = shared_threads(&call->most_threads);
  const Threads* const helpers = call->most_threads > 1 ? &threads : nullptr;
  const bool is_long = work(*call->plan, batch.rows) * (1 + wanted.directions) > GIL_WORK;
  void* const state = is_long ? python.release_gil() : nullptr;
  Error error;
  const Code code = jacobian ? differentiate(*call->plan, batch, wanted, helpers, &error)
                             : run_plan(*call->plan, batch, helpers, &error);
  if (is_long) python.take_gil(state);
  return python.new_integer(code);
}

// forward(call, x, y)
Object* forward(Object*, Object* const* arguments, std::ptrdiff_t) { return evaluate(arguments, false); }

// forward_and_jacobian(call, x, y, J)
Object* forward_and_jacobian(Object*, Object* const* arguments, std::ptrdiff_t) {
  return evaluate(arguments, true);
}

// address(array, item_bytes): the address of its numbers, or -1 if they are not contiguous and aligned.
Object* address(Object*, Object* const* arguments, std::ptrdiff_t) {
  const Numbers numbers(arguments[0], 0, python.as_integer(arguments[1]));
  return python.new_integer(numbers ? reinterpret_cast<long long>(numbers->data) : -1);
}

Method methods[] = {{"forward", forward, METH_FASTCALL, nullptr},
                    {"address", address, METH_FASTCALL, nullptr},
                    {"forward_and_jacobian", forward_and_jacobian, METH_FASTCALL, nullptr}};

}  // namespace
}  // namespace jaxneuron

// Returns one of the functions above as a Python object: 0 is forward, 1 is address, 2 is
// forward_and_jacobian.
EXPORTED void* jaxneuron_host_function(const jaxneuron::Python* functions, std::int64_t i) {
  jaxneuron::python = *functions;
  return jaxneuron::python.new_function(&jaxneuron::methods[i], nullptr, nullptr);
}
