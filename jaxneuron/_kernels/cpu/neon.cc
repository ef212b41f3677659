#define ISA isa_neon
#define BYTES 16

#include "derivatives.h"

const jaxneuron::Kernel jaxneuron::neon = ISA::kernel("neon");
