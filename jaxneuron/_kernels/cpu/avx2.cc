#define ISA isa_avx2
#define BYTES 32

#include "derivatives.h"

const jaxneuron::Kernel jaxneuron::avx2 = ISA::kernel("avx2");
