// SPDX-License-Identifier: MIT
#include "shapes.h"

#include <fstream>
#include <sstream>
#include <stdexcept>

namespace rnnfast::bench {

std::vector<Shape> read_shapes(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line) || line != "name,T,N,I,H,cells,quick") {
    throw std::runtime_error(path + ": cannot be read, or its first line is not name,T,N,I,H,cells,quick");
  }
  std::vector<Shape> shapes;
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    Shape shape;
    char comma = 0;
    std::getline(fields, shape.name, ',');
    for (Index* size : {&shape.dims.T, &shape.dims.N, &shape.dims.I, &shape.dims.H}) fields >> *size >> comma;
    std::getline(fields, shape.cells, ',');
    std::string quick;
    std::getline(fields, quick);
    if (shape.cells.empty()) throw std::runtime_error(path + ": cannot read the line " + line);
    shape.quick = quick == "yes";
    shapes.push_back(shape);
  }
  return shapes;
}

}  // namespace rnnfast::bench
