// Declarations of gloo that libtorch's ProcessGroupGloo.hpp names: libtorch carries gloo inside, but not
// its headers. c10d holds these types behind pointers only, so nothing here is ever made or laid out.
#pragma once

#include <chrono>

namespace gloo {
class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};
}  // namespace gloo
