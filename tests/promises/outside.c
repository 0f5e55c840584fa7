/* SPDX-License-Identifier: Apache-2.0 */
/* A program outside the tree: starts the proxy that its arguments name, and prints the
 * version of the library. */
#include <kp/kp.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    (void)argc;
    kp_spec spec = {.size = sizeof spec, .argv = argv + 1};
    kp_handle *proxy;
    kp_error error;
    if (kp_spawn(&spec, &proxy, &error) != KP_OK) {
        fprintf(stderr, "%s: %s\n", kp_result_name(error.code), error.message);
        return 1;
    }
    char *none[] = {NULL};
    char **env = kp_env_new(proxy, none);
    int whole = env != NULL && strncmp(env[0], "ALL_PROXY=http://", 17) == 0;
    kp_env_free(env);
    kp_handle_free(proxy);
    printf("%s\n", kp_version());
    return whole ? 0 : 1;
}
