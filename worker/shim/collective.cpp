// Collectives of libtorch's own c10d: a store, a process group over Gloo, and the Reducer of
// DistributedDataParallel, which reduces gradients while the backward pass still runs. Tensors are
// borrowed `at::Tensor*`. Every wait has a deadline, in milliseconds.

#define USE_C10D_GLOO

#include <ATen/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>
#include <torch/csrc/distributed/c10d/logger.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "guard.h"

using muster::guarded;

namespace {

using Backend = c10::intrusive_ptr<c10d::Backend>;
using ProcessGroup = c10::intrusive_ptr<c10d::ProcessGroup>;
using std::chrono::milliseconds;

// Of the plugin, see nccl/plugin.cpp.
using NcclOpen = int (*)(const c10::intrusive_ptr<c10d::Store>* store, const char* name, int rank,
                         int world_size, int device, int64_t deadline, Backend* result,
                         std::string* message);

std::vector<at::Tensor> borrow(at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> list;
  list.reserve(count);
  for (size_t i = 0; i < count; i++) list.push_back(*tensors[i]);
  return list;
}

// Adds the buckets of all ranks up, without dividing; on the way they may take a shorter format.
class Sum : public c10d::CommHookInterface {
 public:
  Sum(ProcessGroup group, std::optional<at::ScalarType> format)
      : group_(std::move(group)), format_(format) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    const at::Tensor buffer = bucket.getBuffer();
    if (!format_) {
      std::vector<at::Tensor> tensors{buffer};
      return group_->allreduce(tensors)->getFuture();
    }
    std::vector<at::Tensor> tensors{buffer.to(*format_)};
    const auto reduced = group_->allreduce(tensors)->getFuture();
    const auto widen = [buffer](c10::ivalue::Future& done) {
      buffer.copy_(done.value().toTensorVector().at(0));
      return c10::IValue(buffer);
    };
    return reduced->then(widen, c10::TensorType::get());
  }

  at::Tensor parseHookResult(const c10::IValue& result) override {
    return c10d::detail::parseCppCommHookResult(result);
  }

 private:
  ProcessGroup group_;
  std::optional<at::ScalarType> format_;
};

// Keeps the buckets it was made with. Rebuilt after the first step, as DistributedDataParallel does
// it, they would add up in another order in a resumed run than in one that was never interrupted.
class FixedReducer : public c10d::Reducer {
 public:
  template <typename... Arguments>
  explicit FixedReducer(Arguments&&... arguments)
      : c10d::Reducer(std::forward<Arguments>(arguments)...) {
    has_rebuilt_bucket_ = true;
  }
};

}  // namespace

extern "C" {

struct muster_store {
  c10::intrusive_ptr<c10d::Store> store;
};

struct muster_group {
  ProcessGroup group;
};

struct muster_work {
  c10::intrusive_ptr<c10d::Work> work;
  std::vector<at::Tensor> tensors;
};

struct muster_reducer {
  std::shared_ptr<c10d::Reducer> reducer;
  std::shared_ptr<c10d::Logger> logger;
};

// `listener` is a listening socket that the store serves and takes over, or -1: a client only.
int muster_store_open(const char* host, uint16_t port, int listener, int64_t deadline,
                      muster_store** result) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = listener >= 0;
    options.waitWorkers = false;
    options.timeout = milliseconds(deadline);
    if (listener >= 0) options.masterListenFd = listener;
    *result = new muster_store{c10::make_intrusive<c10d::TCPStore>(host, options)};
  });
}

void muster_store_close(muster_store* store) {
  guarded([&] { delete store; });
}

// All ranks of `world_size` must call it with the same `name`. `interface` (else null) is the network
// interface to use, `address` the own address otherwise. With a `device` (else -1), tensors of that GPU
// are reduced too: through `nccl` (`muster_nccl_open` of the plugin) or, when it is null, through Gloo.
int muster_group_open(const muster_store* store, const char* name, int rank, int world_size,
                      const char* interface, const char* address, int device, NcclOpen nccl,
                      int64_t deadline, muster_group** result) {
  return guarded([&] {
    using Gloo = c10d::ProcessGroupGloo;
    auto own = c10::make_intrusive<c10d::PrefixStore>(name, store->store);
    auto options = Gloo::Options::create(milliseconds(deadline));
    options->devices.push_back(interface != nullptr ? Gloo::createDeviceForInterface(interface)
                                                    : Gloo::createDeviceForHostname(address));
    options->threads = 2;
    Backend gloo = c10::make_intrusive<Gloo>(c10::make_intrusive<c10d::PrefixStore>("gloo", own), rank,
                                             world_size, options);
    gloo->setSequenceNumberForGroup();
    auto group = c10::make_intrusive<c10d::ProcessGroup>(own, rank, world_size);
    constexpr auto type = c10d::ProcessGroup::BackendType::GLOO;
    group->setBackend(at::kCPU, type, gloo);
    if (device >= 0 && nccl == nullptr) group->setBackend(at::kCUDA, type, gloo);
    if (device >= 0 && nccl != nullptr) {
      Backend backend;
      std::string message;
      if (nccl(&store->store, name, rank, world_size, device, deadline, &backend, &message) != 0) {
        throw std::runtime_error(message);
      }
      group->setBackend(at::kCUDA, c10d::ProcessGroup::BackendType::NCCL, backend);
    }
    group->setDefaultBackend(type);
    group->setGroupName(name);
    *result = new muster_group{group};
  });
}

// Waits for what is in flight.
void muster_group_close(muster_group* group) {
  guarded([&] { delete group; });
}

// Begins to replace `tensor` by the sum over all ranks, or by the largest value.
int muster_all_reduce(const muster_group* group, at::Tensor* tensor, bool largest, int64_t deadline,
                      muster_work** result) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> tensors{*tensor};
    c10d::AllreduceOptions options;
    if (largest) options.reduceOp = c10d::ReduceOp::MAX;
    options.timeout = milliseconds(deadline);
    auto work = group->group->allreduce(tensors, options);
    *result = new muster_work{std::move(work), std::move(tensors)};
  });
}

// Waits for it and frees it.
int muster_work_finish(muster_work* work) {
  return guarded([&] {
    const std::unique_ptr<muster_work> owned(work);
    owned->work->wait();
  });
}

// Gives all ranks the values of rank 0.
int muster_broadcast(const muster_group* group, at::Tensor* const* tensors, size_t count) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> values = borrow(tensors, count);
    for (at::Tensor& value : values) value = value.detach();
    constexpr size_t buffer_bytes = 64 << 20;
    if (!values.empty()) c10d::broadcast_coalesced(group->group, values, buffer_bytes, 0);
  });
}

// Reduces the gradients of `parameters`, which need gradients now, in the given order, last first.
// `format`: 0 keeps theirs, else a ScalarType to send them in.
int muster_reducer_open(const muster_group* group, at::Tensor* const* parameters,
                        const char* const* names, size_t count, size_t first_bucket_bytes,
                        size_t bucket_bytes, int8_t format, muster_reducer** result) {
  return guarded([&] {
    const std::vector<at::Tensor> list = borrow(parameters, count);
    std::vector<at::Tensor> backwards(list.rbegin(), list.rend());
    std::vector<bool> sparse(count, false);
    auto [buckets, limits] = c10d::compute_bucket_assignment_by_size(
        backwards, {first_bucket_bytes, bucket_bytes}, sparse);
    std::unordered_map<size_t, std::string> names_by_index;
    for (size_t i = 0; i < count; i++) names_by_index[i] = names[count - 1 - i];
    auto reducer = std::make_shared<FixedReducer>(
        backwards, buckets, group->group, sparse, static_cast<int64_t>(bucket_bytes),
        /*find_unused_parameters=*/false, /*gradient_as_bucket_view=*/true, names_by_index,
        static_cast<int64_t>(first_bucket_bytes), /*skip_all_reduce_unused_params=*/false,
        /*use_python_reducer=*/false, std::vector<int64_t>{});
    std::optional<at::ScalarType> short_format;
    if (format != 0) short_format = static_cast<at::ScalarType>(format);
    reducer->register_comm_hook(std::make_unique<Sum>(group->group, short_format));
    auto logger = std::make_shared<c10d::Logger>(reducer);
    reducer->set_logger(logger);
    logger->set_construction_data_and_log("muster", {}, -1, false, false, false);
    *result = new muster_reducer{reducer, logger};
  });
}

void muster_reducer_close(muster_reducer* reducer) {
  guarded([&] { delete reducer; });
}

// Before the last forward of a step, whose backward reduces.
int muster_reducer_forward(const muster_reducer* reducer) {
  return guarded([&] {
    reducer->logger->set_runtime_stats_and_log();
    reducer->reducer->prepare_for_forward();
  });
}

// After that forward: every gradient of the next backward is reduced. Without it they add up locally.
int muster_reducer_backward(const muster_reducer* reducer) {
  return guarded([&] { reducer->reducer->prepare_for_backward({}); });
}

// Mean nanoseconds of the sampled steps: backward computation, communication, and their overlap.
int muster_reducer_times(const muster_reducer* reducer, int64_t* times) {
  return guarded([&] {
    const auto data = reducer->logger->get_ddp_logging_data();
    const auto value = [&](const char* name) {
      const auto found = data.ints_map.find(name);
      return found == data.ints_map.end() ? int64_t{0} : found->second;
    };
    times[0] = value("avg_backward_compute_time");
    times[1] = value("avg_backward_comm_time");
    times[2] = value("avg_backward_compute_comm_overlap_time");
  });
}

}  // extern "C"
