// SPDX-License-Identifier: MIT
#include "rnnfast/rows.h"

#include <cstring>

namespace rnnfast {
namespace {

constexpr Index kBytesWorthWaking = Index{1} << 19;  // some 50 us of copying

/// Calls body(row) for 0..count-1, on all threads if the rows are worth it.
template <class Body>
void for_each_row(Index count, std::size_t width, Team& team, const Body& body) {
  const int members = count * static_cast<Index>(width) < kBytesWorthWaking ? 1 : team.size();
  auto part = [&](int member) {
    const Index last = count * (member + 1) / members;
    for (Index row = count * member / members; row < last; ++row) body(row);
  };
  team.run(members, [](void* context, int member) { (*static_cast<decltype(part)*>(context))(member); }, &part);
}

}  // namespace

void copy_rows(ByteRows<std::byte*> to, ByteRows<const std::byte*> from, const std::int64_t* index, Index count,
               std::size_t width, Team& team) noexcept {
  for_each_row(count, width, team, [&](Index row) {
    if (index[row] < 0) {
      std::memset(to[row], 0, width);
    } else {
      std::memcpy(to[row], from[index[row]], width);
    }
  });
}

void clear_rows(ByteRows<std::byte*> rows, const unsigned char* is_used, Index count, std::size_t width,
                Team& team) noexcept {
  for_each_row(count, width, team, [&](Index row) {
    if (is_used[row] == 0) std::memset(rows[row], 0, width);
  });
}

}  // namespace rnnfast
