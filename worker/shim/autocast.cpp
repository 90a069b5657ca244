// Mixed precision: tch's own autocast takes no number format. State is per thread.

#include <ATen/autocast_mode.h>

#include "guard.h"

using muster::guarded;

extern "C" {

// From here on this thread computes matrix products in `format` on CUDA, else on the CPU; parameters
// stay what they are. Casts of them are kept until muster_autocast_end.
int muster_autocast_begin(bool cuda, int8_t format) {
  return guarded([&] {
    const c10::DeviceType device = cuda ? at::kCUDA : at::kCPU;
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(format));
    at::autocast::set_autocast_cache_enabled(true);
    at::autocast::set_autocast_enabled(device, true);
  });
}

int muster_autocast_end(bool cuda) {
  return guarded([&] {
    at::autocast::set_autocast_enabled(cuda ? at::kCUDA : at::kCPU, false);
    at::autocast::clear_cache();
  });
}

}  // extern "C"
