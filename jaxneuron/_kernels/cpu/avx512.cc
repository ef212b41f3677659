#define ISA isa_avx512
#define BYTES 64

#include "derivatives.h"

const jaxneuron::Kernel jaxneuron::avx512 = {"avx512",          ISA::scratch, ISA::packed_bytes,
                                             ISA::pack,         ISA::run,     ISA::derivative_scratch,
                                             ISA::differentiate};
