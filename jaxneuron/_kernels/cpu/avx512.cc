#define ISA isa_avx512
#define BYTES 64

#include "kernel.h"

const jaxneuron::Kernel jaxneuron::avx512 = {"avx512", jaxneuron::ISA::scratch, jaxneuron::ISA::run};
