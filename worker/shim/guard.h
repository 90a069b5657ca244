// How every function of the shim turns exceptions into a status.
#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <string>

namespace muster {

// The message of the last failure on this thread.
std::string& last_error();

template <typename Body>
int guarded(Body body) noexcept {
  try {
    body();
    return 0;
  } catch (const c10::Error& error) {
    last_error() = error.what_without_backtrace();
  } catch (const std::exception& error) {
    last_error() = error.what();
  } catch (...) {
    last_error() = "an exception of unknown type";
  }
  return -1;
}

}  // namespace muster
