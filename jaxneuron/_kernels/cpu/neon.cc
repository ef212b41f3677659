#define ISA isa_neon
#define BYTES 16

#include "kernel.h"

const jaxneuron::Kernel jaxneuron::neon = {"neon", jaxneuron::ISA::scratch, jaxneuron::ISA::run};
