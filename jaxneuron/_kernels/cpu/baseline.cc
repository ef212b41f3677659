#define ISA isa_baseline
#define BYTES 16

#include "kernel.h"

const jaxneuron::Kernel jaxneuron::baseline = {"baseline", ISA::scratch, ISA::packed_bytes, ISA::pack,
                                               ISA::run};
