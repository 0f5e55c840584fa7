/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel answers when it is asked who listens. The library reads it by recv(), which is
 * this program's here: it plays answers that are rare, or that no kernel should give, and then lets
 * the kernel's own through. None of them may keep a proxy from becoming ready.
 */
#include "support.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* ---- The answers ----------------------------------------------------------- */

enum { MOST_BYTES = 512 };

/* What one recv() gives: an error, or bytes. */
struct answer {
    int error;
    size_t size;
    char bytes[MOST_BYTES];
};

static struct answer next_answer;
static bool is_next; /* else the kernel is asked */
static bool repeats; /* it is the next one again and again */
static int asked;    /* how often the kernel was */

static bool is_netlink(int fd)
{
    int domain = 0;
    socklen_t size = sizeof domain;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_NETLINK;
}

ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
    if (!is_next || !is_netlink(fd)) {
        asked += is_netlink(fd);
        return recvfrom(fd, buffer, size, flags, NULL, NULL);
    }
    is_next = repeats;
    memcpy(buffer, next_answer.bytes, next_answer.size);
    errno = next_answer.error;
    return next_answer.error != 0 ? -1 : (ssize_t)next_answer.size;
}

static void add(const void *bytes, size_t size)
{
    assert_true(next_answer.size + size <= MOST_BYTES);
    if (size != 0)
        memcpy(next_answer.bytes + next_answer.size, bytes, size);
    next_answer.size += size;
}

/* The length is what the header says it is. */
static void add_header(unsigned type, size_t length)
{
    struct nlmsghdr header = {.nlmsg_len = (uint32_t)length, .nlmsg_type = (uint16_t)type};
    add(&header, sizeof header);
}

static void add_number(unsigned type, int number)
{
    add_header(type, NLMSG_LENGTH(sizeof number));
    add(&number, sizeof number);
}

/* Of a stranger whom nobody can find, on [::], with something behind it. */
static struct inet_diag_msg stranger(void)
{
    return (struct inet_diag_msg){.idiag_family = AF_INET6, .idiag_inode = 1};
}

static void add_listener(struct inet_diag_msg message, const void *behind, size_t size)
{
    add_header(TCPDIAG_GETSOCK, NLMSG_LENGTH(sizeof message) + size);
    add(&message, sizeof message);
    add(behind, size);
}

static void add_attribute(unsigned type, size_t length)
{
    struct nlattr attribute = {.nla_len = (uint16_t)length, .nla_type = (uint16_t)type};
    char behind[sizeof attribute + 4] = "";
    memcpy(behind, &attribute, sizeof attribute);
    add_listener(stranger(), behind, sizeof behind);
}

/* ---- What becomes of them ------------------------------------------------------ */

static void begin(int error)
{
    next_answer = (struct answer){.error = error};
}

/* The answer comes to the first question about a proxy that listens. How often the kernel was
 * asked afterwards. */
static int times_asked_after(struct scene *scene)
{
    assert_result(KP_OK, start(scene, spec_for(FIXTURE("serve"))));
    while (!port_answers(kp_handle_port(scene->proxy)))
        sleep_ms(1);
    is_next = true;
    asked = 0;
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    int times = asked;
    assert_false(is_next);
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    return times;
}

/* That it tells nothing is no reason to ask again. */
static void is_believed(struct scene *scene)
{
    assert_int_equal(times_asked_after(scene), 0);
}

static void is_asked_again(struct scene *scene)
{
    assert_true(times_asked_after(scene) > 0);
}

static void an_interrupted_call(void **state)
{
    begin(EINTR);
    is_asked_again(*state);
}

static void a_failed_call(void **state)
{
    begin(EIO);
    is_believed(*state);
}

static void a_shortage_that_passes(void **state)
{
    begin(ENOBUFS);
    is_asked_again(*state);
}

static void nothing(void **state)
{
    begin(0);
    is_believed(*state);
}

static void a_refusal(void **state)
{
    begin(0);
    add_number(NLMSG_ERROR, -EPERM);
    is_believed(*state);
}

static void a_list_that_was_cut_short(void **state)
{
    begin(0);
    add_number(NLMSG_DONE, -EIO);
    is_believed(*state);
}

static void a_list_that_was_cut_short_for_want_of_memory(void **state)
{
    begin(0);
    add_number(NLMSG_DONE, -ENOMEM);
    is_asked_again(*state);
}

static void an_end_without_a_number(void **state)
{
    begin(0);
    add_header(NLMSG_DONE, NLMSG_HDRLEN);
    is_asked_again(*state);
}

static void half_a_header(void **state)
{
    begin(0);
    add_header(NLMSG_DONE, 4);
    is_believed(*state);
}

static void less_than_the_header_says(void **state)
{
    begin(0);
    add_header(NLMSG_DONE, NLMSG_HDRLEN + 4);
    is_believed(*state);
}

/* It is passed over, and there is nobody. */
static void a_message_that_is_too_short(void **state)
{
    begin(0);
    add_header(TCPDIAG_GETSOCK, NLMSG_HDRLEN + 4);
    add("abc", 4);
    add_number(NLMSG_DONE, 0);
    is_asked_again(*state);
}

/* Of a length that is not rounded up; the bytes that would round it are missing. */
static void a_last_message_with_an_odd_length(void **state)
{
    begin(0);
    add_listener(stranger(), "", 1);
    is_asked_again(*state);
}

static void an_attribute_without_a_length(void **state)
{
    begin(0);
    add_attribute(INET_DIAG_SKV6ONLY, 0);
    add_number(NLMSG_DONE, 0);
    is_asked_again(*state);
}

static void an_attribute_that_is_longer_than_its_message(void **state)
{
    begin(0);
    add_attribute(INET_DIAG_SKV6ONLY, 100);
    add_number(NLMSG_DONE, 0);
    is_asked_again(*state);
}

/* A listener that is there for good. */
static void comes_of(struct scene *scene, kp_result expected, struct inet_diag_msg message)
{
    kp_spec spec = spec_for(FIXTURE("serve"));
    spec.startup_timeout_ms = expected != KP_ERR_TIMED_OUT || under_valgrind() ? 3000 : 500;
    begin(0);
    add_listener(message, NULL, 0);
    add_number(NLMSG_DONE, 0);
    is_next = repeats = true;
    kp_result result = spawn(scene, spec);
    is_next = repeats = false;
    assert_result(expected, result);
}

/* The loopback device's is reached, another's is not. */
static void a_listener_on_a_device(void **state)
{
    struct inet_diag_msg message = stranger();
    message.id.idiag_if = 1;
    comes_of(*state, KP_ERR_FOREIGN_LISTENER, message);
    message.id.idiag_if = 2;
    comes_of(*state, KP_ERR_TIMED_OUT, message);
}

/* It has no number any more. */
static void a_listener_that_is_being_closed(void **state)
{
    struct inet_diag_msg message = stranger();
    message.idiag_inode = 0;
    comes_of(*state, KP_ERR_TIMED_OUT, message);
}

/* The number of the one socket that this proxy will have. */
static uint32_t await_socket(pid_t pid)
{
    for (int64_t end = now_ms() + PATIENCE_MS; now_ms() < end; sleep_ms(1)) {
        for (int fd = 3; fd < 16; fd++) {
            char path[32], target[32] = "";
            uint32_t number;
            snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
            if (readlink(path, target, sizeof target - 1) > 0 &&
                sscanf(target, "socket:[%" SCNu32, &number) == 1)
                return number;
        }
    }
    fail_msg("%s", "it has no socket");
    return 0;
}

static void add_loopback(int family, uint16_t port, uint32_t socket)
{
    struct inet_diag_msg message = {.idiag_family = (uint8_t)family, .idiag_inode = socket};
    message.id.idiag_sport = htons(port);
    if (family == AF_INET)
        message.id.idiag_src[0] = htonl(INADDR_LOOPBACK);
    else
        memcpy(message.id.idiag_src, &in6addr_loopback, sizeof in6addr_loopback);
    add_listener(message, NULL, 0);
}

/* 0 is a listener on its own port at another address; another one is on another port. */
static void told_of_its_own_port(struct scene *scene, const int others[3])
{
    char expected[64];
    kp_spec spec = spec_for(FIXTURE("beside"));
    spec.startup_timeout_ms = under_valgrind() ? 3000 : 500;
    assert_result(KP_OK, start(scene, spec));
    uint32_t socket = await_socket(kp_handle_pid(scene->proxy));
    uint16_t port = kp_handle_port(scene->proxy);
    begin(0);
    for (int i = 0; i < 3; i++)
        add_loopback(others[i] == 0 ? AF_INET6 : AF_INET, (uint16_t)(port ^ others[i]), socket);
    add_number(NLMSG_DONE, 0);
    is_next = repeats = true;
    kp_result result = reach(scene, KP_STATE_READY);
    is_next = repeats = false;
    assert_result(KP_ERR_TIMED_OUT, result);
    snprintf(expected, sizeof expected, "it listens on [::1]:%u instead", port);
    assert_contains(scene->error.message, expected);
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
}

static void listeners_on_other_ports_and_its_own(void **state)
{
    told_of_its_own_port(*state, (const int[]){0, 1, 2});
    told_of_its_own_port(*state, (const int[]){1, 0, 2});
    told_of_its_own_port(*state, (const int[]){1, 2, 0});
}

/* ---- Where it answers nothing -------------------------------------------------- */

/* Of the files that are read instead. */
static struct {
    const char *name; /* how its path ends */
    int open_error, read_error;
} broken;

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), size = strlen(end);
    return length >= size && strcmp(text + length - size, end) == 0;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    errno = broken.open_error;
    bool is_broken = broken.open_error != 0 && ends_with(path, broken.name);
    return is_broken ? -1 : openat(AT_FDCWD, path, flags, mode);
}

static bool is_broken_file(int fd)
{
    char link[32], path[256] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return readlink(link, path, sizeof path - 1) > 0 && ends_with(path, broken.name);
}

ssize_t read(int fd, void *buffer, size_t size)
{
    if (broken.read_error != 0 && is_broken_file(fd)) {
        errno = broken.read_error;
        return -1;
    }
    return readv(fd, &(struct iovec){buffer, size}, 1);
}

/* Whoever is told nothing is not READY, and a shortage is told as one. */
static void the_files_are_read_instead(void **state)
{
    struct scene *scene = *state;
    static const struct {
        const char *name;
        int open_error, read_error;
        kp_result result;
    } cases[] = {
        {"/net/tcp", 0, 0, KP_OK},
        {"/net/tcp6", ENOENT, 0, KP_OK}, /* a system without IPv6 */
        {"/net/tcp6", EACCES, 0, KP_ERR_FOREIGN_LISTENER},
        {"/net/tcp", ENOENT, 0, KP_ERR_FOREIGN_LISTENER},
        {"/net/tcp", EACCES, 0, KP_ERR_FOREIGN_LISTENER},
        {"/net/tcp", 0, EIO, KP_ERR_FOREIGN_LISTENER},
        {"/net/tcp", EMFILE, 0, KP_ERR_SYSTEM},
        {"/net/tcp6", 0, ENOMEM, KP_ERR_SYSTEM},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin(EIO);
        is_next = repeats = true;
        broken.name = cases[i].name;
        broken.open_error = cases[i].open_error;
        broken.read_error = cases[i].read_error;
        kp_result result = spawn(scene, spec_for(FIXTURE("serve")));
        memset(&broken, 0, sizeof broken);
        is_next = repeats = false;
        assert_result(cases[i].result, result);
        kp_handle_free(scene->proxy);
        scene->proxy = NULL;
    }
}

/* On POSIX nobody is asked. */
static void run_left_out(void **state)
{
    (void)state;
    left_out_on_posix("what the kernel answers");
}

#define PLAY(name) TEST_WAY(name, "blocking", &ways[0])

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLAY(an_interrupted_call),
        PLAY(a_failed_call),
        PLAY(a_shortage_that_passes),
        PLAY(nothing),
        PLAY(a_refusal),
        PLAY(a_list_that_was_cut_short),
        PLAY(a_list_that_was_cut_short_for_want_of_memory),
        PLAY(an_end_without_a_number),
        PLAY(half_a_header),
        PLAY(less_than_the_header_says),
        PLAY(a_message_that_is_too_short),
        PLAY(a_listener_that_is_being_closed),
        PLAY(a_last_message_with_an_odd_length),
        PLAY(an_attribute_without_a_length),
        PLAY(an_attribute_that_is_longer_than_its_message),
        PLAY(a_listener_on_a_device),
        PLAY(listeners_on_other_ports_and_its_own),
        PLAY(the_files_are_read_instead),
    };
    const struct CMUnitTest elsewhere[] = {TEST(run_left_out)};
    return on_posix() ? RUN(elsewhere) : RUN(tests);
}
