// The calling thread's floating-point mode: whether the CPU treats subnormal numbers as 0.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// These functions are always inlined. Otherwise the linker could keep a copy compiled for one instruction
// set, and use it on a CPU that lacks that instruction set.
#define INLINED __attribute__((always_inline))

namespace jaxneuron {

// Whether the calling thread computes with subnormal numbers (count = true), or treats them as 0, both
// operands and results (count = false). The destructor restores the mode that was there before. Writing the
// mode makes the CPU wait for all earlier instructions, so it is only written if it changes.
class Subnormals {
 public:
  Subnormals() = default;
  INLINED explicit Subnormals(bool count) { this->count(count); }
  INLINED ~Subnormals() { restore(); }
  INLINED void count(bool yes) {
    if (!is_known_) before_ = now_ = get();
    is_known_ = true;
    change(yes ? before_ & ~FLUSH : before_ | FLUSH);
  }
  INLINED void restore() {
    if (is_known_) change(before_);
  }
  Subnormals(const Subnormals&) = delete;
  Subnormals& operator=(const Subnormals&) = delete;

 private:
#if defined(__x86_64__)
  using Mode = unsigned;
  static constexpr Mode FLUSH = 0x8040;  // FTZ and DAZ
  INLINED static Mode get() { return _mm_getcsr(); }
  INLINED static void set(Mode mode) {
    asm volatile("" ::: "memory");  // the compiler moves no load or store across this
    _mm_setcsr(mode);
    asm volatile("" ::: "memory");
  }
#elif defined(__aarch64__)
  using Mode = std::uint64_t;
  static constexpr Mode FLUSH = Mode{1} << 24;  // FZ
  INLINED static Mode get() {
    Mode mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  INLINED static void set(Mode mode) { asm volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }
#else
  using Mode = int;
  static constexpr Mode FLUSH = 0;
  static Mode get() { return 0; }
  static void set(Mode) {}
#endif
  INLINED void change(Mode mode) {
    if (mode != now_) set(mode);
    now_ = mode;
  }

  bool is_known_ = false;
  Mode before_ = 0;
  Mode now_ = 0;
};

}  // namespace jaxneuron

#undef INLINED
