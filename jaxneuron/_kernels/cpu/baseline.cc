#define ISA isa_baseline
#define BYTES 16

#include "kernel.h"

const jaxneuron::Kernel jaxneuron::baseline = {"baseline", jaxneuron::ISA::scratch, jaxneuron::ISA::run};
