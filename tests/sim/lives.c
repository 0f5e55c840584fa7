/* SPDX-License-Identifier: Apache-2.0 */
/* lives FIRST COUNT: random lives of that many seeds. lives SEED: one, with its history. */
#include "life.h"
#include <stdio.h>
#include <stdlib.h>

int main(int count, char **arguments)
{
    if (count < 2)
        return 2;
    uint64_t first = strtoull(arguments[1], NULL, 10);
    uint64_t lives = count > 2 ? strtoull(arguments[2], NULL, 10) : 1;
    for (uint64_t i = 0; i < lives; i++)
        sim_live_seed(first + i);
    printf("%llu schedules\n", (unsigned long long)lives);
    return 0;
}
