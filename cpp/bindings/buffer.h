// SPDX-License-Identifier: MIT
// Memory for the kernels.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

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

/// Memory that was given back, for whoever asks next. Memory that is new comes page by page, each of which the system
/// has to clear: for small layers that takes as long as the products that fill it.
class Kept {
 public:
  /// At least so many bytes.
  static std::unique_ptr<Buffer> take(std::size_t bytes) {
    if (const Lock lock(self().mutex_, std::try_to_lock); lock) {
      std::vector<std::unique_ptr<Buffer>>& buffers = self().buffers_;
      auto best = buffers.end();
      for (auto it = buffers.begin(); it != buffers.end(); ++it) {
        const std::size_t size = (*it)->bytes();
        if (size >= bytes && size <= bytes + bytes / 4 + kSmall && (best == buffers.end() || size < (*best)->bytes()))
          best = it;
      }
      if (best != buffers.end()) {
        std::unique_ptr<Buffer> found = std::move(*best);
        buffers.erase(best);
        self().total_ -= found->bytes();
        return found;
      }
    }
    return std::make_unique<Buffer>(bytes);
  }

  static void give(std::unique_ptr<Buffer> buffer) {
    const std::size_t size = buffer->bytes();
    const Lock lock(self().mutex_, std::try_to_lock);
    if (!lock || size > kMost) return;
    std::vector<std::unique_ptr<Buffer>>& buffers = self().buffers_;
    while (self().total_ + size > kMost || buffers.size() == kMostBuffers) {  // what was kept longest goes
      self().total_ -= buffers.front()->bytes();
      buffers.erase(buffers.begin());
    }
    buffers.push_back(std::move(buffer));
    self().total_ += size;
  }

 private:
  Kept() { buffers_.reserve(kMostBuffers); }  // so that giving back never fails

  // Nobody waits for the lock: a process that was forked while another thread had it would wait for ever.
  using Lock = std::unique_lock<std::mutex>;
  static constexpr std::size_t kSmall = std::size_t{16} << 10;
#if defined(__SANITIZE_ADDRESS__)
  static constexpr std::size_t kMost = 0;  // memory that is used again hides accesses beyond its end
#else
  static constexpr std::size_t kMost = std::size_t{64} << 20;
#endif
  static constexpr std::size_t kMostBuffers = 64;

  /// Never destroyed: arrays may be given back after all that is static.
  static Kept& self() {
    static Kept* const kept = new Kept;
    return *kept;
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Buffer>> buffers_;  // in the order in which they were given back
  std::size_t total_ = 0;
};

/// Memory for the length of one call.
class Scratch {
 public:
  explicit Scratch(std::size_t bytes) : buffer_(Kept::take(bytes)) {}
  ~Scratch() { Kept::give(std::move(buffer_)); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class Real>
  Real* as() const {
    return buffer_->template as<Real>();
  }

 private:
  std::unique_ptr<Buffer> buffer_;
};

}  // namespace rnnfast::bindings
