// SPDX-License-Identifier: MIT
// bench/shapes.csv.
#pragma once

#include <string>
#include <vector>

#include "rnnfast/types.h"

namespace rnnfast::bench {

struct Shape {
  std::string name;
  Dims dims;
  std::string cells;  // names with spaces between them
  bool quick;
};

/// Throws std::runtime_error that names the line if the file is not as expected.
std::vector<Shape> read_shapes(const std::string& path);

}  // namespace rnnfast::bench
