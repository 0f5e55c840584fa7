// SPDX-License-Identifier: Apache-2.0
// The owner of one descriptor. Every descriptor that the platform hands out is close-on-exec from
// birth and above 2.
#pragma once

namespace kpi {

namespace sys {
void close_fd(int fd);
}

class Fd {
  public:
    Fd() = default;
    explicit Fd(int number) : number_(number) {}
    Fd(Fd &&other) noexcept : number_(other.release()) {}
    Fd &operator=(Fd &&other) noexcept
    {
        reset(other.release());
        return *this;
    }
    ~Fd() { reset(); }

    int get() const { return number_; }
    explicit operator bool() const { return number_ >= 0; }

    int release()
    {
        int number = number_;
        number_ = -1;
        return number;
    }
    // Forgets the number before it closes it: a child that another thread forks in between closes
    // it too late or not at all, but nobody else's in its place.
    void reset(int number = -1)
    {
        int old = number_;
        number_ = number;
        if (old >= 0)
            sys::close_fd(old);
    }

  private:
    int number_ = -1;
};

} // namespace kpi
