// SPDX-License-Identifier: Apache-2.0
#include "platform/cancel.h"
#include <pthread.h>

namespace kpi::sys {

Uncancelled::Uncancelled() : host_state_(PTHREAD_CANCEL_ENABLE)
{
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &host_state_);
}

Uncancelled::~Uncancelled()
{
    pthread_setcancelstate(host_state_, nullptr);
}

void call_cancellable(void (*body)(void *), void (*clean_up)(void *), void *data)
{
    pthread_cleanup_push(clean_up, data);
    body(data);
    pthread_cleanup_pop(0);
}

} // namespace kpi::sys
