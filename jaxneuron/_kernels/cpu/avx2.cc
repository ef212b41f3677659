#define ISA isa_avx2
#define BYTES 32

#include "derivatives.h"

const jaxneuron::Kernel jaxneuron::avx2 = {"avx2",
                                           ISA::scratch,
                                           ISA::packed_bytes,
                                           ISA::pack,
                                           ISA::run,
                                           ISA::derivative_scratch,
                                           ISA::differentiate};
