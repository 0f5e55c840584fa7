/* SPDX-License-Identifier: Apache-2.0 */
#include "options.hpp"

#include "ca_bundle.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <getopt.h>
#include <iterator>

namespace {

constexpr char help[] =
    "Usage: kp-run [OPTION]... 'PROXY COMMAND' -- COMMAND [ARGUMENT]...\n"
    "       kp-run --attach=PORT [OPTION]... -- COMMAND [ARGUMENT]...\n"
    "Run COMMAND behind a proxy that is started for it and stopped after it, or behind\n"
    "one that runs already.\n"
    "\n"
    "PROXY COMMAND is run by /bin/sh. It has to listen on 127.0.0.1 at the port in\n"
    "$" KP_PORT_ENV ", and to stay in the foreground. When it can't be started,\n"
    "COMMAND is not run.\n"
    "\n"
    "      --fail-open        run COMMAND without a proxy that can't be started\n"
    "  -t, --timeout=SECONDS  wait so long for the proxy to answer; default: 5\n"
    "  -c, --ca-bundle=FILE   certificates that COMMAND is to trust\n"
    "  -n, --no-proxy=LIST    what COMMAND reaches directly; default: private networks\n"
    "      --probe-http       the proxy has to answer a CONNECT as HTTP does\n"
    "      --any-listener     its port may be opened by somebody else (docker run -p)\n"
    "  -v, --verbose          tell when the proxy is ready, and when it is gone\n"
    "  -h, --help             print this\n"
    "  -V, --version          print the version\n"
    "\n"
    "For a proxy that runs already:\n"
    "  -a, --attach=PORT      its port; it is never started nor stopped\n"
    "\n"
    "For one that is started:\n"
    "  -p, --port=PORT        its port; default: any that is free\n"
    "  -e, --port-env=NAME    the variable that tells it its port\n"
    "  -g, --grace=SECONDS    from its SIGTERM to its SIGKILL; default: 2\n"
    "  -l, --log=FILE         append its output; default: standard error\n"
    "      --no-guard         let it outlive a kp-run that is killed\n"
    "      --no-reserve       it binds without SO_REUSEADDR\n"
    "\n"
    "It exits with COMMAND's status, 128+N if signal N ended it; 125: kp-run failed;\n"
    "126: COMMAND can't be executed; 127: COMMAND was not found.\n";

/* An option that sets a flag of the spec is known by it, and above all characters. */
constexpr int flag_option = 1 << 16;
constexpr int no_guard = flag_option | KP_SPEC_NO_GUARD;
constexpr int no_reserve = flag_option | KP_SPEC_NO_RESERVE;
constexpr int probe_http = flag_option | KP_SPEC_PROBE_HTTP;
constexpr int any_listener = flag_option | KP_SPEC_ANY_LISTENER;

constexpr int fail_open = flag_option - 1;

constexpr char short_options[] = "+a:p:t:g:c:n:e:l:vhV"; /* +: stop at PROXY COMMAND */

constexpr option long_options[] = {
    {"fail-open", no_argument, nullptr, fail_open},
    {"attach", required_argument, nullptr, 'a'},
    {"port", required_argument, nullptr, 'p'},
    {"timeout", required_argument, nullptr, 't'},
    {"grace", required_argument, nullptr, 'g'},
    {"ca-bundle", required_argument, nullptr, 'c'},
    {"no-proxy", required_argument, nullptr, 'n'},
    {"port-env", required_argument, nullptr, 'e'},
    {"log", required_argument, nullptr, 'l'},
    {"no-guard", no_argument, nullptr, no_guard},
    {"no-reserve", no_argument, nullptr, no_reserve},
    {"probe-http", no_argument, nullptr, probe_http},
    {"any-listener", no_argument, nullptr, any_listener},
    {"verbose", no_argument, nullptr, 'v'},
    {"help", no_argument, nullptr, 'h'},
    {"version", no_argument, nullptr, 'V'},
    {nullptr, 0, nullptr, 0},
};

/* What only a proxy that kp-run starts can have. */
constexpr int start_options[] = {'p', 'e', 'g', 'l', no_guard, no_reserve};

[[noreturn, gnu::format(printf, 1, 2)]] void fail(const char *format, ...)
{
    std::va_list arguments;
    va_start(arguments, format);
    std::fputs("kp-run: ", stderr);
    std::vfprintf(stderr, format, arguments);
    std::fputc('\n', stderr);
    va_end(arguments);
    std::exit(exit_own_failure);
}

[[noreturn]] void fail_usage()
{
    std::fputs("Try 'kp-run --help'.\n", stderr);
    std::exit(exit_own_failure);
}

[[noreturn]] void fail_usage(const char *problem)
{
    std::fprintf(stderr, "kp-run: %s\n", problem);
    fail_usage();
}

[[noreturn]] void print_and_exit(const char *text)
{
    if (std::fputs(text, stdout) == EOF || std::fflush(stdout) == EOF)
        fail("standard output: %s", std::strerror(errno));
    std::exit(0);
}

[[noreturn]] void print_version()
{
    std::string text = std::string("kp-run ") + kp_version() + "\n";
    print_and_exit(text.c_str());
}

/* strtod() and strtoul() would take blanks, signs, "inf" and hexadecimal too. */
bool consists_of(const char *text, const char *characters)
{
    return *text != '\0' && std::strspn(text, characters) == std::strlen(text);
}

std::uint32_t port_number(const char *name, const char *text, unsigned least)
{
    const unsigned long port = std::strtoul(text, nullptr, 10); /* ULONG_MAX if longer */
    if (!consists_of(text, "0123456789") || port < least || port > 65535)
        fail("--%s: '%s' is not a port: a number from %u to 65535", name, text, least);
    return static_cast<std::uint32_t>(port);
}

std::chrono::milliseconds duration(const char *name, const char *text)
{
    constexpr double longest = 1e6; /* eleven days: far from where a millisecond count ends */
    char *end;
    const double seconds = std::strtod(text, &end);
    if (!consists_of(text, "0123456789.") || *end != '\0' || seconds > longest)
        fail("--%s: '%s' is not a number of seconds from 0 to 1000000", name, text);
    return std::chrono::milliseconds(static_cast<long>(std::ceil(seconds * 1000)));
}

const char *variable_name(const char *text)
{
    if (*text == '\0' || std::strchr(text, '=') != nullptr)
        fail("--port-env: '%s' is not the name of a variable", text);
    return text;
}

/* Open until kp-run ends, but not in COMMAND. */
int log_file(const char *name)
{
    const int fd = open(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666);
    if (fd < 0)
        fail("--log: '%s': %s", name, std::strerror(errno));
    return fd;
}

void take_option(Options &options, int name)
{
    kp::Spec &spec = options.spec;
    if (name >= flag_option) {
        spec.flags |= static_cast<std::uint32_t>(name - flag_option);
        return;
    }
    switch (name) {
    case fail_open:
        options.fail_open = true;
        break;
    case 'v':
        options.verbose = true;
        break;
    case 'a':
        spec.flags |= KP_SPEC_ATTACH;
        spec.port = port_number("attach", optarg, 1);
        break;
    case 'p':
        spec.port = port_number("port", optarg, 0);
        break;
    case 't':
        spec.startup_timeout = duration("timeout", optarg);
        break;
    case 'g':
        spec.stop_grace = duration("grace", optarg);
        break;
    case 'c':
        spec.ca_bundle = check_ca_bundle(optarg);
        break;
    case 'n':
        spec.no_proxy = optarg;
        break;
    case 'e':
        spec.port_env = variable_name(optarg);
        break;
    case 'l':
        spec.log_fd = log_file(optarg);
        break;
    case 'h':
        print_and_exit(help);
    case 'V':
        print_version();
    default:
        fail_usage(); /* getopt has said why */
    }
}

const char *long_name(int name)
{
    const option *each = long_options;
    while (each->val != name)
        each++;
    return each->name;
}

bool attaches(const Options &options)
{
    return (options.spec.flags & KP_SPEC_ATTACH) != 0;
}

/* What is left: 'PROXY COMMAND' -- COMMAND [ARGUMENT]... */
void take_operands(Options &options, char *operands[])
{
    if (operands[0] == nullptr)
        fail_usage("there is no proxy command");
    if (operands[0][0] == '\0')
        fail_usage("the proxy command must not be empty");
    if (operands[1] == nullptr || std::strcmp(operands[1], "--") != 0)
        fail_usage("after the proxy command, which is one argument, comes --");
    if (operands[2] == nullptr)
        fail_usage("there is no COMMAND after --");
    options.spec.argv = {"/bin/sh", "-c", operands[0]};
    options.command = operands + 2;
}

/* With --attach, COMMAND [ARGUMENT]...: getopt has gone past the -- before it. */
void take_operands_to_attach(Options &options, char *operands[])
{
    if (operands[0] == nullptr)
        fail_usage("there is no COMMAND after --");
    if (std::strcmp(operands[-1], "--") != 0)
        fail_usage("--attach starts no proxy command: -- and COMMAND follow the options");
    options.command = operands;
}

} // namespace

Options read_options(int argc, char *argv[])
{
    Options options;
    const char *start_option = nullptr;
    int name;
    while ((name = getopt_long(argc, argv, short_options, long_options, nullptr)) != -1) {
        take_option(options, name);
        if (std::count(std::begin(start_options), std::end(start_options), name) > 0)
            start_option = long_name(name);
    }
    if (!attaches(options))
        take_operands(options, argv + optind);
    else if (start_option != nullptr)
        fail("--attach starts no proxy: --%s does not go with it", start_option);
    else
        take_operands_to_attach(options, argv + optind);
    return options;
}
