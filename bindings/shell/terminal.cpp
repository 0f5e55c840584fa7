/* SPDX-License-Identifier: Apache-2.0 */
#include "terminal.hpp"

#include <fcntl.h>
#include <unistd.h>

Terminal::Terminal() : fd_(open("/dev/tty", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC))
{
    look();
}

Terminal::~Terminal()
{
    if (fd_ >= 0)
        close(fd_);
}

void Terminal::look()
{
    if (foreground() == getpgrp())
        was_ours_ = true;
}

pid_t Terminal::foreground() const
{
    return fd_ >= 0 ? tcgetpgrp(fd_) : -1;
}

void Terminal::take_back() const
{
    if (was_ours_)
        tcsetpgrp(fd_, getpgrp()); /* from the background, with SIGTTOU blocked */
}
