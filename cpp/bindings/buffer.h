// SPDX-License-Identifier: MIT
// Memory for the kernels.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace rnnfast::bindings {

/// Aligned to cache lines, not initialised. Large buffers lie on huge pages where the system
/// has them: fewer address translations, and no two parts of a matrix that compete for the same cache sets.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes)
      : bytes_(bytes), alignment_{bytes >= kHugePage / 2 ? kHugePage : 64}, data_(::operator new(room(), alignment_)) {
#if defined(__linux__)
    if (static_cast<std::size_t>(alignment_) == kHugePage) madvise(data_, room(), MADV_HUGEPAGE);
#endif
  }
  ~Buffer() { ::operator delete(data_, alignment_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::size_t bytes() const { return bytes_; }
  template <class Real>
  Real* as() const {
    return static_cast<Real*>(data_);
  }

 private:
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;

  /// Huge pages come whole.
  std::size_t room() const {
    const std::size_t unit = static_cast<std::size_t>(alignment_);
    return (bytes_ + unit - 1) / unit * unit;
  }

  std::size_t bytes_;
  std::align_val_t alignment_;
  void* data_;
};

/// Memory for the length of one call. A thread keeps what it had for its next call: memory that is new comes page by
/// page, each of which the system has to clear.
class Scratch {
 public:
  explicit Scratch(std::size_t bytes) : buffer_(std::move(kept())) {
    if (buffer_ == nullptr || buffer_->bytes() < bytes) buffer_ = std::make_unique<Buffer>(bytes);
  }
  ~Scratch() {
    std::unique_ptr<Buffer>& last = kept();
    if (buffer_->bytes() <= kMost && (last == nullptr || last->bytes() < buffer_->bytes())) last = std::move(buffer_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class Real>
  Real* as() const {
    return buffer_->template as<Real>();
  }

 private:
  static constexpr std::size_t kMost = std::size_t{16} << 20;

  static std::unique_ptr<Buffer>& kept() {
    thread_local std::unique_ptr<Buffer> buffer;
    return buffer;
  }

  std::unique_ptr<Buffer> buffer_;
};

}  // namespace rnnfast::bindings
