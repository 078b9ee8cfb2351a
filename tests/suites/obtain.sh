# What the suites are obtained with; to be sourced. $suite is where this one has its things.

say() { printf '%s\n' "$name: $*" >&2; }

# stands MARK...: whether what these words name has been made before. made: that it has, now.
stands() { mark="$suite/made.$(printf '%s ' "$@" | cksum | tr -d ' ')"; [ -e "$mark" ]; }
made() { touch "$mark"; }

# venv PACKAGE...: a Python with these, at $suite/venv.
venv() {
    say "installing $*"
    rm -rf "$suite/venv"
    python3 -m venv "$suite/venv"
    "$suite/venv/bin/pip" install --quiet --disable-pip-version-check "$@" >&2
}

# sdist NAME VERSION: the package's source, at $suite/source.
sdist() {
    say "fetching the source of $1 $2"
    rm -rf "$suite/source" "$suite/sdist"
    "$suite/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary "$1" --dest "$suite/sdist" "$1==$2" >&2
    mkdir -p "$suite/source"
    tar --extract --gzip --file "$suite/sdist"/*.tar.gz --directory "$suite/source" --strip-components=1
}

# checkout URL TAG: a repository at a tag, at $suite/source.
checkout() {
    say "cloning $1 at $2"
    rm -rf "$suite/source"
    git -c advice.detachedHead=false clone --quiet --depth 1 --branch "$2" "$1" "$suite/source" >&2
}

# pytest ARGUMENT...: what each test came to is in $outcomes. That some fail is no failure of ours.
pytest() {
    PYTHONPATH=$here "$suite/venv/bin/python" -m pytest -p outcomes -q -o timeout=60 "$@" >"$outcomes.log" 2>&1 </dev/null || [ -s "$outcomes" ]
}

# debian PACKAGE VERSION SUITE: a source package of Debian's, at $suite/source. apt checks its signatures; the system's own sources and
# lists are not touched.
debian() {
    command -v apt-get >/dev/null 2>&1 || { say "no apt-get here to fetch Debian's source package $1 $2 with"; exit 1; }
    say "fetching the source package $1 $2 with apt-get"
    apt=$suite/apt
    rm -rf "$suite/source" "$apt"
    mkdir -p "$suite/source" "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/sources.d"
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $3 main" >"$apt/sources.list"
    get() {
        apt-get -qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts="$apt/sources.d" -o Dir::State::Lists="$apt/lists" \
            -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root "$@" >&2
    }
    get update
    (cd "$apt" && get source --download-only "$1=$2")
    tar --extract --gzip --file "$apt"/*.orig.tar.gz --directory "$suite/source" --strip-components=1
}
