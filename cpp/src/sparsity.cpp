// SPDX-License-Identifier: MIT
#include "rnnfast/sparsity.h"

#include <algorithm>
#include <span>

namespace rnnfast {

/// For each block the runs of `step` inputs of which is_present(block, first, last) says that some are there.
template <class IsPresent>
void Sparsity::find(Owned& to, Index blocks, Index inputs, Index step, const IsPresent& is_present) {
  to.begin = {0};
  to.offset = {0};
  for (Index block = 0; block < blocks; ++block) {
    Index previous_end = -1;
    for (Index first = 0; first < inputs; first += step) {
      const Index last = std::min(inputs, first + step);
      if (!is_present(block, first, last)) continue;
      for (Index input = first; input < last; ++input) to.input.push_back(static_cast<std::int32_t>(input));
      if (previous_end == first) {
        to.bounds.back() = last;
        to.offset.back() += last - first;
      } else {
        to.bounds.insert(to.bounds.end(), {first, last});
        to.offset.push_back(to.offset.back() + last - first);
      }
      previous_end = last;
    }
    to.begin.push_back(static_cast<Index>(to.bounds.size() / 2));
  }
  const auto bounds_of = [&](Index block) {
    const Index* const all = to.bounds.data();
    const auto at = [&](Index number) { return all + 2 * to.begin[static_cast<std::size_t>(number)]; };
    return std::span(at(block), at(block + 1));
  };
  to.alike.assign(static_cast<std::size_t>(blocks), 1);
  for (Index block = blocks - 2; block >= 0; --block) {
    if (std::ranges::equal(bounds_of(block), bounds_of(block + 1))) {
      to.alike[static_cast<std::size_t>(block)] += to.alike[static_cast<std::size_t>(block + 1)];
    }
  }
  to.ranges = {to.begin.data(), to.bounds.data(), to.offset.data(), to.input.data(), to.alike.data()};
}

Sparsity::Sparsity(const unsigned char* present, Index rows, Index columns, Index lanes) {
  constexpr Index kStep = 8;
  const auto any = [&](Index row, Index last_row, Index column, Index last_column) {
    for (; row < std::min(rows, last_row); ++row) {
      const unsigned char* line = present + row * columns;
      if (std::any_of(line + column, line + std::min(columns, last_column), [](unsigned char p) { return p != 0; })) {
        return true;
      }
    }
    return false;
  };
  const auto blocks = [](Index count, Index size) { return (count + size - 1) / size; };
  find(forward_, blocks(rows, lanes), columns, kStep,
       [&](Index block, Index first, Index last) { return any(block * lanes, (block + 1) * lanes, first, last); });
  find(backward_, blocks(columns, lanes), rows, kStep,
       [&](Index block, Index first, Index last) { return any(first, last, block * lanes, (block + 1) * lanes); });
  find(gradient_, blocks(rows, kGradientRows), blocks(columns, lanes), 1, [&](Index group, Index first, Index last) {
    return any(group * kGradientRows, (group + 1) * kGradientRows, first * lanes, last * lanes);
  });
}

}  // namespace rnnfast
