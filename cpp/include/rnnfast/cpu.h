// SPDX-License-Identifier: MIT
// Which instruction sets there are, and which one is in use.
#pragma once

#include <string>
#include <vector>

namespace rnnfast {

enum class Isa { baseline, avx2, avx512 };

const char* isa_name(Isa isa) noexcept;

/// What this build contains and this CPU and operating system can run, best last.
std::vector<Isa> available_isas();

Isa active_isa() noexcept;

/// Chooses by name. Throws std::invalid_argument for an unknown name and std::runtime_error for one that this
/// build or this CPU lacks; both say what is available.
void set_isa(const std::string& name);

/// The CPU's own name for itself.
std::string cpu_name();

}  // namespace rnnfast
