
# A clock that a test can set: a library that is preloaded into a server and adds
# an offset, which it reads from a file, to the time of day.  Only the time of
# day: what the kernel waits for, and clocks that cannot be set, are as they are.

package TaskshedClock;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils;

our @EXPORT = qw(clock_build clock_set);

my $source = q{
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long none;
static volatile long long *offset = &none;

__attribute__((constructor)) static void
clock_open(void)
{
	const char *path = getenv("TASKSHED_CLOCK");
	int			fd = path != NULL ? open(path, O_RDONLY) : -1;
	void	   *map = fd >= 0 ? mmap(NULL, sizeof(long long), PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (map != MAP_FAILED)
		offset = map;
	if (fd >= 0)
		close(fd);
}

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	static int	(*real) (struct timeval *, void *);
	int			rc;
	long long	us;

	if (real == NULL)
		real = dlsym(RTLD_NEXT, "gettimeofday");
	rc = real(tv, tz);
	us = tv->tv_sec * 1000000LL + tv->tv_usec + *offset;
	tv->tv_sec = us / 1000000;
	tv->tv_usec = us % 1000000;
	return rc;
}

time_t
time(time_t *t)
{
	struct timeval tv;

	gettimeofday(&tv, NULL);
	if (t != NULL)
		*t = tv.tv_sec;
	return tv.tv_sec;
}

int
clock_gettime(clockid_t id, struct timespec *ts)
{
	static int	(*real) (clockid_t, struct timespec *);
	int			rc;

	if (real == NULL)
		real = dlsym(RTLD_NEXT, "clock_gettime");
	rc = real(id, ts);
	if (id == CLOCK_REALTIME)
	{
		long long	us = ts->tv_nsec / 1000 + *offset;

		us += ts->tv_sec * 1000000LL;
		ts->tv_sec = us / 1000000;
		ts->tv_nsec = us % 1000000 * 1000;
	}
	return rc;
}
};

# Sets the clock of servers that are started from now on by so many seconds.
sub clock_set
{
	my ($seconds) = @_;

	open my $fh, '+<', $ENV{TASKSHED_CLOCK} or die $!;
	binmode $fh;
	syswrite $fh, pack('q', $seconds * 1_000_000);
	close $fh;
	return;
}

# Builds the library; false if there is no compiler.  Returns what has to be
# preloaded.
sub clock_build
{
	my $dir = PostgreSQL::Test::Utils::tempdir();

	append_to_file("$dir/clock.c", $source);
	system_log(
		'cc', '-O2',           '-shared',      '-fPIC',
		'-o', "$dir/clock.so", "$dir/clock.c", '-ldl') == 0 or return;
	append_to_file("$dir/offset", pack('q', 0));
	$ENV{TASKSHED_CLOCK} = "$dir/offset";
	return "$dir/clock.so";
}

1;
