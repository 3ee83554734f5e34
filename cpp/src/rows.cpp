// SPDX-License-Identifier: MIT
#include "rnnfast/rows.h"

#include <cstring>

namespace rnnfast {
namespace {

constexpr Index kBytesWorthWaking = Index{1} << 19;  // some 50 us of copying

}  // namespace

void copy_rows(ByteRows<std::byte*> to, ByteRows<const std::byte*> from, const std::int64_t* index, Index count,
               std::size_t width, Team& team) noexcept {
  const int members = count * static_cast<Index>(width) < kBytesWorthWaking ? 1 : team.size();
  auto part = [&](int member) {
    const Index last = count * (member + 1) / members;
    for (Index k = count * member / members; k < last; ++k) {
      if (index[k] < 0) {
        std::memset(to[k], 0, width);
      } else {
        std::memcpy(to[k], from[index[k]], width);
      }
    }
  };
  team.run(members, [](void* body, int member) { (*static_cast<decltype(part)*>(body))(member); }, &part);
}

}  // namespace rnnfast
