// The version of libtorch that the shim is compiled against; the program loads the library of the same directory.

#include <torch/version.h>

extern "C" const char* muster_libtorch_version() { return TORCH_VERSION; }
