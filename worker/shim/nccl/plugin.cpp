// ProcessGroupNCCL as a library of its own: the only code that needs headers of CUDA and NCCL. The worker opens it
// where it has a GPU; `nccl.h` must be that of libtorch's own NCCL, whose configuration is part of `Options`.

#define USE_CUDA
#define USE_C10D_NCCL

#include <c10/cuda/CUDAFunctions.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <chrono>
#include <cstdint>
#include <string>

namespace {

using Backend = c10::intrusive_ptr<c10d::Backend>;

}  // namespace

// Joins `world_size` ranks, each with a GPU of its own; returns when all are connected. Throws nothing: on failure
// `message` says why and the result is -1.
extern "C" int muster_nccl_open(const c10::intrusive_ptr<c10d::Store>* store, const char* name, int rank, int world_size,
                                int device, int64_t deadline, Backend* result, std::string* message) noexcept {
  try {
    using Nccl = c10d::ProcessGroupNCCL;
    const auto index = static_cast<c10::DeviceIndex>(device);
    c10::cuda::set_device(index);
    auto options = Nccl::Options::create(/*is_high_priority_stream=*/true);
    options->timeout = std::chrono::milliseconds(deadline);
    options->group_name = name;
    auto own = c10::make_intrusive<c10d::PrefixStore>("nccl", *store);
    auto nccl = c10::make_intrusive<Nccl>(own, rank, world_size, options);
    nccl->setSequenceNumberForGroup();
    const at::Device gpu(at::kCUDA, index);
    nccl->setBoundDeviceId(gpu);
    nccl->eagerConnectSingleDevice(gpu);
    *result = nccl;
    return 0;
  } catch (const c10::Error& error) {
    *message = error.what_without_backtrace();
  } catch (const std::exception& error) {
    *message = error.what();
  } catch (...) {
    *message = "an exception of unknown type";
  }
  return -1;
}
