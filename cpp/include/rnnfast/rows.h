// SPDX-License-Identifier: MIT
// Rows from one order to another: between the grid of a ragged batch and the order in which the kernels take its steps.
#pragma once

#include <cstddef>
#include <cstdint>

#include "rnnfast/threads.h"
#include "rnnfast/types.h"

namespace rnnfast {

/// Rows of bytes, `stride` bytes apart.
template <class Pointer>
struct ByteRows {
  Pointer data;
  Index stride;

  Pointer operator[](Index row) const { return data + row * stride; }
};

/// to[k] = from[index[k]], or zero bytes where index[k] < 0, for k < count. The arrays do not overlap.
void copy_rows(ByteRows<std::byte*> to, ByteRows<const std::byte*> from, const std::int64_t* index, Index count,
               std::size_t width, Team& team) noexcept;

/// Makes `width` bytes zero of every row of which is_used is 0.
void clear_rows(ByteRows<std::byte*> rows, const unsigned char* is_used, Index count, std::size_t width,
                Team& team) noexcept;

}  // namespace rnnfast
