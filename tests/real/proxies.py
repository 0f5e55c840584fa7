# SPDX-License-Identifier: Apache-2.0
"""The real proxies: how each is run by a user of the library, as one table.

A command is for /bin/sh, in a folder of the proxy's own that holds the files `config` and
`hosts`, and finds its port in $KODA_PROXY_PORT. It and the configuration may name, in
braces, what facts() knows.
"""

import dataclasses
import glob
import os
import shutil
import sys

os.environ["PATH"] += ":/usr/sbin:/sbin"  # squid is there, and an ordinary user's PATH is not

HERE = os.path.dirname(os.path.abspath(__file__))
NSS_WRAPPER = "libnss_wrapper.so"
LIBRARIES = ("/usr/lib/*/", "/usr/lib/", "/usr/lib64/")
APACHE_MODULES = "/usr/lib/apache2/modules"


@dataclasses.dataclass(frozen=True)
class Proxy:
    # As a reader of the table knows it.
    title: str
    command: str
    # Programs and files that it needs; a name of node's starts with "npm:".
    needs: tuple
    config: str = ""
    # What it speaks: "http" (plain requests and CONNECT), or "socks" (its fifth version).
    speaks: str = "http"
    # Resolve by the file `hosts` a program that has no option for this.
    wrap_resolver: bool = True
    # What it hands everything on to: "proxy", another one that knows the origin's name, or
    # "sshd"; "": to the origin itself.
    upstream: str = ""
    # Made ready before the start, by /bin/sh in the folder.
    build: str = ""
    # The file in which a proxy that intercepts TLS keeps its own CA.
    own_ca: str = ""
    # It writes the names that it is asked for to a file *.log in its folder.
    logs_names: bool = True
    # Its port stands in its configuration, whatever $KODA_PROXY_PORT says.
    fixed_port: bool = False
    # It binds without SO_REUSEADDR: KP_SPEC_NO_RESERVE.
    reserve: bool = True
    # It leaves its process group: what SIGTERM does not end of it is out of reach.
    leaves_group: bool = False
    # It answers a CONNECT that fails, rather than to close: KP_SPEC_PROBE_HTTP works.
    answers_probe: bool = True
    # It takes what comes through a tunnel for HTTP only if it looks like that.
    guesses_protocol: bool = False

    def missing(self):
        needs = [*self.needs, "curl", "openssl"] + [NSS_WRAPPER] * self.wrap_resolver
        return [name for name in needs if not is_there(name)]


def is_there(name):
    if name.startswith("npm:"):
        return os.path.exists(os.path.join(node_modules(), name[4:], "package.json"))
    if name.startswith("/"):
        return os.path.exists(name)
    if name.endswith(".so"):
        return any(glob.glob(folder + name) for folder in LIBRARIES)
    return shutil.which(name) is not None


def node_modules():
    """What install-node-packages.sh has made."""
    default = os.path.join(HERE, "..", "..", "build-node", "node_modules")
    return os.path.abspath(os.environ.get("KP_TEST_NODE_MODULES", default))


def facts(folder, port, upstream_port):
    """What the braces in commands and configurations stand for."""
    return {
        "folder": folder,
        "here": HERE,
        "python": sys.executable,
        "modules": APACHE_MODULES,
        "node": node_modules(),
        "port": port,
        "upstream": upstream_port,
        "as_root": "" if os.geteuid() == 0 else "#",
    }


# For a program whose port can only be said in its configuration.
WITH_PORT = 'sed "s/@PORT@/$KODA_PROXY_PORT/" config >config.now && '

TINYPROXY_CONFIG = "Port @PORT@\nListen 127.0.0.1\nAllow 127.0.0.1\nLogLevel Connect\n"

SQUID_CONFIG = """
http_port 127.0.0.1:@PORT@
hosts_file {folder}/hosts
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
coredump_dir {folder}
pid_filename none
visible_hostname localhost
pinger_enable off
cache deny all
shutdown_lifetime 0 seconds
http_access allow localhost
http_access deny all
"""


def squid(option):
    # The service's name makes its shared memory its own: another squid may run.
    command = WITH_PORT + f'exec squid -n "kp$KODA_PROXY_PORT" -f config.now {option}'
    title = f"squid `{option}`"
    return Proxy(title, command, needs=("squid",), config=SQUID_CONFIG, wrap_resolver=False)


HAPROXY_CONFIG = """
defaults
  mode http
  log stdout format raw local0
  option httplog
  timeout connect 10s
  timeout client 60s
  timeout server 60s
frontend proxy
  bind "127.0.0.1:${{KODA_PROXY_PORT}}"
  default_backend parent
backend parent
  server parent 127.0.0.1:{upstream}
"""


def haproxy(options):
    return Proxy(
        title=f"haproxy `{options}`",
        command=f"exec haproxy {options} -f config",
        needs=("haproxy",),
        config=HAPROXY_CONFIG,
        wrap_resolver=False,
        upstream="proxy",
    )


APACHE_CONFIG = """
ServerName localhost
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile {folder}/apache.pid
Mutex pthread
Listen 127.0.0.1:${{KODA_PROXY_PORT}}
{as_root}User nobody
{as_root}Group nogroup
LoadModule mpm_module {modules}/mod_mpm_MPM.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
LoadModule proxy_connect_module {modules}/mod_proxy_connect.so
ErrorLog {folder}/error.log
CustomLog {folder}/access.log "%r"
ProxyRequests On
AllowCONNECT 1-65535
"""


def apache(mpm, option, **more):
    return Proxy(
        title=f"apache2 `{option}` ({mpm})",
        command=f'exec apache2 -d "$PWD" -f "$PWD/config" {option}',
        needs=("apache2",),
        config=APACHE_CONFIG.replace("_MPM", "_" + mpm).replace("mpm_module", f"mpm_{mpm}_module"),
        **more,
    )


DANTED_CONFIG = """
logoutput: stderr
internal: 127.0.0.1 port = @PORT@
external: 127.0.0.1
clientmethod: none
socksmethod: none
{as_root}user.unprivileged: nobody
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 log: connect error }}
"""


TRAFFICSERVER_CONFIG = """
CONFIG proxy.config.admin.user_id STRING nobody
CONFIG proxy.config.url_remap.remap_required INT 0
CONFIG proxy.config.reverse_proxy.enabled INT 0
CONFIG proxy.config.http.connect_ports STRING *
CONFIG proxy.config.http.no_dns_just_forward_to_parent INT 1
CONFIG proxy.config.http.parent_proxy.self_detect INT 0
"""
TRAFFICSERVER_LAYOUT = """
prefix: {folder}
exec_prefix: /usr
bindir: /usr/bin
sbindir: /usr/sbin
sysconfdir: {folder}
datadir: /usr/share/trafficserver
includedir: /usr/include
libdir: /usr/lib/trafficserver
libexecdir: /usr/lib/trafficserver/modules
localstatedir: {folder}
runtimedir: {folder}
logdir: {folder}
cachedir: {folder}
"""
TRAFFICSERVER_CLIENTS = "ip_allow: [{{apply: in, ip_addrs: 127.0.0.1, action: allow, methods: ALL}}]"


def socat(options, **more):
    return Proxy(
        title=f"socat `TCP-LISTEN:…,{options}`",
        needs=("socat",),
        command=f'exec socat "TCP-LISTEN:$KODA_PROXY_PORT,bind=127.0.0.1,{options}"'
        " TCP:127.0.0.1:{upstream}",
        upstream="proxy",
        wrap_resolver=False,
        **more,
    )


def node(name, command, title="", **more):
    return Proxy(title or f"npm `{name}`", command, needs=("node", f"npm:{name}"), **more)


NODE_LIBRARY = "NODE_PATH={node} exec node {here}/proxy.js "

# Programs of our own take names that end in `.test` for 127.0.0.1.
OWN = {"wrap_resolver": False}


def python(kind, **more):
    command = f"exec {{python}} {{here}}/proxy.py {kind}"
    return Proxy(f"Python `{kind}`", command, needs=(), **OWN, **more)


PROXIES = {
    "tinyproxy": Proxy(
        title="tinyproxy `-d`",
        needs=("tinyproxy",),
        config=TINYPROXY_CONFIG,
        command=WITH_PORT + "exec tinyproxy -d -c config.now",
    ),
    "tinyproxy-in-script": Proxy(
        title="tinyproxy in a shell script",
        needs=("tinyproxy",),
        config=TINYPROXY_CONFIG,
        command=WITH_PORT + "tinyproxy -d -c config.now; exit",
    ),
    "squid": squid("-N"),
    "squid-with-worker": squid("--foreground"),
    "mitmdump": Proxy(
        title="mitmdump",
        needs=("mitmdump",),
        command='exec mitmdump --listen-host 127.0.0.1 --listen-port "$KODA_PROXY_PORT"'
        " --set confdir=. --set ssl_verify_upstream_trusted_ca=origin.pem",
        own_ca="mitmproxy-ca-cert.pem",
        guesses_protocol=True,
    ),
    "privoxy": Proxy(
        title="privoxy `--no-daemon`",
        needs=("privoxy",),
        config="listen-address 127.0.0.1:@PORT@\nlogdir {folder}\nlogfile privoxy.log\n"
        "debug 1\ndebug 512\n",
        command=WITH_PORT + "exec privoxy --no-daemon config.now",
    ),
    "haproxy": haproxy("-db"),
    "haproxy-with-worker": haproxy("-W -db"),
    "apache2-event": apache("event", "-DFOREGROUND"),
    "apache2-prefork": apache("prefork", "-DFOREGROUND"),
    "apache2-no-detach": apache("event", "-DNO_DETACH", leaves_group=True),
    "apache2-debug": apache("prefork", "-X"),
    "cntlm": Proxy(
        title="cntlm `-f`",
        needs=("cntlm",),
        config="Username user\nDomain domain\nPassword password\n"
        "Listen 127.0.0.1:{port}\nProxy 127.0.0.1:{upstream}\n",
        command="exec cntlm -f -c config",
        wrap_resolver=False,
        upstream="proxy",
        fixed_port=True,
    ),
    "nghttpx": Proxy(
        title="nghttpx `--http2-proxy`",
        needs=("nghttpx",),
        command='exec nghttpx --conf=/dev/null --http2-proxy -f "127.0.0.1,$KODA_PROXY_PORT;no-tls"'
        " -b 127.0.0.1,{upstream} --accesslog-file=access.log --errorlog-file=error.log",
        wrap_resolver=False,
        upstream="proxy",
    ),
    "trafficserver": Proxy(
        title="traffic_server",
        needs=("traffic_server",),
        config=TRAFFICSERVER_CONFIG,
        command="cp config records.config"
        f" && echo '{TRAFFICSERVER_LAYOUT}' >runroot.yaml"
        f" && echo '{TRAFFICSERVER_CLIENTS}' >ip_allow.yaml"
        " && echo 'dest_domain=. parent=\"127.0.0.1:{upstream}\" go_direct=false' >parent.config"
        ' && echo "$PWD 16M" >storage.config'
        ' && exec traffic_server --run-root="$PWD" -p "$KODA_PROXY_PORT:ip-in=127.0.0.1"',
        upstream="proxy",
        wrap_resolver=False,
    ),
    "danted": Proxy(
        title="danted (SOCKS)",
        needs=("danted",),
        config=DANTED_CONFIG,
        command=WITH_PORT + "exec danted -p danted.pid -f config.now",
        speaks="socks",
        logs_names=False,
    ),
    "microsocks": Proxy(
        title="microsocks (SOCKS)",
        needs=("microsocks",),
        command='exec microsocks -i 127.0.0.1 -p "$KODA_PROXY_PORT"',
        speaks="socks",
    ),
    "socat": socat("reuseaddr,fork"),
    "socat-without-reuseaddr": socat("fork", reserve=False),
    "ssh": Proxy(
        title="ssh `-N -D` (SOCKS)",
        needs=("ssh", "/usr/sbin/sshd"),
        command="exec ssh -F none -i key -p {upstream} -o BatchMode=yes -o UserKnownHostsFile=known"
        " -o StrictHostKeyChecking=no -o ExitOnForwardFailure=yes"
        ' -N -D "127.0.0.1:$KODA_PROXY_PORT" 127.0.0.1',
        speaks="socks",
        upstream="sshd",
    ),
    "go": Proxy(
        title="Go `net/http` program",
        needs=("go",),
        build="CGO_ENABLED=0 go build -o proxy {here}/proxy.go",
        command="exec ./proxy",
        **OWN,
    ),
    "go-run": Proxy(
        title="`go run proxy.go`",
        needs=("go",),
        build="CGO_ENABLED=0 go build -o proxy {here}/proxy.go",  # fills the compiler's cache
        command="CGO_ENABLED=0 exec go run {here}/proxy.go",
        **OWN,
    ),
    "npm-proxy": node(
        "proxy", 'DEBUG=* exec node {node}/proxy/dist/bin/proxy.js --port "$KODA_PROXY_PORT"'
    ),
    "npm-proxy-by-npx": node(
        "proxy",
        title="npm `proxy` through `npx`",
        command="DEBUG=* npm_config_update_notifier=false"
        ' exec npx --offline --prefix {node}/.. proxy --port "$KODA_PROXY_PORT"',
    ),
    "npm-anyproxy": node("anyproxy", NODE_LIBRARY + "anyproxy"),
    "npm-http-mitm-proxy": node(
        "http-mitm-proxy",
        "NODE_EXTRA_CA_CERTS=origin.pem " + NODE_LIBRARY + "http-mitm-proxy",
        own_ca="ca/certs/ca.pem",
    ),
    "npm-proxy-chain": node("proxy-chain", NODE_LIBRARY + "proxy-chain", answers_probe=False),
    "python-asyncio": python("asyncio"),
    "python-http.server": python("http.server"),
    "python-socketserver": python("socketserver.TCPServer", reserve=False),
}

if __name__ == "__main__":
    print("\n".join(PROXIES))
