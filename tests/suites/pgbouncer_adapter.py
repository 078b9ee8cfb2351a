"""PgBouncer's own tests with the router in PgBouncer's place. As a program it is started as `pgbouncer` is, reads PgBouncer's ini file, and
becomes the router with the same settings in a file of its own. As a plugin of pytest it does what PgBouncer's admin console does with an ini
file: SET and RELOAD reach the router by its file."""

import ctypes
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
ROUTER = os.environ["SWITCHYARD"]

# PgBouncer's keys and ours, where they are others.
NAMES = {
    "default_pool_size": "pool_size",
    "max_client_conn": "max_clients",
    "server_connect_timeout": "connect_timeout",
}
NUMBERS = {
    "pool_size", "min_pool_size", "reserve_pool_size", "max_db_connections", "max_user_connections", "max_clients",
    "max_prepared_statements", "peer_id", "max_db_client_connections", "max_user_client_connections",
}
# Ours, and what 0 of PgBouncer's means.
TIMES = {
    "server_idle_timeout": "off", "server_lifetime": "1ms", "client_idle_timeout": "off", "idle_transaction_timeout": "off",
    "query_timeout": "off", "query_wait_timeout": "365d", "reserve_pool_timeout": "365d", "server_login_retry": "1ms",
    "connect_timeout": "365d", "client_login_timeout": "365d", "transaction_timeout": "off", "cancel_wait_timeout": "365d",
    "server_check_delay": "1ms", "query_wait_notify": "off",
}
# PgBouncer's defaults, where ours are others.
DEFAULTS = {
    "pool_mode": "session", "max_client_conn": "100", "default_pool_size": "20", "server_connect_timeout": "15",
    "auth_type": "md5", "listen_port": "6432", "client_tls_sslmode": "disable",
}
# Keys of PgBouncer's that the router has not.
UNKNOWN = {
    "transaction_timeout", "server_check_delay", "query_wait_notify", "cancel_wait_timeout", "max_db_client_connections",
    "max_user_client_connections",
}
OF_DATABASES = ["pool_size", "min_pool_size", "reserve_pool_size", "max_db_connections", "max_db_client_connections"]
OF_USERS = ["pool_size", "reserve_pool_size", "max_user_connections", "max_user_client_connections"]


def text(value):
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def read_ini(path):
    """The sections with their keys. `%include` is not among what the tests use."""
    sections, section = {}, {}
    for line in Path(path).read_text().splitlines():
        line = line.strip()
        if not line or line[0] in ";#":
            continue
        if line[0] == "[":
            section = sections.setdefault(line.strip("[]").strip(), {})
        else:
            key, _, value = line.partition("=")
            section[key.strip()] = value.strip()
    return sections


def read_words(line):
    """`key=value key='a value'`"""
    words = re.findall(r"(\w+)\s*=\s*('(?:[^']|'')*'|[^\s]*)", line)
    return {key: value[1:-1].replace("''", "'") if value[:1] == "'" else value for key, value in words}


def time(value, zero):
    milliseconds = round(float(value) * 1000)
    return text(f"{milliseconds}ms") if milliseconds > 0 else text(zero)


class Translation:
    def __init__(self, ini_path, changed=()):
        self.sections = read_ini(ini_path)
        self.main = {**DEFAULTS, **self.sections.get("pgbouncer", {}), **dict(changed)}
        self.directory = Path(ini_path).parent

    def listed(self, key):
        return [name.strip() for name in self.main.get(key, "").split(",") if name.strip()]

    def router(self):
        main, lines = self.main, ["[router]"]
        # A port of 0 turns a listener off with PgBouncer.
        host = main.get("listen_addr", "127.0.0.1").split(",")[0].replace("*", "0.0.0.0")
        lines.append(f"listen = {text(host + ':' + main['listen_port'])}")
        if main.get("unix_socket_dir"):
            lines.append(f"unix_socket_dir = {text(main['unix_socket_dir'])}")
        lines.append(f"pool_mode = {text(main['pool_mode'])}")
        if main.get("so_reuseport") == "1":
            lines.append("so_reuseport = true")
        for key, value in main.items():
            key = NAMES.get(key, key)
            if key in NUMBERS and key not in UNKNOWN:
                # 0 is no limit there, and none of these may be 0 here.
                value = {"max_prepared_statements": "1"}.get(key, value) if value == "0" else value
                lines.append(f"{key} = {value}")
            elif key in TIMES and key not in UNKNOWN:
                lines.append(f"{key} = {time(value, TIMES[key])}")
        # The tests fail at logging in on purpose.
        lines.append("max_login_failures = 0")
        return lines + self.tls()

    def tls(self):
        main = self.main
        if main["client_tls_sslmode"] == "disable":
            return []
        lines = ["[router.tls]"]
        for ours, theirs in [("cert", "client_tls_cert_file"), ("key", "client_tls_key_file"), ("client_ca", "client_tls_ca_file")]:
            if main.get(theirs):
                lines.append(f"{ours} = {text(os.path.abspath(main[theirs]))}")
        if main["client_tls_sslmode"] not in ("allow", "prefer"):
            lines.append("required = true")
        return lines

    def auth(self):
        main, lines = self.main, ["[auth]"]
        method = {"md5": "scram-sha-256", "plain": "scram-sha-256", "any": "trust"}.get(main["auth_type"], main["auth_type"])
        self.method = method
        if method == "hba":
            rules = Path(os.path.abspath(main.get("auth_hba_file", "")))
        else:
            # Who comes by the Unix socket as PgBouncer's own user is let in by his number there.
            tls = main["client_tls_sslmode"]
            client = " clientcert=verify-ca" if tls.startswith("verify-") and method != "cert" else ""
            others = f"hostssl all all all {method}{client}" if client or method == "cert" else f"host all all all {method}"
            local = "trust" if method == "cert" else method
            rules = self.directory / "switchyard_hba.conf"
            rules.write_text(f"local pgbouncer pgbouncer trust\nlocal all all {local}\n{others}\n")
        lines += ['method = "hba"', f"hba_file = {text(str(rules))}"]
        if main.get("auth_ident_file"):
            lines.append(f"ident_file = {text(os.path.abspath(main['auth_ident_file']))}")
        if main.get("auth_user") in self.passwords():
            lines.append(f"auth_user = {text(main['auth_user'])}")
            for key in ("auth_query", "auth_dbname"):
                if main.get(key):
                    lines.append(f"{key} = {text(main[key])}")
        return lines

    def passwords(self):
        found = {}
        file = self.main.get("auth_file")
        if file and Path(file).exists():
            for line in Path(file).read_text().splitlines():
                match = re.match(r'\s*"((?:[^"]|"")*)"\s+"((?:[^"]|"")*)"', line)
                if match:
                    found.setdefault(match[1], match[2])
        return found

    def users(self):
        rules, lines = self.sections.get("users", {}), []
        passwords = self.passwords()
        admins, stats = self.listed("admin_users"), self.listed("stats_users")
        # Who looks after nodes is the first admin, and has to be known to the server; the console's own user comes by the Unix socket.
        names = ["pswcheck", "pgbouncer", *admins, *stats, *passwords, *rules]
        self.known = set()
        for name in names:
            password = passwords.get(name)
            # Hashes by MD5 let nobody in here.
            lacks = not password or password.startswith("md5")
            if name in self.known or (lacks and self.method not in ("trust", "cert")):
                continue
            self.known.add(name)
            lines += ["[[users]]", f"name = {text(name)}"]
            if not lacks:
                lines.append(f"password = {text(password)}")
            if name in ("pswcheck", "pgbouncer") or name in admins:
                lines.append("admin = true")
            elif name in stats:
                lines.append("stats = true")
            lines += self.rules(read_words(rules.get(name, "")), OF_USERS)
        return lines

    def rules(self, words, keys):
        words = {"reserve_pool_size" if key == "reserve_pool" else key: value for key, value in words.items()}
        lines = [f"{key} = {words[key]}" for key in keys if key in words and key not in UNKNOWN]
        if "pool_mode" in words:
            lines.append(f"pool_mode = {text(words['pool_mode'])}")
        return lines

    def databases(self):
        main, lines = self.main, []
        for name, value in self.sections.get("databases", {}).items():
            words = read_words(value)
            # The tests make names by adding a letter.
            if name == "*" or not {name, name[:-1]} & set(os.environ.get("SWITCHYARD_DATABASES", name).split()):
                continue
            lines += ["[[databases]]", f"name = {text(name)}"]
            if words.get("dbname", name) != name:
                lines.append(f"dbname = {text(words['dbname'])}")
            if words.get("user") in self.known:
                lines.append(f"user = {text(words['user'])}")
            mode = main.get("server_tls_sslmode", "prefer").replace("allow", "prefer")
            lines.append(f"sslmode = {text(mode)}")
            if main.get("server_tls_ca_file"):
                lines.append(f"sslrootcert = {text(os.path.abspath(main['server_tls_ca_file']))}")
            lines += self.rules(words, OF_DATABASES)
            host = words.get("host", "/tmp").split(",")[0]
            node = f"{{ host = {text(host)}, port = {words.get('port', '5432')}, role = \"primary\" }}"
            lines += ["[[databases.shards]]", 'name = "s0"', f"nodes = [{node}]"]
        return lines

    def peers(self):
        lines = []
        for number, value in self.sections.get("peers", {}).items():
            words = read_words(value)
            if number != self.main.get("peer_id"):
                lines += ["[[peers]]", f"id = {number}", f"host = {text(words.get('host', '127.0.0.1'))}", f"port = {words.get('port', '6432')}"]
        return lines

    def write(self):
        parts = [self.router(), self.auth(), self.users(), self.databases(), self.peers()]
        log = ["[log]", 'level = "debug"'] if int(self.main.get("verbose", "0")) > 0 else []
        (self.directory / "switchyard.toml").write_text("\n".join(line for part in [*parts, log] for line in part) + "\n")


def main(arguments):
    if "--version" in arguments or "-V" in arguments:
        said = subprocess.run([ROUTER, "--version"], capture_output=True, text=True, check=True).stdout
        print(said[:1].upper() + said[1:].strip())
        return
    if "--help" in arguments or "-h" in arguments:
        os.execv(ROUTER, [ROUTER, "--help"])
    if "-R" in arguments or "--reboot" in arguments:
        sys.exit("the router takes nobody's place by --reboot")
    [ini] = [argument for argument in arguments if not argument.startswith("-")]
    translation = Translation(ini)
    translation.write()
    log = os.open(translation.main.get("logfile", "/dev/null"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 2)
    # What a shell has its background ignore.
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    # A test that fails to start one leaves it behind: it ends with the tests.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execv(ROUTER, [ROUTER, "run", "--config", str(Path(ini).parent / "switchyard.toml")])


def pytest_collection_modifyitems():
    """By now the tests' own module is there."""
    utils = sys.modules["test.utils"]
    bouncer, postgres = utils.Bouncer, utils.Postgres
    admin, aadmin, sighup = bouncer.admin, bouncer.aadmin, bouncer.sighup

    def translated(self, query):
        setting = re.fullmatch(r"\s*set\s+(\w+)\s*(?:=|to)\s*(.*?)\s*;?\s*", query, re.IGNORECASE)
        if setting:
            self.changed = {**getattr(self, "changed", {}), setting[1]: setting[2].strip("'")}
        elif re.fullmatch(r"\s*reload\s*;?\s*", query, re.IGNORECASE):
            self.changed = {}
        else:
            return query
        Translation(self.ini_path, self.changed).write()
        return "RELOAD"

    def hang_up(self):
        self.changed = {}
        Translation(self.ini_path).write()
        sighup(self)

    def initdb(self):
        make(self)
        # The router keeps connections of its own to each database, and a test that has failed may leave a router behind,
        with self.conf_path.open(mode="a") as conf:
            conf.write("max_connections = 400\n")

    def reload(self):
        # or PostgreSQL stopped.
        if subprocess.run(["pg_ctl", "--pgdata", str(self.pgdata), "status"], capture_output=True, check=False).returncode != 0:
            self.start()
        again(self)

    make, again = postgres.initdb, postgres.reload
    postgres.initdb, postgres.reload = initdb, reload
    bouncer.admin = lambda self, query, **how: admin(self, translated(self, query), **how)
    bouncer.aadmin = lambda self, query, **how: aadmin(self, translated(self, query), **how)
    bouncer.sighup = hang_up


def pytest_runtest_setup(item):
    """The router reads the tables of each of its databases, and keeps connections of its own to it: it gets those that the file names."""
    words = set(re.findall(r"\w+", item.path.read_text()))
    os.environ["SWITCHYARD_DATABASES"] = " ".join({"p0", *words})


if __name__ == "__main__":
    main(sys.argv[1:])
