// What float and double are made of, and the numbers of ../../_math/formats.py, where they are explained.
#pragma once

#include <cstdint>

namespace jaxneuron::ISA {

template <class T>
struct Format;

template <>
struct Format<float> {
  static constexpr int digits = 23;  // of the significand, the hidden one apart
  static constexpr int bias = 127;   // of the exponent
  static constexpr int few = 12;     // digits of a half: the product of two halves is exact
  static constexpr int up = 40;  // 2^up times a power of two that is subnormal, or less, is a normal number
  static constexpr float ln2[] = {0.693145751953125f, 1.4286068e-06f};
  // From where on exp(-x), x exp(-x) and gelu(-x) round to 0, and 1 - exp(-x) to 1.
  static constexpr float zero = 104.0f, gated_zero = 109.0f, one = 20.0f;
  static constexpr float gelu_zero = 14.5f, gelu_tanh_zero = 10.85f;
  static constexpr float exp[] = {0.5f, 0.16666576f, 0.041666552f, 0.008363293f, 0.0013926326f};
  static constexpr float tanh[] = {-0.3333333f, 0.13333073f, -0.053901564f, 0.021262245f, -0.0065235817f};
  static constexpr float log[] = {0.66666716f, 0.3997891f, 0.29959196f};
  static constexpr float gelu[] = {0.33536786f,  -1.4215181f, 2.5440726f,  -2.78493f,  1.7304796f,
                                   -0.18040413f, -0.5662022f, 0.24579437f, 0.1804731f, -0.121511675f};
};

template <>
struct Format<double> {
  static constexpr int digits = 52;
  static constexpr int bias = 1023;
  static constexpr int few = 26;
  static constexpr int up = 96;
  static constexpr double ln2[] = {0.6931471803691238, 1.9082149292705877e-10};
  static constexpr double zero = 746.0, gated_zero = 753.0, one = 42.0;
  static constexpr double gelu_zero = 38.7, gelu_tanh_zero = 21.65;
  static constexpr double exp[] = {0.5,
                                   0.16666666666666666,
                                   0.04166666666666668,
                                   0.008333333333333333,
                                   0.0013888888888878923,
                                   0.00019841269841263198,
                                   2.4801587336841623e-05,
                                   2.755731924748493e-06,
                                   2.7557262852470396e-07,
                                   2.5052070809943926e-08,
                                   2.0918295266435273e-09,
                                   1.6086732952745416e-10};
  static constexpr double tanh[] = {-0.3333333333333333,    0.13333333333333333,    -0.05396825396825183,
                                    0.021869488536005705,   -0.008863235524478662,  0.0035921279192374428,
                                    -0.0014558327532681909, 0.0005900121398892755,  -0.00023903047693058348,
                                    9.647483955809523e-05,  -3.792830385781134e-05, 1.3162216643590444e-05,
                                    -2.9080155477497814e-06};
  static constexpr double log[] = {0.6666666666666666,  0.4000000000000794,  0.28571428567275936,
                                   0.2222222304835159,  0.18181737626302938, 0.15388867805613718,
                                   0.13209708242059462, 0.13609030262858499};
  static constexpr double gelu[] = {
      0.3353678733755441,    -1.4215180480420564,   2.5440686205660814,    -2.7849375356173383,
      1.7307057522137599,    -0.18025791000272093,  -0.5706443538976085,   0.24545926809093274,
      0.217188755747719,     -0.13164087324714624,  -0.11771392785748659,  0.05626394256067548,
      0.07890723105205211,   -0.011134241628031328, -0.052506464878655915, -0.014441291774210848,
      0.027733716843153088,  0.02457524103520036,   -0.005289410416138383, -0.023099475091294275,
      -0.009598204615744918, 0.017100477597794473,  0.010411880199108003,  -0.010530191665527345};
};

}  // namespace jaxneuron::ISA
