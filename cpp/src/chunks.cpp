// SPDX-License-Identifier: MIT
#include "rnnfast/chunks.h"

namespace rnnfast {

Index first_of_chunk(const Dims& d, Index last) noexcept {
  Index first = last - 1;
  while (first > 0 && d.row(last) - d.row(first - 1) <= kPieceRows) --first;
  return first;
}

Index cut_of_chunks(const Dims& d, Index last, Index wanted) noexcept {
  Index first = last;
  while (first > wanted && first > 0) first = first_of_chunk(d, first);
  return first;
}

}  // namespace rnnfast
