# shellcheck shell=bash
# Debian systems of their own, one for each version of PostgreSQL (bash; sourced after common.sh).
#
# A root is a minimal Debian below $cache with PostgreSQL, a compiler and what the tests need.
# What runs in one has its own processes and mounts, which the kernel ends and undoes with it, so
# that nothing is left mounted however a script ends.  Needs root, and a kernel that permits it.
#
#   TASKSHED_CACHE=DIR      where roots and builds are kept (default: ~/.cache/taskshed)
#   TASKSHED_MIRROR=URL     Debian's mirror (default: the one this machine's apt uses)

# shellcheck disable=SC2034
cache=${TASKSHED_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/taskshed}

# The release of Debian that has a version of PostgreSQL.
suite_of() {
	case $1 in
		15*) say bookworm ;;
		17*) say trixie ;;
		18*) say forky ;;
		19*) say experimental ;;
		*) die "no Debian release is known to have PostgreSQL $1" ;;
	esac
}

mirror() {
	if [[ -n ${TASKSHED_MIRROR:-} ]]; then
		say "$TASKSHED_MIRROR"
		return
	fi
	# The first one of either format of apt's sources.
	cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
		grep -oE '^(URIs:|deb).*' | grep -oE '[a-z]+://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ' || true
}

# Run a command with processes and mounts of its own.
apart=(unshare --mount --pid --fork --kill-child --propagation private)

# Why there can be no roots on this machine; nothing when there can.
no_roots() {
	if [[ $EUID -ne 0 ]]; then
		say "needs root"
	elif ! "${apart[@]}" mount -t proc proc /proc >/dev/null 2>&1; then
		say "mounting is not permitted here"
	elif [[ -z $(mirror) ]]; then
		say "no Debian mirror among apt's sources, set TASKSHED_MIRROR"
	elif ! command -v debootstrap >/dev/null && ! apt_install debootstrap >/dev/null 2>&1; then
		say "debootstrap is missing"
	fi
}

apt_install() {
	export DEBIAN_FRONTEND=noninteractive
	{ apt-get update -o Acquire::Retries=3 || true; } &&
		apt-get install -y --no-install-recommends -o Acquire::Retries=3 \
			-o DPkg::Lock::Timeout=300 "$@"
}

# in_root ROOT COMMAND...: as root, from /build/taskshed if that is there.
in_root() {
	local root=$1
	shift
	# shellcheck disable=SC2016
	"${apart[@]}" bash -c '
		root=$1
		shift
		mount --bind "$root" "$root" &&		# in there "/" has to be a mount, or else none can be private
			mount -t proc proc "$root/proc" &&
			mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm" || exit
		cp -L /etc/resolv.conf "$root/etc/" 2>/dev/null
		chroot "$root" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
			PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
			sh -c "cd /build/taskshed 2>/dev/null; exec \"\$@\"" - "$@"
		exit' - "$root" "$@"
}

# Run a command so that a signal ends this script at once.  What runs in a root ends with it, if
# "finish" calls end_attended: the kernel ends all of that when its first process goes.
child=
attended() {
	local rc=0
	set -m
	"$@" </dev/null &
	child=$!
	set +m
	wait "$child" || rc=$?
	child=
	return $rc
}
end_attended() { [[ -z $child ]] || kill -KILL -- "-$child" 2>/dev/null || true; }

# A minimal Debian in DIR, with no service ever started in it.  Experimental is no whole release: sid
# is one, with PostgreSQL from there.
bootstrap() {
	local suite=${1/experimental/sid} dir=$2 script=()
	# A release that debootstrap doesn't know yet is made like sid.
	[[ -e /usr/share/debootstrap/scripts/$suite ]] || script=(/usr/share/debootstrap/scripts/sid)
	rm -rf "$dir"
	mkdir -p "$dir"
	"${apart[@]}" debootstrap --variant=minbase "$suite" "$dir" "$(mirror)" "${script[@]}" &&
		printf '#!/bin/sh\nexit 101\n' >"$dir/usr/sbin/policy-rc.d" &&
		chmod 755 "$dir/usr/sbin/policy-rc.d" &&
		mkdir -p "$dir/etc/postgresql-common/createcluster.d" "$dir/build" &&
		echo 'create_main_cluster = false' \
			>"$dir/etc/postgresql-common/createcluster.d/none.conf" || return
	[[ $1 == "$suite" ]] || {
		sed "s/ $suite / $1 /" "$dir/etc/apt/sources.list" >"$dir/etc/apt/sources.list.d/$1.list" &&
			printf '%s\n' 'Package: src:postgresql-*' "Pin: release a=$1" 'Pin-Priority: 990' \
				>"$dir/etc/apt/preferences.d/$1"
	}
}

# The server's development files are unpacked, not installed: they would bring LLVM.
# shellcheck disable=SC2016
furnish='
	set -e
	# Testing has no fixed date: an index of some weeks ago will do.
	apt-get update -o Acquire::Retries=3 -o Acquire::Check-Valid-Until=false
	peers=
	for package in "postgresql-$1-cron" python3-croniter; do
		! apt-cache show "$package" >/dev/null 2>&1 || peers="$peers $package"
	done
	apt-get install -y --no-install-recommends -o Acquire::Retries=3 \
		"postgresql-$1" gcc libc6-dev make libipc-run-perl libpq-dev $peers
	cd /tmp
	apt-get download -o APT::Sandbox::User=root \
		"postgresql-server-dev-$1=$(dpkg-query -W -f "\${Version}" "postgresql-$1")"
	dpkg -x postgresql-server-dev-*.deb /
	rm postgresql-server-dev-*.deb
	apt-get clean'

# Make the root of a version, unless it is there.
make_root() {
	local major=$1 root=$2
	[[ ! -d $root ]] || return 0
	bootstrap "$(suite_of "$major")" "$root.new" &&
		in_root "$root.new" sh -c "$furnish" - "$major" &&
		mv "$root.new" "$root"
}

# PostgreSQL 15 with taskshed beside a later version, for pg_upgrade to start from: what it needs of
# its own release can be installed beside what is there.  Its headers are older than C23.
# shellcheck disable=SC2016
add_old='
	set -e
	old=/usr/lib/postgresql/15
	if [ ! -x "$old/bin/postgres" ]; then
		sed "s/ [a-z]* main/ bookworm main/" /etc/apt/sources.list >/etc/apt/sources.list.d/bookworm.list
		apt-get update -o Acquire::Retries=3 -o Acquire::Check-Valid-Until=false
		apt-get install -y --no-install-recommends -o Acquire::Retries=3 postgresql-15
	fi
	rm -rf /tmp/old
	mkdir /tmp/old
	cd /tmp/old
	if [ ! -d /usr/include/postgresql/15/server ]; then
		apt-get download -o APT::Sandbox::User=root \
			"postgresql-server-dev-15=$(dpkg-query -W -f "\${Version}" postgresql-15)"
		dpkg -x postgresql-server-dev-15*.deb /
	fi
	cp -a /build/taskshed .
	make -s -C taskshed PG_CONFIG="$old/bin/pg_config" CC="gcc -std=gnu17" with_llvm=no clean all install
	rm -rf /tmp/old'

# A fresh copy of this repository in a root; what an earlier run left behind goes.
copy_to_root() {
	local root=$1
	rm -rf "$root/build/taskshed" "$root"/tmp/taskshed.*
	mkdir -p "$root/build/taskshed"
	tar -cf - --exclude=./.git --exclude='./tmp_check*' --exclude='*.o' --exclude='*.so' . |
		tar -xf - -C "$root/build/taskshed" --no-same-owner
}
