#define ISA isa_baseline
#define BYTES 16

#include "derivatives.h"

const jaxneuron::Kernel jaxneuron::baseline = {"baseline",        ISA::scratch, ISA::packed_bytes,
                                               ISA::pack,         ISA::run,     ISA::derivative_scratch,
                                               ISA::differentiate};
