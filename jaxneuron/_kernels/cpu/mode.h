// The calling thread's floating-point mode: how it rounds, and whether it treats subnormal numbers as 0.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// These functions are always inlined. Otherwise the linker could keep a copy compiled for one instruction
// set, and use it on a CPU that lacks that instruction set.
#define INLINED __attribute__((always_inline))

namespace jaxneuron {

// Sets the calling thread's floating-point mode; the destructor restores the mode that was there before. A
// program may compute intervals, for which it rounds up or down, or stop at a division by 0: both modes round
// to nearest and never stop. Writing the mode makes the CPU wait for all earlier instructions, so it is only
// written if it changes.
class Mode {
 public:
  enum Kind {
    IEEE,   // the defaults of IEEE 754
    FLUSH,  // the same, but the CPU treats subnormal numbers as 0, both operands and results
  };

  Mode() = default;
  INLINED explicit Mode(Kind kind) { set(kind); }
  INLINED ~Mode() { restore(); }
  INLINED void set(Kind kind) {
    if (!is_known_) before_ = now_ = read();
    is_known_ = true;
    change((before_ & FLAGS) | DEFAULT | (kind == FLUSH ? SUBNORMALS : 0));
  }
  INLINED void restore() {
    if (is_known_) change(before_);
  }
  Mode(const Mode&) = delete;
  Mode& operator=(const Mode&) = delete;

 private:
#if defined(__x86_64__)
  using Bits = unsigned;
  static constexpr Bits FLAGS = 0x3f;         // what happened since they were cleared
  static constexpr Bits DEFAULT = 0x1f80;     // all exceptions are masked
  static constexpr Bits SUBNORMALS = 0x8040;  // FTZ and DAZ
  INLINED static Bits read() { return _mm_getcsr(); }
  INLINED static void write(Bits bits) {
    asm volatile("" ::: "memory");  // the compiler moves no load or store across this
    _mm_setcsr(bits);
    asm volatile("" ::: "memory");
  }
#elif defined(__aarch64__)
  using Bits = std::uint64_t;
  static constexpr Bits FLAGS = 0;  // they have a register of their own
  static constexpr Bits DEFAULT = 0;
  static constexpr Bits SUBNORMALS = Bits{1} << 24;  // FZ
  INLINED static Bits read() {
    Bits bits;
    asm volatile("mrs %0, fpcr" : "=r"(bits));
    return bits;
  }
  INLINED static void write(Bits bits) { asm volatile("msr fpcr, %0" : : "r"(bits) : "memory"); }
#else
  using Bits = int;
  static constexpr Bits FLAGS = 0, DEFAULT = 0, SUBNORMALS = 0;
  static Bits read() { return 0; }
  static void write(Bits) {}
#endif
  INLINED void change(Bits bits) {
    if (bits != now_) write(bits);
    now_ = bits;
  }

  bool is_known_ = false;
  Bits before_ = 0;
  Bits now_ = 0;
};

}  // namespace jaxneuron

#undef INLINED
