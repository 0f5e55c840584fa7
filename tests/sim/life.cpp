// SPDX-License-Identifier: Apache-2.0
#include "life.h"
#include "chooser.h"
#include "world.h"

using namespace sim;

namespace {

void live(Chooser chooser)
{
    static sim_program serve;
    serve.name = "serve";
    serve.listens_after = 400 * kpi::kMicrosecond;
    sim_begin(0, 0);
    sim_teach(&serve);
    char name[] = "serve";
    char *arguments[] = {name, nullptr};
    kp_spec spec = {};
    spec.size = sizeof spec;
    spec.argv = arguments;
    spec.flags = chooser.pick(2) == 0 ? 0 : KP_SPEC_NO_GUARD;
    kp_handle *handle = nullptr;
    if (kp_spawn(&spec, &handle, nullptr) != KP_OK)
        complain("it did not start");
    kp_handle_free(handle);
    if (*sim_left() != '\0')
        complain("left: %s", sim_left());
}

} // namespace

void sim_live(const uint8_t *choices, size_t size)
{
    live(Chooser(choices, size));
}

void sim_live_seed(uint64_t seed)
{
    live(Chooser(seed));
}

void sim_tell_history() {}
