#define ISA isa_baseline
#define BYTES 16

#include "derivatives.h"

const jaxneuron::Kernel jaxneuron::baseline = ISA::kernel("baseline");
