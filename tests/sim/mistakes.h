/* SPDX-License-Identifier: Apache-2.0 */
/* What the world is to complain of, done on purpose, by calling the platform as a broken
 * library would: deeds for sim_complains(). */
#ifndef KP_TESTS_SIM_MISTAKES_H
#define KP_TESTS_SIM_MISTAKES_H

#ifdef __cplusplus
extern "C" {
#endif

void mistake_none(void);
void mistake_signal_a_stranger(void);
void mistake_signal_a_strangers_group(void);
void mistake_close_twice(void);
void mistake_use_a_closed_descriptor(void);
void mistake_close_what_is_watched(void);
void mistake_reap_twice(void);
void mistake_reap_the_living(void);
void mistake_block_for_ever(void);
void mistake_spin(void);
void mistake_probe_without_reservation(void);
void mistake_leave_an_orphan(void);

#ifdef __cplusplus
}
#endif
#endif
