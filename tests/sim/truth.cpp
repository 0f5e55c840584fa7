// SPDX-License-Identifier: Apache-2.0
#include "truth.h"
#include "chance.h"
#include <algorithm>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <utility>

using namespace kpi;

namespace sim {

namespace {

// How late something may be noticed that no descriptor tells.
constexpr int64_t kLate = 60 * kMillisecond;

bool is_quiet()
{
    return world.happened == 0;
}

bool is_over(size_t being)
{
    return being == kNobody || world.beings[being].state != Being::Alive;
}

// It goes on after SIGKILL, or for so long that it is given up.
bool outlasts(const Being &being)
{
    return being.program->stuck || being.program->dies_after >= kSecond;
}

} // namespace

// ---- results

void check_error(const Answer &answer)
{
    const kp_error &error = *answer.error;
    if (answer.result >= 0)
        return;
    bool ended = memchr(error.message, '\0', sizeof error.message) != nullptr &&
                 memchr(error.output, '\0', sizeof error.output) != nullptr;
    if (error.code != answer.result || !ended || error.message[0] == '\0')
        complain("%s with an error that says %s", kp_result_name(answer.result),
                 kp_result_name(error.code));
}

namespace {

[[noreturn]] void refuse(const Answer &answer)
{
    complain("%s, and the state went from %d to %d", kp_result_name(answer.result), answer.before,
             answer.after);
}

bool is_running(kp_state state)
{
    return state == KP_STATE_STARTING || state == KP_STATE_READY;
}

// KP_AGAIN in STARTING and STOPPING, KP_OK in READY and EXITED, and a failure once.
void check_step(const Told &told, const Answer &answer)
{
    kp_state failed = told.is_attached() ? KP_STATE_EXITED : KP_STATE_STOPPING;
    bool again = answer.after == KP_STATE_STARTING || answer.after == KP_STATE_STOPPING;
    bool right = answer.result == (again ? KP_AGAIN : KP_OK);
    if (answer.result < 0)
        right = answer.before == KP_STATE_STOPPING
                    ? answer.result == KP_ERR_SYSTEM && answer.after == KP_STATE_EXITED
                    : is_running(answer.before) && answer.after == failed;
    if (!right || answer.after < answer.before)
        refuse(answer);
}

bool is_right_wait(const Answer &answer)
{
    if (answer.result == KP_OK)
        return answer.after == answer.until;
    if (answer.result == KP_AGAIN)
        return answer.after != answer.until;
    if (answer.until == KP_STATE_EXITED)
        return answer.result == KP_ERR_SYSTEM && answer.after == KP_STATE_EXITED;
    if (answer.result == KP_ERR_STATE)
        return answer.before > KP_STATE_READY && answer.after == answer.before;
    return answer.before <= KP_STATE_READY && answer.after > KP_STATE_READY;
}

void check_state(const Told &told, const Answer &answer)
{
    if (answer.call == Call::Step)
        return check_step(told, answer);
    bool started = answer.after == KP_STATE_STARTING;
    bool right = answer.call != Call::Wait || is_right_wait(answer);
    if (answer.call == Call::Start || answer.call == Call::Restart)
        right = answer.result == KP_OK ? started : answer.after == answer.before;
    if (answer.call == Call::Spawn)
        right = answer.after == (answer.result == KP_OK ? KP_STATE_READY : 0);
    if (!right)
        refuse(answer);
}

} // namespace

// ---- READY

namespace {

bool is_hidden(const Being &being)
{
    return being.veiled || has(SIM_NO_PROC);
}

// Where one of the proxy's can't be seen, a listener may be its: one of the host's own user (0), or
// of its.
bool may_be_unknown(const Told &told, unsigned uid)
{
    if (told.has(KP_SPEC_ANY_LISTENER) || has(SIM_NO_DIAG))
        return true;
    return std::any_of(world.beings.begin(), world.beings.end(), [uid](const Being &being) {
        return being.ours && is_hidden(being) && (uid == 0 || being.uid == uid);
    });
}

// Then nobody is READY.
void check_is_told(const Told &told)
{
    if (has(SIM_DIAG_REFUSED) && !has(SIM_NO_DIAG) && !told.has(KP_SPEC_ANY_LISTENER))
        complain("READY, and nothing is told of who listens");
}

// Whoever listened all through this turn must have been seen.
void check_no_stranger_listens(const Told &told, uint16_t port)
{
    for (const Being &being : world.beings)
        if (being.listening && being.port == port && !being.ours && being.opened_in < world.turn &&
            !may_be_unknown(told, being.socket_uid))
            complain("READY, and process %d, a stranger, listens", being.pid);
    auto unseen = world.occupied.find(port);
    if (unseen != world.occupied.end() && unseen->second.in < world.turn &&
        !may_be_unknown(told, unseen->second.uid))
        complain("READY, and uid %u, a stranger, listens", unseen->second.uid);
}

void check_somebody_listens(const Told &told, uint16_t port)
{
    bool any = has(SIM_NO_DIAG) || has(SIM_NO_PROC);
    bool blind = told.has(KP_SPEC_ANY_LISTENER) || has(SIM_NO_DIAG);
    if (blind && (told.has(KP_SPEC_PROBE_HTTP) || world.was_short != 0))
        return; // whoever has answered earlier may be gone
    for (const Being &being : world.beings)
        if (being.port == port && (being.listening || being.closed_in == world.turn) &&
            (being.ours || told.is_attached() || may_be_unknown(told, being.socket_uid)))
            return;
    bool unseen = world.occupied.count(port) != 0;
    if (!unseen && !(any && !is_quiet()))
        complain("READY, and nobody listens");
}

void check_attached(const Told &told, uint16_t port)
{
    for (const Being &being : world.beings)
        if (being.listening && being.port == port && being.socket_uid != 0 &&
            !being.program->unlisted && being.opened_in < world.turn &&
            !told.has(KP_SPEC_ANY_LISTENER) && !has(SIM_NO_DIAG))
            complain("READY, and a listener is of uid %u", being.socket_uid);
}

// Its end: a tracer keeps it from who waits for it by number.
bool is_unseen(const Being &being)
{
    return being.held && std::none_of(world.table.begin(), world.table.end(),
                                      [&being](const Descriptor &descriptor) {
                                          return descriptor.kind == Descriptor::End &&
                                                 descriptor.being == being.self;
                                      });
}

void check_ready(const Told &told)
{
    uint16_t port = kp_handle_port(told.handle);
    check_is_told(told);
    if (told.is_attached())
        check_attached(told, port);
    else
        check_no_stranger_listens(told, port);
    check_somebody_listens(told, port);
    if (told.is_attached())
        return;
    if (is_over(world.proxy) && is_quiet() && !is_unseen(world.beings[world.proxy]))
        complain("READY, and the proxy has ended");
    if (world.guard != kNobody && is_over(world.guard) && is_quiet())
        complain("READY, and the guard has ended");
}

} // namespace

// ---- EXITED

void check_state_now(Told &told)
{
    kp_state state = kp_handle_state(told.handle);
    if (state == KP_STATE_READY && told.seen != state) {
        count(SIM_READY);
        check_ready(told);
    }
    // It may have had nobody to ask.
    if (state == KP_STATE_STOPPING && world.kill_due == kNever)
        world.kill_due = world.turn_began + told.grace(), world.kill_by = world.now + told.grace();
    told.seen = state;
}

namespace {

bool is_given_up(const Answer &answer)
{
    return answer.result == KP_ERR_SYSTEM && strstr(answer.error->message, "given up") != nullptr;
}

void check_given_up(const Answer &answer)
{
    int pid = 0;
    sscanf(answer.error->message, "process %d of", &pid);
    const Being *being = newest(pid);
    count(SIM_GIVEN_UP);
    // Where nobody can look, what is left of a group that the proxy leads may be zombies.
    bool is_blind = has(SIM_NO_PROC) || world.was_short != 0;
    bool there =
        being != nullptr && being->ours &&
        (being->state == Being::Alive || being->held || !is_quiet() || (is_blind && being->left));
    if (!there)
        complain("given up, and there is no process %d", pid);
}

// Somebody else has ended the guard, and its group can be signalled by number alone, which nobody
// pins any more. Or the leader was gone before it could be held on to.
bool is_out_of_reach()
{
    if (world.lost)
        return true;
    bool by_number = has(SIM_NO_PIDFD) || has(SIM_NO_GROUP_SIGNAL) || world.was_short != 0;
    return by_number && (has(SIM_HOST_REAPS) || has(SIM_HOST_WAITS));
}

bool may_remain(const Being &being)
{
    bool is_blind = has(SIM_NO_PROC) || world.was_short != 0;
    bool can_not_be_seen = is_blind && being.told[SIGKILL] >= 0 && outlasts(being);
    // By number a leader that a tracer holds is taken for one who came after the group.
    bool is_dying = being.told[SIGKILL] >= 0 && being.band < world.beings.size() &&
                    world.beings[being.band].held && has(SIM_NO_PROC);
    return can_not_be_seen || is_out_of_reach() || is_dying;
}

// One can be held on to: it is the proxy where that has left its group, too, and the leader of the
// owner's group has ended.
bool is_held_owner(const Being &being)
{
    return being.self == world.outside && being.band == world.outside_band &&
           !(is_over(being.band) && world.beings[world.proxy].left);
}

void check_everybody_is_gone()
{
    for (const Being &being : world.beings) {
        bool counts = is_member(being) || being.self == world.proxy || is_held_owner(being);
        if (counts && !being.given_up && being.state == Being::Alive && !may_remain(being))
            complain("EXITED, and process %d (%s) lives", being.pid, being.program->name);
    }
}

void check_exited(const Told &told, const Answer &answer)
{
    count(SIM_EXITED);
    if (told.is_attached())
        return;
    if (is_given_up(answer))
        check_given_up(answer);
    else
        check_everybody_is_gone();
    for (Being &being : world.beings)
        being.given_up = being.given_up || (being.ours && being.state == Being::Alive);
    uint16_t port = kp_handle_port(told.handle);
    bool reserves = !told.has(KP_SPEC_NO_RESERVE) && !has(SIM_NO_SHARE);
    if (reserves && !is_reserved_from(port, true))
        complain("EXITED, and anybody may bind port %u", port);
}

} // namespace

// ---- failures

namespace {

// In the group of the proxy that runs.
bool is_of_now(const Being &being)
{
    return being.band == (world.guard != kNobody ? world.guard : world.proxy);
}

bool is_foreign_possible(uint16_t port)
{
    if (world.occupied.count(port) != 0 || !is_quiet() || has(SIM_DIAG_REFUSED))
        return true;
    for (const Being &being : world.beings)
        if (being.port == port && being.listening &&
            (!is_of_now(being) || being.veiled || (has(SIM_NO_PROC) && being.socket_uid != 0)))
            return true;
    return false;
}

// Also after a spawn, when all is over again.
void check_spec_allows(const Told &told, kp_result result)
{
    bool wrong = false;
    if (result == KP_ERR_GUARD)
        wrong = told.has(KP_SPEC_NO_GUARD);
    if (result == KP_ERR_TIMED_OUT)
        wrong = world.now < told.started + told.patience();
    if (result == KP_ERR_NOT_HTTP)
        wrong = !told.has(KP_SPEC_PROBE_HTTP);
    if (result == KP_ERR_FOREIGN_LISTENER)
        wrong = told.has(KP_SPEC_ANY_LISTENER);
    if (wrong)
        complain("%s, which what was asked for rules out", kp_result_name(result));
}

void check_start_failure(kp_result result)
{
    bool short_of_anything = world.was_short != 0;
    bool spawn_fails = world.programs[0]->spawn_errno != 0;
    bool wrong = false;
    if (result == KP_ERR_SYSTEM || result == KP_ERR_NO_MEMORY)
        wrong = !short_of_anything && !spawn_fails && is_over(world.proxy) &&
                !(world.proxy != kNobody && is_unseen(world.beings[world.proxy]));
    if (result == KP_ERR_SPAWN)
        wrong = !spawn_fails && is_quiet();
    if (result == KP_ERR_GUARD)
        wrong = world.guard != kNobody && !is_over(world.guard);
    if (wrong)
        complain("%s, and it is not so", kp_result_name(result));
}

void check_failure(const Told &told, const Answer &answer)
{
    bool wrong = false;
    kp_result result = answer.result;
    if (result == KP_ERR_EXITED)
        wrong = world.proxy == kNobody || !is_over(world.proxy);
    if (result == KP_ERR_GUARD)
        wrong = world.guard == kNobody || !is_over(world.guard);
    if (result == KP_ERR_FOREIGN_LISTENER)
        wrong = !is_foreign_possible(kp_handle_port(told.handle));
    if (result == KP_ERR_SYSTEM)
        wrong = world.was_short == 0 && !is_given_up(answer);
    if (wrong)
        complain("%s, and it is not so: %s", kp_result_name(result), answer.error->message);
}

} // namespace

void check_answer(const Told &told, const Answer &answer)
{
    if (!may_return(answer.call, answer.result))
        complain("%s is no answer to this call", kp_result_name(answer.result));
    check_error(answer);
    check_state(told, answer);
    bool starts = answer.call == Call::Start || answer.call == Call::Restart;
    if (answer.result < 0 && answer.result != KP_ERR_STATE && answer.result != KP_ERR_INVALID) {
        count(static_cast<sim_event>(SIM_ERR_INVALID - 1 - answer.result));
        check_spec_allows(told, answer.result);
        if (starts)
            check_start_failure(answer.result);
        else if (answer.call != Call::Spawn)
            check_failure(told, answer);
    }
    if (answer.after == KP_STATE_EXITED && answer.before != KP_STATE_EXITED)
        check_exited(told, answer);
}

// ---- never stuck

namespace {

// The proxy or the owner of the listener, where it has left the group, and those who went with it.
bool is_with(size_t outside, const Being &being)
{
    return outside != kNobody && being.ours && being.left &&
           being.band == world.beings[outside].band;
}

// What the library waits for is there already.
bool is_due(const Told &told, kp_state state)
{
    if (told.is_attached() || state == KP_STATE_EXITED)
        return false;
    if (state == KP_STATE_READY)
        return is_over(world.proxy);
    if (state == KP_STATE_STARTING)
        return is_over(world.proxy) || (world.guard != kNobody && is_over(world.guard));
    return is_over(world.proxy) && is_over(world.outside) && !world.somebody_left &&
           std::none_of(world.beings.begin(), world.beings.end(), [](const Being &being) {
               bool awaited = being.pipe == 0 || being.doomed; // a guard is ended in the end
               bool counts =
                   is_member(being) || is_with(world.outside, being) || is_with(world.proxy, being);
               return counts && being.state == Being::Alive && awaited && !being.given_up;
           });
}

Deadline timer_of(int fd)
{
    return use(use(fd, Descriptor::Events, "truth").timer, Descriptor::Timer, "truth").due;
}

// In READY it may be only the end of the proxy that tells.
bool is_watched(int fd, size_t being)
{
    for (const sys::Watch &watch : use(fd, Descriptor::Events, "truth").watches) {
        const Descriptor &watched = use(watch.fd, "truth");
        if (watched.kind == Descriptor::End && watched.being == being)
            return true;
    }
    return false;
}

void check_descriptor(const Told &told, kp_state state, bool due)
{
    Deadline timer = timer_of(told.fd);
    bool readable = is_ready({told.fd, false});
    if (state == KP_STATE_EXITED && readable)
        complain("EXITED, and the descriptor is readable");
    bool will_be = readable || !timer.is_never() || state == KP_STATE_EXITED ||
                   told.is_attached() || is_watched(told.fd, world.proxy);
    if (!will_be)
        complain("stuck: nothing will make the descriptor readable");
    if (due && !readable && timer.at > world.now + kLate)
        complain("stuck: what is waited for has happened, and the descriptor is not readable");
}

} // namespace

void check_awake(const Told &told)
{
    kp_state state = kp_handle_state(told.handle);
    long quiet_calls = std::exchange(world.quiet_calls, 0);
    int64_t rest = kp_handle_timeout_ns(told.handle);
    world.quiet_calls = quiet_calls;
    bool due = is_due(told, state);
    if (told.fd >= 0)
        return check_descriptor(told, state, due);
    if ((rest < 0) != (state == KP_STATE_EXITED))
        complain("stuck: in state %d a step is due in %lld ns", state,
                 static_cast<long long>(rest));
    if (due && rest > kLate)
        complain("stuck: what is waited for has happened, and a step is due in %lld ns only",
                 static_cast<long long>(rest));
}

void check_time(const char *what, int64_t begun, int64_t stalled, int64_t most)
{
    int64_t took = world.now - begun - (world.stalled - stalled);
    if (took > most + 30 * kMillisecond)
        complain("%s took %.3f ms, and not at most %.3f", what, static_cast<double>(took) * 1e-6,
                 static_cast<double>(most) * 1e-6);
}

void check_nothing_is_left()
{
    for (size_t fd = 3; fd < world.table.size(); ++fd)
        if (world.table[fd].kind != Descriptor::Closed && world.table[fd].kind != Descriptor::Other)
            complain("left: descriptor %zu", fd);
    for (const Being &being : world.beings) {
        if (!being.ours)
            continue;
        // Of a proxy that was traced until another was started nobody knows any more.
        bool forgotten = being.program->traced_for != 0 &&
                         (being.self != world.proxy || being.released_in == world.turn);
        if (being.state == Being::Zombie && being.parent == kHost && !being.held &&
            !outlasts(being) && !forgotten)
            complain("left: process %d, a zombie", being.pid);
        bool counts = being.parent == kHost || !being.left;
        if (being.state == Being::Alive && counts && !outlasts(being) && !may_remain(being))
            complain("left: process %d (%s)", being.pid, being.program->name);
    }
    if (world.blocks != 0)
        complain("left: %ld blocks of memory", world.blocks);
}

} // namespace sim
