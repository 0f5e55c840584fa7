/* SPDX-License-Identifier: Apache-2.0 */
#include "ca_bundle.hpp"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <sys/stat.h>

namespace {

constexpr off_t longest = 16 << 20; /* a hundred times all the roots that there are */

bool contains(const std::string &text, const char *part)
{
    return text.find(part) != std::string::npos;
}

/* The outermost SEQUENCE of a certificate, with a length of two bytes. */
bool looks_like_der(const std::string &content)
{
    return content.compare(0, 2, "\x30\x82") == 0;
}

/* What is wrong with a regular file that could be read; "": nothing. */
const char *problem_of(const std::string &content)
{
    if (content.empty())
        return "it is empty";
    if (contains(content, "-----BEGIN CERTIFICATE-----"))
        return contains(content, "-----END CERTIFICATE-----") ? "" : "its certificate has no end";
    if (looks_like_der(content))
        return "it holds no PEM certificate: is it DER?";
    return "it holds no PEM certificate (-----BEGIN CERTIFICATE-----)";
}

[[noreturn]] void refuse(const std::string &name, const char *problem)
{
    throw std::runtime_error("--ca-bundle: '" + name + "': " + problem);
}

std::string read_file(const std::string &name)
{
    struct stat status;
    if (stat(name.c_str(), &status) != 0)
        refuse(name, std::strerror(errno));
    if (S_ISDIR(status.st_mode))
        refuse(name, "it is a folder, not a file");
    if (!S_ISREG(status.st_mode)) /* and could be read once, by one client */
        refuse(name, "it is not a regular file");
    if (status.st_size > longest)
        refuse(name, "it is longer than 16 MiB");
    std::ifstream file(name, std::ios::binary);
    std::string content(static_cast<std::size_t>(status.st_size), '\0');
    if (!file)
        refuse(name, std::strerror(errno));
    file.read(content.data(), status.st_size);
    if (file.bad())
        refuse(name, "it can't be read");
    content.resize(static_cast<std::size_t>(file.gcount()));
    return content;
}

} // namespace

std::string check_ca_bundle(const std::string &name)
{
    const char *problem = problem_of(read_file(name));
    if (*problem != '\0')
        refuse(name, problem);
    return std::filesystem::absolute(name).string();
}
