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
    void reset(int number = -1)
    {
        if (number_ >= 0)
            sys::close_fd(number_);
        number_ = number;
    }

  private:
    int number_ = -1;
};

} // namespace kpi
