#include "guard.h"

namespace muster {

std::string& last_error() {
  thread_local std::string message;
  return message;
}

}  // namespace muster

extern "C" const char* muster_last_error() { return muster::last_error().c_str(); }
