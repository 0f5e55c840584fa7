// SPDX-License-Identifier: Apache-2.0
// Runs a target on each file of the folders that are named: what libFuzzer does with -runs=0, for
// every compiler.
#include "fuzz.h"
#include <filesystem>
#include <stdio.h>

static void replay(const std::filesystem::path &path)
{
    // Not a byte larger than the input, as libFuzzer has it.
    std::vector<uint8_t> input(std::filesystem::file_size(path));
    FILE *file = fopen(path.c_str(), "rb");
    EXPECT_SAYING(file != nullptr, path.c_str());
    EXPECT_SAYING(fread(input.data(), 1, input.size(), file) == input.size(), path.c_str());
    fclose(file);
    fprintf(stderr, "%s\n", path.c_str());
    LLVMFuzzerTestOneInput(input.data(), input.size());
}

int main(int count, char **arguments)
{
    size_t inputs = 0;
    for (int i = 1; i < count; ++i)
        for (const auto &entry : std::filesystem::directory_iterator(arguments[i])) {
            replay(entry.path());
            ++inputs;
        }
    printf("%zu inputs\n", inputs);
    return inputs == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
