// SPDX-License-Identifier: MIT
// Which products of a matrix with absent connections are worth making, for registers of a given width.
#pragma once

#include <cstdint>
#include <vector>

#include "rnnfast/options.h"

namespace rnnfast {

/// Owns what Connections points to, for one matrix.
class Sparsity {
 public:
  /// `present` (rows, columns): not 0 where there is a connection. Inputs are taken eight at a time.
  Sparsity(const unsigned char* present, Index rows, Index columns, Index lanes);
  Sparsity(const Sparsity&) = delete;
  Sparsity& operator=(const Sparsity&) = delete;

  Connections connections() const { return {&forward_.ranges, &backward_.ranges, &gradient_.ranges}; }

 private:
  struct Owned {
    std::vector<Index> begin, bounds, offset, alike;
    std::vector<std::int32_t> input;
    Ranges ranges{};
  };

  template <class IsPresent>
  static void find(Owned& to, Index blocks, Index inputs, Index step, const IsPresent& is_present);

  Owned forward_, backward_, gradient_;
};

}  // namespace rnnfast
