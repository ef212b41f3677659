#define ISA isa_avx512
#define BYTES 64

#include "kernel.h"

const jaxneuron::Kernel jaxneuron::avx512 = {"avx512", ISA::scratch, ISA::packed_bytes, ISA::pack, ISA::run};
