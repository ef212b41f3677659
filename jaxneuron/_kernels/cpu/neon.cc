#define ISA isa_neon
#define BYTES 16

#include "derivatives.h"

const jaxneuron::Kernel jaxneuron::neon = {"neon",
                                           ISA::scratch,
                                           ISA::packed_bytes,
                                           ISA::pack,
                                           ISA::run,
                                           ISA::derivative_scratch,
                                           ISA::differentiate};
