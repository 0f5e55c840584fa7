/* SPDX-License-Identifier: Apache-2.0 */
/* The bouquet: the environment that sends a child through the proxy. */
#include "support.h"
#include <stdio.h>
#include <stdlib.h>

extern char **environ;

static char *nothing[] = {NULL};

/* A handle whose proxy never binds is enough: its state does not matter here. */
static void start_with(struct scene *scene, const char *ca_bundle, const char *no_proxy)
{
    kp_spec spec = spec_for(FIXTURE("never"));
    spec.ca_bundle = ca_bundle;
    spec.no_proxy = no_proxy;
    assert_result(KP_OK, start(scene, spec));
}

static const char *find(char **env, const char *name)
{
    size_t size = strlen(name);
    for (; *env != NULL; env++)
        if (strncmp(*env, name, size) == 0 && (*env)[size] == '=')
            return *env + size + 1;
    return NULL;
}

static size_t count(char *const *env)
{
    size_t entries = 0;
    while (env[entries] != NULL)
        entries++;
    return entries;
}

static size_t count_of(char **env, const char *name)
{
    size_t found = 0, size = strlen(name);
    for (; *env != NULL; env++)
        found += strncmp(*env, name, size) == 0 && (*env)[size] == '=';
    return found;
}

static void assert_value(char **env, const char *name, const char *value)
{
    const char *found = find(env, name);
    if (found == NULL)
        fail_msg("%s is not set", name);
    assert_string_equal(found, value);
    assert_int_equal(count_of(env, name), 1);
}

static void assert_same(char *const *env, char *const *expected)
{
    for (size_t i = 0; expected[i] != NULL; i++) {
        assert_non_null(env[i]);
        assert_string_equal(env[i], expected[i]);
    }
    assert_int_equal(count(env), count(expected));
}

static char **make(const struct scene *scene, char *const base[])
{
    char **env = kp_env_new(scene->proxy, base);
    assert_non_null(env);
    return env;
}

/* ---- What is set ---------------------------------------------------------- */

static const char *const proxy_names[] = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
                                          "http_proxy", "https_proxy", "all_proxy"};
enum { PROXY_NAMES = sizeof proxy_names / sizeof *proxy_names };

static void assert_sends_to(char **env, const char *url)
{
    for (size_t i = 0; i < PROXY_NAMES; i++)
        assert_value(env, proxy_names[i], url);
}

static void an_empty_base_gives_the_bouquet_alone(void **state)
{
    struct scene *scene = *state;
    char line[8][256];
    static const char *const names[] = {"ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY",  "NO_PROXY",
                                        "all_proxy", "http_proxy",  "https_proxy", "no_proxy"};
    start_with(scene, NULL, NULL);
    for (int i = 0; i < 8; i++)
        snprintf(line[i], sizeof line[i], "%s=%s", names[i],
                 i % 4 == 3 ? KP_DEFAULT_NO_PROXY : kp_handle_url(scene->proxy));
    char **env = make(scene, nothing);
    assert_same(env, WORDS(line[0], line[1], line[2], line[3], line[4], line[5], line[6], line[7]));
    kp_env_free(env);
}

static void the_default_no_proxy_is_the_documented_one(void **state)
{
    struct scene *scene = *state;
    start_with(scene, NULL, NULL);
    char **env = make(scene, nothing);
    assert_value(env, "NO_PROXY",
                 "localhost,127.0.0.1,::1,[::1],169.254.0.0/16,10.0.0.0/8,"
                 "172.16.0.0/12,192.168.0.0/16");
    assert_string_equal(find(env, "no_proxy"), find(env, "NO_PROXY"));
    kp_env_free(env);
}

static void a_no_proxy_of_ones_own(void **state)
{
    struct scene *scene = *state;
    start_with(scene, NULL, "intern.example, .local");
    char **env = make(scene, WORDS("NO_PROXY=*", "no_proxy=*"));
    assert_value(env, "NO_PROXY", "intern.example, .local");
    assert_value(env, "no_proxy", "intern.example, .local");
    kp_env_free(env);
}

/* Set all the same: an inherited one would be a way around the proxy. */
static void an_empty_no_proxy_is_set(void **state)
{
    struct scene *scene = *state;
    start_with(scene, NULL, "");
    char **env = make(scene, WORDS("NO_PROXY=*", "no_proxy=*"));
    assert_value(env, "NO_PROXY", "");
    assert_value(env, "no_proxy", "");
    kp_env_free(env);
}

static const char *const ca_names[] = {"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE",
                                       "CURL_CA_BUNDLE"};

/* The file does not exist: the library does not open it. */
static void a_bundle_sets_its_four(void **state)
{
    struct scene *scene = *state;
    start_with(scene, "/no/such/bundle.pem", NULL);
    char **env = make(scene, WORDS("SSL_CERT_FILE=/inherited"));
    for (size_t i = 0; i < 4; i++)
        assert_value(env, ca_names[i], "/no/such/bundle.pem");
    assert_int_equal(count(env), 8 + 4);
    kp_env_free(env);
}

static void without_a_bundle_none_of_the_four_is_touched(void **state)
{
    struct scene *scene = *state;
    start_with(scene, NULL, NULL);
    char **env = make(scene, WORDS("SSL_CERT_FILE=/inherited"));
    assert_value(env, "SSL_CERT_FILE", "/inherited");
    assert_int_equal(count(env), 8 + 1);
    kp_env_free(env);
}

/* ---- What is replaced and removed ----------------------------------------- */

static void inherited_proxies_are_replaced(void **state)
{
    struct scene *scene = *state;
    start_with(scene, NULL, NULL);
    char **env =
        make(scene, WORDS("HTTPS_PROXY=http://other:1", "https_proxy=http://other:2",
                          "ALL_PROXY=socks5://other:3", "all_proxy=socks5://other:4",
                          "HTTP_PROXY=http://other:5", "http_proxy=http://other:6", "NO_PROXY=*"));
    assert_sends_to(env, kp_handle_url(scene->proxy));
    assert_value(env, "NO_PROXY", KP_DEFAULT_NO_PROXY);
    assert_value(env, "no_proxy", KP_DEFAULT_NO_PROXY);
    assert_int_equal(count(env), 8);
    kp_env_free(env);
}

#define AROUND                                                                                     \
    "npm_config_proxy=x", "npm_config_https_proxy=x", "npm_config_noproxy=x",                      \
        "NPM_CONFIG_PROXY=x", "NPM_CONFIG_HTTPS_PROXY=x", "NPM_CONFIG_NOPROXY=x", "PIP_PROXY=x",   \
        "CARGO_HTTP_PROXY=x", "grpc_proxy=x"
#define OTHER_BUNDLES                                                                              \
    "AWS_CA_BUNDLE=x", "CARGO_HTTP_CAINFO=x", "COMPOSER_CAFILE=x", "NPM_CONFIG_CAFILE=x",          \
        "GIT_SSL_CAINFO=x", "HTTPLIB2_CA_CERTS=x", "PIP_CERT=x"

static void ways_around_the_proxy_are_removed(void **state)
{
    struct scene *scene = *state;
    start_with(scene, NULL, NULL);
    char **env = make(scene, WORDS(AROUND, "PATH=/bin"));
    for (size_t i = 0; env[i] != NULL; i++)
        if (strstr(env[i], "=x") != NULL)
            fail_msg("%s is left", env[i]);
    assert_value(env, "PATH", "/bin");
    assert_int_equal(count(env), 8 + 1);
    kp_env_free(env);
}

/* The CGI rule: with it Go and reqwest obey no HTTP_PROXY. */
static void a_request_method_is_removed(void **state)
{
    struct scene *scene = *state;
    start_with(scene, NULL, NULL);
    char **env = make(scene, WORDS("REQUEST_METHOD=GET"));
    assert_null(find(env, "REQUEST_METHOD"));
    kp_env_free(env);
}

static void other_bundles_go_when_there_is_one(void **state)
{
    struct scene *scene = *state;
    start_with(scene, "/ca.pem", NULL);
    char **env = make(scene, WORDS(OTHER_BUNDLES, "npm_config_cafile=x"));
    for (size_t i = 0; env[i] != NULL; i++)
        if (strstr(env[i], "=x") != NULL)
            fail_msg("%s is left", env[i]);
    assert_int_equal(count(env), 8 + 4);
    kp_env_free(env);
}

static void other_bundles_stay_when_there_is_none(void **state)
{
    struct scene *scene = *state;
    char *const *base = WORDS(OTHER_BUNDLES);
    start_with(scene, NULL, NULL);
    char **env = make(scene, base);
    assert_int_equal(count(env), 8 + count(base));
    kp_env_free(env);
}

static void names_that_only_look_like_these_stay(void **state)
{
    struct scene *scene = *state;
    char *const *base = WORDS("HTTP_PROXY_USER=a", "MY_HTTP_PROXY=a", "HTTP_PROX=a", "PIP_PROXYS=a",
                              "NPM_CONFIG_REGISTRY=a", "GRPC_PROXY_EXP=a", "PROXY=a", "PROXY_=a");
    start_with(scene, "/ca.pem", NULL);
    char **env = make(scene, base);
    assert_int_equal(count(env), 8 + 4 + count(base));
    kp_env_free(env);
}

/* ---- Order, duplicates, odd bases ------------------------------------------ */

static size_t name_size(const char *entry)
{
    return strcspn(entry, "=");
}

static int compare_names(const char *left, const char *right)
{
    size_t left_size = name_size(left), right_size = name_size(right);
    int order = memcmp(left, right, left_size < right_size ? left_size : right_size);
    return order != 0 ? order : (left_size > right_size) - (left_size < right_size);
}

static void assert_sorted(char **env)
{
    for (size_t i = 1; env[i - 1] != NULL && env[i] != NULL; i++)
        if (compare_names(env[i - 1], env[i]) >= 0)
            fail_msg("%s before %s", env[i - 1], env[i]);
}

/* '=' lies between the bytes of names: whole entries would sort differently. */
static void it_is_sorted_by_name(void **state)
{
    struct scene *scene = *state;
    char *const *base = WORDS("Z=1", "A1=1", "A=1", "A-=1", "a=1", "\xc3\xa4=1", "A_B=1", "AA=1");
    start_with(scene, NULL, NULL);
    char **env = make(scene, base);
    assert_sorted(env);
    assert_string_equal(env[0], "A=1");
    assert_string_equal(env[1], "A-=1");
    assert_string_equal(env[2], "A1=1");
    assert_int_equal(count(env), 8 + count(base));
    kp_env_free(env);
}

static void each_name_comes_once(void **state)
{
    struct scene *scene = *state;
    start_with(scene, NULL, NULL);
    char **env = make(scene, WORDS("A=1", "B=1", "A=2", "HTTP_PROXY=x", "HTTP_PROXY=y", "A=3"));
    assert_int_equal(count_of(env, "A"), 1);
    assert_int_equal(count_of(env, "HTTP_PROXY"), 1);
    assert_int_equal(count(env), 8 + 2);
    assert_sorted(env);
    kp_env_free(env);
}

static void values_are_kept_as_they_are(void **state)
{
    struct scene *scene = *state;
    start_with(scene, NULL, NULL);
    char **env = make(scene, WORDS("A=b=c==", "E=", "N=two\nlines", "H=\xff\xfe"));
    assert_value(env, "A", "b=c==");
    assert_value(env, "E", "");
    assert_value(env, "N", "two\nlines");
    assert_value(env, "H", "\xff\xfe");
    kp_env_free(env);
}

/* Not environments, but a host may have such a thing: nothing breaks. */
static void entries_that_are_none(void **state)
{
    struct scene *scene = *state;
    start_with(scene, NULL, NULL);
    char **env = make(scene, WORDS("", "=", "=C:=C:\\", "NO_EQUALS", "HTTP_PROXY", "A=1"));
    assert_sends_to(env, kp_handle_url(scene->proxy));
    assert_value(env, "A", "1");
    kp_env_free(env);
}

enum { MANY = 5000 };

static void a_large_base(void **state)
{
    struct scene *scene = *state;
    static char text[MANY][32];
    static char *base[MANY + 1];
    start_with(scene, NULL, NULL);
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(text[i], sizeof text[i], "V%u=%u", i * 7919 % MANY, i);
        base[i] = text[i];
    }
    char **env = make(scene, base);
    assert_int_equal(count(env), 8 + MANY);
    assert_sorted(env);
    kp_env_free(env);
}

static void a_null_base_is_the_hosts_environment(void **state)
{
    struct scene *scene = *state;
    setenv("KP_A", "host", 1);
    setenv("HTTPS_PROXY", "http://other:1", 1);
    start_with(scene, NULL, NULL);
    char **env = make(scene, NULL);
    unsetenv("KP_A");
    unsetenv("HTTPS_PROXY");
    assert_value(env, "KP_A", "host");
    assert_sends_to(env, kp_handle_url(scene->proxy));
    assert_value(env, "PATH", getenv("PATH"));
    assert_sorted(env);
    kp_env_free(env);
}

static void a_host_without_an_environment(void **state)
{
    struct scene *scene = *state;
    char **kept = environ;
    start_with(scene, NULL, NULL);
    environ = NULL;
    char **env = kp_env_new(scene->proxy, NULL), **bare = kp_env_new(NULL, NULL);
    environ = kept;
    assert_non_null(env);
    assert_int_equal(count(env), 8);
    assert_non_null(bare);
    assert_null(bare[0]);
    kp_env_free(env);
    kp_env_free(bare);
}

/* ---- Without a handle ------------------------------------------------------ */

/* Unsorted, doubled, around the proxy: all is left. */
static void no_handle_gives_the_base_unchanged(void **state)
{
    (void)state;
    char *const *base = WORDS("Z=1", "A=1", "Z=2", "HTTPS_PROXY=http://other:1", "NO_PROXY=*",
                              "npm_config_proxy=x", "NO_EQUALS");
    char **env = kp_env_new(NULL, base);
    assert_non_null(env);
    assert_same(env, base);
    kp_env_free(env);
}

static void no_handle_and_no_base_is_the_hosts(void **state)
{
    (void)state;
    char **env = kp_env_new(NULL, NULL);
    assert_non_null(env);
    assert_same(env, environ);
    kp_env_free(env);
}

static void no_handle_and_an_empty_base_is_empty(void **state)
{
    (void)state;
    char **env = kp_env_new(NULL, nothing);
    assert_non_null(env);
    assert_null(env[0]);
    kp_env_free(env);
}

static void nothing_can_be_freed(void **state)
{
    (void)state;
    kp_env_free(NULL);
}

/* ---- Copies, and the handle's state ----------------------------------------- */

static void the_base_may_change_afterwards(void **state)
{
    struct scene *scene = *state;
    char entry[] = "A=1", *base[] = {entry, NULL};
    start_with(scene, NULL, NULL);
    char **env = make(scene, base), **bare = kp_env_new(NULL, base);
    memset(entry, 'x', strlen(entry));
    base[0] = NULL;
    assert_value(env, "A", "1");
    assert_value(bare, "A", "1");
    kp_env_free(env);
    kp_env_free(bare);
}

static void assert_env(const struct scene *scene, char **expected)
{
    char **env = make(scene, nothing);
    assert_same(env, expected);
    kp_env_free(env);
}

static void it_is_the_same_in_every_state(void **state)
{
    struct scene *scene = *state;
    kp_spec spec = spec_for(FIXTURE("slow-stop", "50"));
    spec.ca_bundle = "/ca.pem";
    assert_result(KP_OK, start(scene, spec));
    char **env = make(scene, nothing);
    assert_result(KP_OK, reach(scene, KP_STATE_READY));
    assert_env(scene, env);
    kp_handle_stop(scene->proxy, -1);
    assert_env(scene, env);
    get_exited(scene);
    assert_env(scene, env);
    assert_result(KP_OK, kp_handle_restart(scene->proxy, &scene->error));
    assert_env(scene, env);
    kp_env_free(env);
}

static void it_outlives_its_handle(void **state)
{
    struct scene *scene = *state;
    start_with(scene, "/ca.pem", "host");
    char **env = make(scene, nothing), url[64];
    strcpy(url, kp_handle_url(scene->proxy));
    kp_handle_free(scene->proxy);
    scene->proxy = NULL;
    assert_sends_to(env, url);
    assert_value(env, "SSL_CERT_FILE", "/ca.pem");
    assert_value(env, "no_proxy", "host");
    kp_env_free(env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_empty_base_gives_the_bouquet_alone),
        TEST(the_default_no_proxy_is_the_documented_one),
        TEST(a_no_proxy_of_ones_own),
        TEST(an_empty_no_proxy_is_set),
        TEST(a_bundle_sets_its_four),
        TEST(without_a_bundle_none_of_the_four_is_touched),
        TEST(inherited_proxies_are_replaced),
        TEST(ways_around_the_proxy_are_removed),
        TEST(a_request_method_is_removed),
        TEST(other_bundles_go_when_there_is_one),
        TEST(other_bundles_stay_when_there_is_none),
        TEST(names_that_only_look_like_these_stay),
        TEST(it_is_sorted_by_name),
        TEST(each_name_comes_once),
        TEST(values_are_kept_as_they_are),
        TEST(entries_that_are_none),
        TEST(a_large_base),
        TEST(a_null_base_is_the_hosts_environment),
        TEST(a_host_without_an_environment),
        TEST(no_handle_gives_the_base_unchanged),
        TEST(no_handle_and_no_base_is_the_hosts),
        TEST(no_handle_and_an_empty_base_is_empty),
        TEST(nothing_can_be_freed),
        TEST(the_base_may_change_afterwards),
        EACH_WAY(it_is_the_same_in_every_state),
        TEST(it_outlives_its_handle),
    };
    return RUN(tests);
}
