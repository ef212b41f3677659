#define ISA isa_avx512
#define BYTES 64

#include "derivatives.h"

const jaxneuron::Kernel jaxneuron::avx512 = ISA::kernel("avx512");
