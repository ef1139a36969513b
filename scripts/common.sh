# shellcheck shell=bash
# Shared by scripts/demo and scripts/test (bash; sourced, with the repository as current folder).
#
# "setup" makes one temporary folder, $work, and in it
#
#   pg/    a copy of an installed PostgreSQL, below the same paths (pg/usr/lib/postgresql/15/...):
#          the server finds its files relative to its own place, so taskshed is installed into
#          the copy and the machine's own PostgreSQL is never touched;
#   src/   a copy of this repository, where taskshed is built and tested.
#
# Servers run there as an ordinary user: you, or for root, whom PostgreSQL refuses, "postgres".
# However the script ends, every process that works inside $work is ended and $work is removed.
#
#   PG_CONFIG=/path/to/pg_config   use this PostgreSQL (default: what is found, 15 or newer)
#   TASKSHED_KEEP=1                keep $work
#
# As root on Debian, packages that are missing are installed; anybody else is told their names.

say() { printf '%s\n' "$@"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

work=
cluster_conf=
packages=()		# Debian packages that have to be installed; a script may add its own before "setup"
wanted=()		# packages without which something is left out: installed if that is possible

# Processes whose current folder is in $work: servers and all their children, make, prove, psql ...
inside() {
	find /proc -maxdepth 2 -path '/proc/[0-9]*/cwd' -lname "$work*" -printf '%h\n' 2>/dev/null |
		cut -d/ -f3
}

# First a server's fast shutdown (INT), with everything else around it (TERM); then an immediate one
# (QUIT).  The helpers of initdb end with it by themselves, while a signal would have them leave
# their shared memory behind.
stop_everything() {
	local pids pid i
	for ((i = 0; i < 100; i++)); do
		mapfile -t pids < <(inside)
		[[ ${#pids[@]} -gt 0 ]] || return 0
		case $i in
			0) for pid in "${pids[@]}"; do
				grep -qaE -e '--(boot|check|single)' "/proc/$pid/cmdline" ||
					{ kill -INT "$pid"; kill -TERM "$pid"; }
			done ;;
			30) kill -QUIT "${pids[@]}" ;;
			80 | 90) kill -KILL "${pids[@]}" ;;
		esac 2>/dev/null || true
		sleep 0.1
	done
}

finish() {
	trap '' INT TERM HUP
	[[ -z $cluster_conf ]] || rm -f "$cluster_conf"
	[[ -n $work ]] || return 0
	stop_everything
	wait
	if [[ -n ${TASKSHED_KEEP:-} ]]; then
		say "Kept: $work"
	else
		rm -rf "$work"
	fi
}

trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
trap finish EXIT

# Run a command so that a signal to this script is acted on at once, and not when the command is
# done.  (set -m: or else bash has the command ignore SIGINT.)
run() {
	set -m
	"$@" </dev/null &
	set +m
	wait $!
}

# Run a command in the copy of the sources as the user who may run servers.
as_user=()
in_copy() { (cd "$work/src" && exec "${as_user[@]}" "$@"); }

# One line when all is well, the whole output when it is not.
quietly() {
	say "$1 ..."
	shift
	run "$@" >"$work/output" 2>&1 || { cat "$work/output"; return 1; }
}

# Is this the pg_config of a whole server, 15 or newer?
usable() {
	local version bindir
	version=$("$1" --version 2>/dev/null) && bindir=$("$1" --bindir) || return 1
	version=${version#PostgreSQL }
	[[ ${version%%[!0-9]*} -ge 15 && -x $bindir/postgres && -x $bindir/initdb && -x $bindir/pg_config ]]
}

find_pg_config() {
	local candidate
	if [[ -n ${PG_CONFIG:-} ]]; then
		usable "$PG_CONFIG" || die "PG_CONFIG=$PG_CONFIG: not a PostgreSQL server, 15 or newer"
		return
	fi
	for candidate in pg_config /usr/lib/postgresql/{15,16,17,18,19}/bin/pg_config; do
		if usable "$candidate"; then
			PG_CONFIG=$candidate
			return
		fi
	done
	return 1
}

# Add a package to those that are wanted, if this machine can install it.
want() {
	[[ $EUID -eq 0 ]] && command -v apt-get >/dev/null || return 0
	apt-cache show "$1" >/dev/null 2>&1 || apt-get update >/dev/null 2>&1 || true
	! apt-cache show "$1" >/dev/null 2>&1 || wanted+=("$1")
}

# The same for Debian's pg_cron, if it is for the PostgreSQL that is used.
want_pg_cron() {
	local major=15 control
	! find_pg_config || major=$("$PG_CONFIG" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
	control=$("${PG_CONFIG:-pg_config}" --sharedir 2>/dev/null || true)/extension/pg_cron.control
	if [[ ! -f $control && (${PG_CONFIG:-/usr/} == /usr/* || ${PG_CONFIG:-} == pg_config) ]]; then
		want "postgresql-$major-cron"
	fi
}

get_packages() {
	apt-get install -y --no-install-recommends -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@"
}

install_missing() {
	find_pg_config || packages+=(postgresql)		# Debian 12: 15
	echo '#include <stdio.h>' | gcc -E - >/dev/null 2>&1 || packages+=(gcc libc6-dev)
	[[ ${#packages[@]} -gt 0 || ${#wanted[@]} -gt 0 ]] || return 0
	if [[ ${#packages[@]} -gt 0 ]] && { [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; }; then
		die "these are missing: ${packages[*]}
Install them (Debian: apt-get install --no-install-recommends ${packages[*]}) and try again."
	fi

	say "Installing ${packages[*]} ${wanted[*]} ..."
	# Not Debian's usual database cluster: nobody asked for one.
	cluster_conf=/etc/postgresql-common/createcluster.d/taskshed-$$.conf
	mkdir -p "${cluster_conf%/*}"
	echo 'create_main_cluster = false' >"$cluster_conf"
	export DEBIAN_FRONTEND=noninteractive
	{
		apt-get update -o Acquire::Retries=3 || true
		[[ ${#packages[@]} -eq 0 ]] || get_packages "${packages[@]}"
	} </dev/null >"$work/output" 2>&1 || { cat "$work/output"; die "apt-get failed"; }
	[[ ${#wanted[@]} -eq 0 ]] || get_packages "${wanted[@]}" </dev/null >"$work/output" 2>&1 ||
		say "${wanted[*]} could not be installed."
	rm -f "$cluster_conf"
	find_pg_config || die "PostgreSQL is installed, but not found"
}

# The server's headers straight from their package: installing it would bring clang and LLVM along.
fetch_headers() {
	local major package version
	major=$("$PG_CONFIG" --version)
	major=${major#PostgreSQL } major=${major%%[!0-9]*}
	package=postgresql-server-dev-$major
	version=$(dpkg-query -W -f '${Version}' "postgresql-$major" 2>/dev/null || true)
	say "Fetching the headers of $package $version ..."
	mkdir "$work/deb"
	if download "$package=$version" ||
		{ [[ $EUID -eq 0 ]] && apt-get update >/dev/null && download "$package=$version"; } ||
		download "$package"; then
		dpkg -x "$work"/deb/*.deb "$work/pg"
	else
		die "no headers for $("$PG_CONFIG" --version) (Debian: apt-get install $package)"
	fi
}

download() { (cd "$work/deb" && apt-get download -o APT::Sandbox::User=root "$1") >/dev/null 2>&1; }

setup() {
	local user variable dir
	unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES DESTDIR
	for variable in "${!PG@}"; do
		case $variable in PG_CONFIG | PG_TEST_*) ;; *) unset "$variable" ;; esac
	done
	export LC_ALL=C.UTF-8 LANG=C.UTF-8		# (TAP tests forget LC_ALL)
	umask 022

	# Short, because the names of the servers' sockets begin with it.
	work=$(mktemp -d "${TMPDIR:-/tmp}/taskshed.XXXXXX")
	mkdir "$work/pg" "$work/src"
	install_missing

	say "Copying $("$PG_CONFIG" --version) and taskshed to $work ..."
	for dir in --bindir --pkglibdir --sharedir --includedir-server; do
		dir=$("$PG_CONFIG" "$dir")
		[[ -d $dir ]] || continue
		mkdir -p "$work/pg$dir"
		cp -a "$dir/." "$work/pg$dir"
	done
	[[ -f $work/pg$("$PG_CONFIG" --includedir-server)/postgres.h &&
		-f $work/pg$("$PG_CONFIG" --pgxs) ]] || fetch_headers
	PG_CONFIG=$work/pg$("$PG_CONFIG" --bindir)/pg_config
	[[ $("$PG_CONFIG" --pkglibdir) == "$work"/* && $("$PG_CONFIG" --sharedir) == "$work"/* ]] ||
		die "this PostgreSQL does not find its files when it is moved"
	tar -cf - --exclude=./.git --exclude='./tmp_check*' . | tar -xf - -C "$work/src" --no-same-owner

	if [[ $EUID -eq 0 ]]; then
		user=nobody
		! id postgres >/dev/null 2>&1 || user=postgres
		as_user=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups --)
		chown -R "$user:" "$work"
	fi
	export HOME=$work TMPDIR=$work PSQLRC=/dev/null
	PATH=$("$PG_CONFIG" --bindir):$PATH
	in_copy true || die "$work can't be used; set TMPDIR"
}

# make in the copy.  with_llvm: no bitcode, which would need clang.
make_in_copy() { in_copy make PG_CONFIG="$PG_CONFIG" ${CC:+"CC=$CC"} with_llvm=no "$@"; }

compile() { make_in_copy clean && make_in_copy -j "$(nproc)" all "$@"; }

build() {
	quietly "Building taskshed" compile && quietly "Installing it there" make_in_copy install
}
