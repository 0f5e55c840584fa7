// SPDX-License-Identifier: Apache-2.0
// What happens by chance in a random life: what processes are like and do, and who interferes.
#pragma once

#include "chooser.h"
#include "life.h"
#include "world.h"

namespace sim {

extern Chooser chooser;

void count(sim_event event);

// A new world with all of its chances.
void begin_by_chance();

// The program that the spec names; it is called "proxy".
void teach_proxy();

void bear_stranger();
bool host_may_have_others(); // children that are not the library's
void let_stranger_listen(uint16_t port);

} // namespace sim
